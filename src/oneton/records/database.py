"""Connections to Postgres, and transactions that see one tenant only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import asyncpg.pool
import msgspec

from oneton.domain.errors import BadTextError, QuotaError, StoreDownError
from oneton.domain.model import TenantId
from oneton.domain.stages import stage
from oneton.domain.watching import NO_WATCH, Watch
from oneton.records.template_seals import PLAIN, TemplateSeals

APP_ROLE = "oneton_app"

Connection = asyncpg.pool.PoolConnectionProxy

_BROKEN = (
    ConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg says when the server's farewell meets a statement that is just being sent.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
_DOWN = (
    *_BROKEN,
    OSError,
    TimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    # A standby, as the address may be for the minutes of a failover.
    asyncpg.ReadOnlySQLTransactionError,
)


_QUOTA = "ON001"
"""What a trigger on face raises, see migration 0007."""
_BAD_TEXT = (
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn the errors of a Postgres that is away or overrun into StoreDownError.

    A text that it cannot keep becomes a BadTextError, a face record too many a QuotaError.
    """
    try:
        yield
    except _BAD_TEXT as error:
        raise BadTextError from error
    except _DOWN as error:
        raise StoreDownError(f"Postgres: {type(error).__name__}: {error}") from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == _QUOTA:
            raise QuotaError(str(error)) from error
        raise


class _Timed(asyncpg.Connection):
    """A connection whose statements are a stage of the work that they are part of."""

    async def execute(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as it is there
        with stage("sql"):
            return await super().execute(*args, **kwargs)

    async def executemany(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with stage("sql"):
            return await super().executemany(*args, **kwargs)

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with stage("sql"):
            return await super().fetch(*args, **kwargs)

    async def fetchrow(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with stage("sql"):
            return await super().fetchrow(*args, **kwargs)

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with stage("sql"):
            return await super().fetchval(*args, **kwargs)


class Database:
    """A pool whose connections act as `oneton_app`, which no policy lets past its tenant.

    Attributes:
        seals: what templates are sealed with; whoever opens the parts sets it.
    """

    def __init__(self, pool: asyncpg.Pool, dsn: str, watch: Watch = NO_WATCH) -> None:
        self._pool = pool
        self._watch = watch
        self.dsn = dsn
        self.server_settings = SERVER_SETTINGS
        self.seals: TemplateSeals = PLAIN

    @property
    def pool(self) -> asyncpg.Pool:
        """The connections themselves, for a library that brings its own statements."""
        return self._pool

    @classmethod
    async def connect(
        cls, dsn: str, *, size: int = 10, timeout_s: float = 10, watch: Watch = NO_WATCH
    ) -> Database:
        """Open the pool.

        Raises:
            StoreDownError: nothing answers at `dsn`, or it refuses the login or the role.
        """
        try:
            with store_errors():
                pool = await asyncpg.create_pool(
                    dsn,
                    min_size=1,
                    max_size=size,
                    timeout=timeout_s,
                    command_timeout=60,
                    server_settings=SERVER_SETTINGS,
                    reset=keep_as_is,
                    connection_class=_Timed,
                )
        except (asyncpg.PostgresError, ValueError) as error:
            raise StoreDownError(f"Postgres: {error}") from error
        return cls(pool, dsn, watch)

    async def close(self) -> None:
        """Wait for running statements, then close."""
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self, tenant: TenantId) -> AsyncIterator[Connection]:
        """A transaction that sees and writes this tenant's rows only."""
        with self._told(), store_errors():
            async with self._pool.acquire(timeout=10) as connection, connection.transaction():
                await connection.execute(
                    "select set_config('oneton.tenant', $1, true)", str(tenant)
                )
                yield connection

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one statement without a tenant: tenant tables read empty.

        Where a connection died while idle, it is run again on another: those that died with it
        are found one by one, and a new one comes last.
        """
        with self._told(), store_errors():
            for _ in range(self._pool.get_max_size()):
                async with self._pool.acquire(timeout=10) as connection:
                    try:
                        return await connection.fetch(sql, *arguments)
                    except _BROKEN:
                        # asyncpg may have noticed, and taken it back, meanwhile.
                        with suppress(asyncpg.InterfaceError):
                            connection.terminate()
            return await self._pool.fetch(sql, *arguments)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StoreDownError:
            self._watch.count("postgres_errors")
            raise


SERVER_SETTINGS = {
    "application_name": "oneton",
    "role": APP_ROLE,
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "30s",
}


async def one_row(connection: Connection, sql: str, *arguments: object) -> asyncpg.Record:
    """The row of a statement that always gives one."""
    row = await connection.fetchrow(sql, *arguments)
    assert row is not None
    return row


def write_json(value: msgspec.Raw | None) -> str | None:
    """An argument for a jsonb column."""
    return None if value is None else bytes(value).decode()


def read_json(column: str | None) -> msgspec.Raw | None:
    """What a jsonb column holds, as it is."""
    return None if column is None else msgspec.Raw(column.encode())


async def keep_as_is(_connection: object) -> None:
    """Nothing outlives a transaction here, so a returned connection needs no reset."""
