-- migrate:up

-- Whose claim it is: one who was taken for dead, and is not, must not put down an answer over that
-- of whoever came after.
alter table idempotency add owner uuid;

-- migrate:down
alter table idempotency drop owner;
