"""Examine the database: is it this version's, and does it keep tenants apart?"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from oneton.records.database import Database
from oneton.records.migrate import missing_migrations


class DatabaseFindings(msgspec.Struct):
    """What doctor reports of a database.

    Attributes:
        missing_migrations: versions that have not been applied.
        role: that statements run as.
        bypasses: the role could see past its tenant.
        open_tables: tenant tables without row-level security.
    """

    version: str
    missing_migrations: list[str]
    role: str
    bypasses: bool
    open_tables: list[str]


@dataclass(frozen=True)
class ExamineDatabase:
    """Reads catalogues only."""

    database: Database

    async def __call__(self) -> DatabaseFindings:
        """Look, and change nothing."""
        role = (
            await self.database.fetch(
                """select current_user as name, rolsuper or rolbypassrls as bypasses,
                     current_setting('server_version') as version
                   from pg_roles where rolname = current_user"""
            )
        )[0]
        tables = await self.database.fetch(
            """select c.relname as name, c.relrowsecurity as secured,
                 pg_has_role(c.relowner, 'USAGE') as owned
               from pg_class c join pg_attribute a on a.attrelid = c.oid
               where c.relkind = 'r' and a.attname = 'tenant_id' and not a.attisdropped
                 and c.relnamespace = 'public'::regnamespace order by 1"""
        )
        return DatabaseFindings(
            version=role["version"],
            missing_migrations=await missing_migrations(self.database),
            role=role["name"],
            bypasses=role["bypasses"] or any(table["owned"] for table in tables),
            open_tables=[table["name"] for table in tables if not table["secured"]],
        )
