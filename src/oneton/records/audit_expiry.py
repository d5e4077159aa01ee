"""The end of old audit events, which only the owner of the table can bring about."""

from __future__ import annotations

import asyncpg
import msgspec

from oneton.domain.acting import actor
from oneton.domain.audit import Action
from oneton.domain.errors import SettingError, StoreDownError
from oneton.records.database import store_errors


async def expire_audit(owner_dsn: str, days: int, *, keep: bool = False) -> int:
    """Delete events that are older, and note it for each tenant; returns how many there were.

    Args:
        keep: only count.

    Raises:
        SettingError: the login does not own the table.
        StoreDownError: Postgres does not answer.
    """
    try:
        with store_errors():
            connection = await asyncpg.connect(owner_dsn, timeout=10)
            try:
                if keep:
                    return int(await connection.fetchval(_COUNT, days))
                who = actor()
                return int(
                    await connection.fetchval(
                        _EXPIRE, days, who.name, str(Action.EXPIRE_AUDIT), _details(days)
                    )
                )
            finally:
                await connection.close()
    except asyncpg.InsufficientPrivilegeError as error:
        raise SettingError(
            "only the owner of the tables deletes audit events: ONETON_DATABASE_OWNER_URL"
        ) from error
    except asyncpg.PostgresError as error:
        raise StoreDownError(f"Postgres: {error}") from error


_OLD = "at < now() - make_interval(days => $1)"
_COUNT = f"select count(*) from audit_event where {_OLD}"  # noqa: S608 - a text of ours
# One event for each tenant that lost some, and always one of the operator's own.
_EXPIRE = f"""
with gone as (delete from audit_event where {_OLD} returning tenant_id),
counted as (
  select tenant_id, count(*) as events from gone where tenant_id is not null group by tenant_id
  union all select null, count(*) from gone),
noted as (
  insert into audit_event (tenant_id, actor, action, details)
  select tenant_id, $2, $3, $4::jsonb || jsonb_build_object('events', events) from counted)
select count(*) from gone"""  # noqa: S608


def _details(days: int) -> str:
    return msgspec.json.encode({"older_than_days": days}).decode()
