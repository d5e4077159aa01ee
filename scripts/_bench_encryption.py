"""What encryption at rest costs: enrolling, searching, loading a gallery; on against off.

Writes docs/bench/encryption.md.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
from _bench import SEARCH, running_server, token_of
from _fill import fill
from _photos import package_people
from cryptography.fernet import Fernet

from oneton.domain.model import DEFAULT_GALLERY, GalleryId
from oneton.parts import Parts, find_pack, make_seal_anew, open_owner_dsn, open_parts
from oneton.records.faces import LOAD_CHUNK
from oneton.records.locks import Locks
from oneton.settings import Settings, read_settings

INSERT = "/api/v1/face/one-to-n/insert"
PAGE = Path(__file__).parents[1] / "docs" / "bench" / "encryption.md"
ROUNDS = 3
SETTLE_S = 10
Row = tuple[str, float, float]


def main() -> None:
    """Measure both ways, in turns, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="enrolments, and searches, each way")
    parser.add_argument("--faces", type=int, default=50_000, help="templates of the gallery")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    key = Fernet.generate_key().decode()
    rows = measure_calls(key, options.calls)
    load, seal_s = asyncio.run(measure_load(options.faces, key))
    rows.append(load)
    options.output.write_text(page(rows, options.faces, options.calls, seal_s))
    print(options.output.read_text())


def measure_calls(key: str, calls: int) -> list[Row]:
    """Median milliseconds of one caller's calls to two servers, by turns, off and on."""
    bodies = [
        json.dumps({"idPhoto": base64.b64encode(photo).decode()}).encode()
        for photo in package_people().values()
    ]
    with ExitStack() as stack:
        servers = []
        for given in ({}, {"ONETON_MASTER_KEY": key}):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = stack.enter_context(running_server(folder, given))
            # Its commands have no master key, which they need only once there is an image.
            servers.append((f"http://127.0.0.1:{port}", token_of(folder, port, "bench")))
            # It measures how many threads a lone caller gets, with nobody beside it.
            time.sleep(SETTLE_S)
        rows = []
        for name, path in (("enroll", INSERT), ("search", SEARCH)):
            off, on = timed(servers, path, bodies, calls)
            rows.append((f"{name}, median ms a call", 1000 * off, 1000 * on))
        return rows


def timed(
    servers: Sequence[tuple[str, str]], path: str, bodies: Sequence[bytes], calls: int
) -> list[float]:
    """The median call of each server in seconds; a tenth more come first and do not count."""
    took: list[list[float]] = [[] for _ in servers]
    for number in range(calls + calls // 10):
        for (url, token), own in zip(servers, took, strict=True):
            request = Request(url + path, bodies[number % len(bodies)])
            request.add_header("Authorization", f"Bearer {token}")
            request.add_header("Content-Type", "application/json")
            started = time.perf_counter()
            with urlopen(request) as reply:
                reply.read()
            own.append(time.perf_counter() - started)
    return [statistics.median(own[calls // 10 :]) for own in took]


async def measure_load(faces: int, key: str) -> tuple[Row, float]:
    """Seconds to read a gallery's templates from Postgres, and to encrypt them."""
    with tempfile.TemporaryDirectory() as folder:
        plain = _settings(folder, None)
        async with open_owner_dsn(plain) as owner, open_parts(plain) as parts:
            pack = find_pack(plain).pack
            tenant = await parts.tenants.create(
                "bench", DEFAULT_GALLERY, await parts.model_packs.number(pack)
            )
            gallery = await parts.galleries.read(tenant.tenant_id, DEFAULT_GALLERY)
            rows = np.random.default_rng(0).normal(size=(faces, pack.dimension))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            await fill(owner, [gallery], rows.astype(np.float32))
            off_s = await read(parts, DEFAULT_GALLERY, pack.dimension)
        sealed = _settings(folder, key)
        async with open_parts(sealed) as parts:
            assert parts.sealing is not None
            seal_anew = make_seal_anew(sealed, parts, Locks(parts.database))
            assert seal_anew is not None
            started = time.perf_counter()
            await parts.sealing.encryption.begin(tenant.tenant_id, rotate=False, actor="bench")
            await replace(seal_anew, settle_s=0.0).run()
            seal_s = time.perf_counter() - started
            on_s = await read(parts, DEFAULT_GALLERY, pack.dimension)
    return (f"load {faces:,} faces, s", off_s, on_s), seal_s


async def read(parts: Parts, gallery_id: GalleryId, dimension: int) -> float:
    """The fastest of some readings, in seconds."""
    (tenant,) = await parts.tenants.list()
    gallery = await parts.galleries.read(tenant.tenant_id, gallery_id)
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = parts.faces.changes(tenant.tenant_id, gallery, 0, dimension, chunk=LOAD_CHUNK)
        async for _changes in found:
            pass
        took.append(time.perf_counter() - started)
    return min(took)


def page(rows: Sequence[Row], faces: int, calls: int, seal_s: float) -> str:
    """The document."""
    lines = [
        "# What encryption at rest costs",
        "",
        f"One caller, {calls} calls each way over HTTP, by turns, on {os.cpu_count()} cores; a",
        f"gallery of {faces:,} random templates read from Postgres. Made by",
        "`scripts/bench encryption`.",
        "",
        "| | off | on | on / off |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {off:.2f} | {on:.2f} | {on / off:.2f} |" for name, off, on in rows),
        "",
        f"Encrypting these templates where they lay in plain took {seal_s:.1f} s,",
        f"{faces / seal_s:,.0f} a second. Searches read no template from Postgres and no image, so",
        "they cost what they did.",
        "",
    ]
    return "\n".join(lines)


def _settings(folder: str, key: str | None) -> Settings:
    given = {
        "ONETON_DATA_DIR": f"{folder}/.oneton",
        "ONETON_INDEX_DIR": f"{folder}/index",
    }
    return read_settings(given if key is None else {**given, "ONETON_MASTER_KEY": key})


if __name__ == "__main__":
    main()
