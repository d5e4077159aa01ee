"""A gallery changes its model pack under load and kill -9; writes docs/bench/reindex.md.

Photos of real people and varied copies of them are imported; some are erased, some purged. While a
client searches and inserts at a fixed pace, a run re-embeds the gallery with two workers; one of
them and the server are killed with -9 on the way. Afterwards every face is looked for. Then a run
at rate 100 with one worker is timed against the bare model in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
from _bench import ONETON, SEARCH, bare_environ
from _photos import variations
from _turned_pack import turn_pack
from rich.progress import track

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.packs import assemble_buffalo_sc, open_pack
from oneton.records.embedded import EmbeddedPostgres

INSERT = "/api/v1/face/one-to-n/insert"
PACE_PER_S = 1000 / 60
ERASED, PURGED = 0.05, 0.025
RETRIES_S = 30.0
ENOUGH = 0.4
"""Of a run that is only timed."""


class Place:
    """A folder, a PostgreSQL of its own, and the processes that run there."""

    def __init__(self, folder: Path, server: EmbeddedPostgres) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.serving: subprocess.Popen[bytes]
        self.environ = {
            **bare_environ(),
            "ONETON_DATABASE_URL": server.app_dsn,
            "ONETON_DATABASE_OWNER_URL": server.owner_dsn,
            "ONETON_PORT": str(self.port),
            "ONETON_LOG_LEVEL": "warning",
        }

    def start(self, what: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(
                [*ONETON, what], cwd=self.folder, env=self.environ, stdout=log, stderr=log
            )
        while what == "serve":
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    break
            time.sleep(0.05)
        return process

    def run(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> Any:  # noqa: ANN401 - JSON
        done = subprocess.run(
            [*ONETON, *arguments, "--json"],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in expect:
            raise RuntimeError(f"oneton {' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout)

    def token(self, tenant: str) -> str:
        key = self.run("key", "create", "--tenant", tenant)
        form = {"client_id": key["client_id"], "client_secret": key["client_secret"]}
        reply = httpx.post(
            f"{self.url}/api/oauth/token", data={"grant_type": "client_credentials", **form}
        )
        return str(reply.json()["access_token"])

    def status(self) -> dict[str, Any]:
        (work,) = self.run("reindex", "status", expect=(0, 1))
        found: dict[str, Any] = work
        return found


class Seen(msgspec.Struct):
    """What a client met.

    Attributes:
        took_ms: of the calls that were answered at the first try.
        retried: calls that had to be sent again, as while the server was killed.
        wrong: answers that were not right.
        added: ids of what was inserted.
    """

    took_ms: list[float] = msgspec.field(default_factory=list)
    retried: int = 0
    wrong: list[str] = msgspec.field(default_factory=list)
    added: dict[str, bytes] = msgspec.field(default_factory=dict)


class Client:
    """Sends a search or an insert every sixty milliseconds, whatever the answers take."""

    def __init__(self, place: Place, token: str, known: dict[str, bytes]) -> None:
        self._place = place
        self._headers = {"Authorization": f"Bearer {token}"}
        self._known = list(known.items())
        self._random = random.Random(1)
        self._http = httpx.Client(base_url=place.url, headers=self._headers, timeout=30)

    def drive(self, seen: Seen, until: threading.Event) -> None:
        """Go on until told to stop."""
        with ThreadPoolExecutor(16) as pool:
            next_s = time.monotonic()
            number = 0
            while not until.is_set():
                pool.submit(self._one, seen, number)
                number += 1
                next_s += 1 / PACE_PER_S
                time.sleep(max(0.0, next_s - time.monotonic()))

    def drive_for(self, duration_s: float) -> Seen:
        """The same, for a while."""
        seen, until = Seen(), threading.Event()
        timer = threading.Timer(duration_s, until.set)
        timer.start()
        self.drive(seen, until)
        return seen

    def _one(self, seen: Seen, number: int) -> None:
        face_id, photo = self._random.choice(self._known)
        if number % 10 == 0:
            copy = variations(photo, 1, number)[0]
            reply = self.call(INSERT, copy, seen)
            if reply is not None:
                seen.added[reply["oneToNVerificationId"]] = copy
            return
        reply = self.call(SEARCH, photo, seen)
        if reply is not None and not reply["oneToNVerificationMatch"]:
            seen.wrong.append(f"{face_id} is not found")

    def call(self, path: str, photo: bytes, seen: Seen) -> dict[str, Any] | None:
        """One call, sent again while the server is away."""
        body = {"idPhoto": b64encode(photo).decode()}
        deadline_s, tries = time.monotonic() + RETRIES_S, 0
        while time.monotonic() < deadline_s:
            started_s = time.perf_counter()
            tries += 1
            try:
                reply = self._http.post(path, json=body)
            except httpx.TransportError:
                if path == INSERT:
                    # It may have been added: sent again it might be there twice.
                    seen.retried += 1
                    return None
                time.sleep(0.1)
                continue
            if reply.status_code == 200:
                if tries == 1:
                    seen.took_ms.append((time.perf_counter() - started_s) * 1000)
                else:
                    seen.retried += 1
                answer: dict[str, Any] = reply.json()
                return answer
            if reply.status_code != 503 or tries == 1:
                seen.wrong.append(f"{reply.status_code} {reply.text[:120]}")
            time.sleep(0.2)
        seen.wrong.append(f"no answer in {RETRIES_S:g} s")
        return None


def make_photos(source: Path, target: Path, count: int) -> None:
    """All photos of a folder of people, and varied copies of them until there are enough."""
    target.mkdir()
    paths = sorted(source.rglob("*.jpg"))[:count]
    for path in paths:
        (target / path.name).write_bytes(path.read_bytes())
    for number in track(range(count - len(paths)), "copies", transient=True):
        path = paths[number % len(paths)]
        copy = variations(path.read_bytes(), 1, number)[0]
        (target / f"copy-{number:06}-{path.name}").write_bytes(copy)


@contextmanager
def a_place(folder: Path) -> Iterator[Place]:
    """Files under a folder, with a PostgreSQL of its own."""
    server = EmbeddedPostgres(folder / "postgres")
    asyncio.run(server.create_database())
    try:
        yield Place(folder, server)
    finally:
        server.stop()


def p95(values: Sequence[float]) -> float:
    """The 95th of a hundred."""
    return statistics.quantiles(values, n=20)[-1]


def migrate(place: Place, token: str, known: dict[str, bytes], rows: list[str]) -> dict[str, bytes]:
    """Run with two workers under load, killing one and the server; returns what was added."""
    client = Client(place, token, known)
    client.drive_for(5)
    idle = client.drive_for(30)
    plan = place.run("reindex", "plan", "--to", "turned")["plan"]["galleries"][0]["plan"]
    workers = [place.start("worker") for _ in range(2)]
    place.run("reindex", "start", "--to", "turned", "--rate", "50", "--keep-old", "7d")
    seen, until = Seen(), threading.Event()
    driving = threading.Thread(target=client.drive, args=(seen, until))
    started_s = time.monotonic()
    driving.start()
    killed = 0
    while (work := place.status())["state"] in ("filling", "filled"):
        done = work["embedded"] / max(1, work["to_embed"])
        if killed == 0 and done > 0.3:
            workers[0].send_signal(signal.SIGKILL)
            killed = 1
        if killed == 1 and done > 0.5:
            place.serving.send_signal(signal.SIGKILL)
            place.serving.wait()
            place.serving = place.start("serve")
            killed = 2
        print(f"{work['state']} {done:.0%}", file=sys.stderr)
        time.sleep(3)
    took_s = time.monotonic() - started_s
    time.sleep(3)
    until.set()
    driving.join()
    for each in workers:
        each.kill()
        each.wait()
    rows += [
        f"| planned to embed, to drop | {plan['to_embed']:,}, {plan['to_drop']:,} |",
        f"| embedded, dropped, failed | {work['embedded']:,}, {work['dropped']:,}, "
        f"{work['failed']:,} |",
        f"| state, nearest neighbours that agree | {work['state']}, {work['agreed']} of "
        f"{work['compared']} |",
        f"| took, with {killed} of 2 kills | {took_s:.0f} s |",
        f"| calls meanwhile, sent again for the kill | {len(seen.took_ms):,}, {seen.retried} |",
        f"| wrong answers or errors | {len(seen.wrong)} |",
        f"| p95 idle, p95 meanwhile at rate 50 | {p95(idle.took_ms):.1f} ms, "
        f"{p95(seen.took_ms):.1f} ms: {p95(seen.took_ms) / p95(idle.took_ms):.2f} times |",
    ]
    rows += [f"| wrong | {each} |" for each in seen.wrong[:10]]
    return {**idle.added, **seen.added}


def look_for(place: Place, token: str, what: dict[str, bytes], people: int) -> tuple[int, int]:
    """Search with the photos that were enrolled; how many find a match, of how many."""
    client = Client(place, token, {})
    chosen = random.Random(2).sample(sorted(what.items()), min(people, len(what)))
    seen = Seen()

    def find(item: tuple[str, bytes]) -> bool:
        reply = client.call(SEARCH, item[1], seen)
        return reply is not None and reply.get("oneToNVerificationId") == item[0]

    with ThreadPoolExecutor(4) as pool:
        found = sum(pool.map(find, chosen))
    return found, len(chosen)


def throughput(place: Place, photos: Sequence[bytes], rows: list[str]) -> None:
    """One worker at rate 100 against the bare model in one process, both on all cores."""
    folder = place.folder / ".oneton/models"
    files = open_pack("turned_again", folder)
    analyser = Analyser(files)
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(analyser.analyse, photos[:200]))
        started_s = time.perf_counter()
        list(pool.map(analyser.analyse, photos[:2000]))
        bare = len(photos[:2000]) / (time.perf_counter() - started_s)
    worker = place.start("worker")
    place.run("reindex", "start", "--to", "turned_again", "--rate", "100")
    marks: list[tuple[float, int]] = []
    while (work := place.status())["state"] == "filling":
        done = work["embedded"] / work["to_embed"]
        if 0.1 < done < 0.9:
            marks.append((time.perf_counter(), work["embedded"]))
        if done > ENOUGH and len(marks) > 1:
            break
        time.sleep(5)
    place.run("reindex", "cancel", expect=(0, 3))
    worker.kill()
    worker.wait()
    (first_s, first), (last_s, last) = marks[0], marks[-1]
    rate = (last - first) / (last_s - first_s)
    rows += [
        f"| images a second of a run at rate 100, one worker | {rate:.0f} |",
        f"| of the bare model in one process, {threads} threads | {bare:.0f}: the run reaches "
        f"{rate / bare:.0%} |",
    ]


def measure(place: Place, source: Path, count: int) -> list[str]:
    """Everything; returns rows of a table."""
    rows = ["| what | seen |", "| --- | --- |"]
    photos = place.folder / "photos"
    make_photos(source, photos, count)
    place.serving = place.start("serve")
    place.run("tenant", "create", "big")
    token = place.token("big")
    report = place.run("import", str(photos), "--always", expect=(0, 1))
    known = {
        face_id: (photos / name).read_bytes() for name, face_id in report["enrolled_as"].items()
    }
    ids = sorted(known)
    random.Random(0).shuffle(ids)
    erased = set(ids[: int(len(ids) * ERASED)])
    purged = set(ids[len(erased) : len(erased) + int(len(ids) * PURGED)])
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=place.url, headers=headers) as http:
        for face_id in erased:
            http.delete(f"{SEARCH}/{face_id}").raise_for_status()
    for face_id in sorted(purged)[:5]:
        place.run("purge", face_id)
    purged = set(sorted(purged)[:5])
    rows.append(f"| faces, of them erased, purged | {len(ids):,}, {len(erased):,}, {len(purged)} |")
    default = open_pack("buffalo_sc", place.folder / ".oneton/models")
    for number, name in ((1, "turned"), (3, "turned_again")):
        turn_pack(default, place.folder / "packs" / name, seed=number)
        place.run("models", "add", str(place.folder / "packs" / name), "--accept-license")
    staying = {each: known[each] for each in ids if each not in erased | purged}
    added = migrate(place, token, staying, rows)
    people = 2000
    found, of = look_for(place, token, {**staying, **added}, people)
    rows.append(f"| own id found afterwards by the enrolled photo | {found} of {of} |")
    gone, of = look_for(place, token, {each: known[each] for each in erased}, 300)
    rows.append(f"| ids of erased records found afterwards | {gone} of {of} |")
    back = place.run("reindex", "rollback")["rolled_back"]
    found, of = look_for(place, token, added, 500)
    rows.append(f"| records that a rollback brought back | {back['default']:,} |")
    rows.append(f"| enrolled during or after the run, found after the rollback | {found} of {of} |")
    again, of = look_for(place, token, {each: known[each] for each in erased}, 300)
    rows.append(f"| ids of erased records found after the rollback | {again} of {of} |")
    throughput(place, list(staying.values()), rows)
    place.serving.terminate()
    place.serving.wait()
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="one folder a person, such as LFW")
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("docs/bench/reindex.md"))
    asked = parser.parse_args()
    if not asked.photos.is_dir():
        sys.exit(f"{asked.photos} is no folder")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assemble_buffalo_sc(folder / ".oneton/models")
        with a_place(folder) as place:
            rows = measure(place, asked.photos, asked.faces)
    lines = [
        "# Another model pack, under load and kill -9",
        "",
        f"`scripts/bench reindex`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores"
        f" ({platform.machine()}): LFW and varied copies; the new pack is the old one followed by a"
        " rotation. A client sends 1,000 calls a minute, one in ten an insert, throughout the run;"
        " one of two workers and the server are killed with -9.",
        "",
        *rows,
    ]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
