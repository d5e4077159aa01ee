"""What Postgres holds, which is the truth: plain SQL by asyncpg, one class a subject."""
