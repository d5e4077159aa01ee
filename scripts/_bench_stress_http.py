"""Whole searches over HTTP while one client enrolls and another purges, both without pause.

The gallery is large, and seals, merges and snapshots go on all the time, for their limits are
small. Every answer is checked: a probe of somebody enrolled is found under an id of that person's,
a stranger is not found. Writes docs/bench/stress.md, and ends with 1 after a wrong answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from _bench import SEARCH, running_server, token_of
from _bench_http import drawing, fill
from _photos import package_people, variations

from oneton.biometrics.packs import assemble_buffalo_sc, open_pack
from oneton.domain.model import Permission

TENANT = "stress"
INSERT = "/api/v1/face/one-to-n/insert"
SMALL = {
    "ONETON_INDEX_SEAL_FACES": "256",
    "ONETON_SNAPSHOT_CHANGES": "500",
    "ONETON_SNAPSHOT_INTERVAL_S": "10",
    "ONETON_SWEEP_INTERVAL_S": "100000",
}
SETTLED_S = 60.0
"""Segments of a gallery that was just read from Postgres are merged meanwhile."""
PAGE = 100


class Searched(msgspec.Struct):
    """What searching for some time came to."""

    took_ms: list[float] = msgspec.field(default_factory=list)
    wrong: list[str] = msgspec.field(default_factory=list)

    def line(self, name: str) -> str:
        p50, p95, p99 = np.percentile(self.took_ms, [50, 95, 99])
        return (
            f"| {name} | {len(self.took_ms):,} | {p50:.1f} | {p95:.1f} | {p99:.1f}"
            f" | {len(self.wrong)} |"
        )

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.took_ms, 95))


class Caller:
    """One tenant's HTTP client."""

    def __init__(self, port: int, token: str) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._http.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, photo: str) -> dict[str, object]:
        while True:
            reply = self._http.post(path, json={"idPhoto": photo})
            if reply.status_code == 503:
                time.sleep(0.5)
                continue
            reply.raise_for_status()
            found: dict[str, object] = reply.json()
            return found


class People:
    """Photos of people who stay enrolled, of people who come, and of people who never do."""

    def __init__(self) -> None:
        people = [
            [b64encode(each).decode() for each in variations(photo, 6, seed)]
            for seed, photo in enumerate(package_people().values())
        ]
        self.staying, self.coming, self.strangers = people[:4], people[4:7], people[7:]


class Searcher:
    """Searches one after another, and judges each answer."""

    def __init__(self, caller: Caller, people: People) -> None:
        self._caller, self._people = caller, people
        self.ids = [
            {str(caller.post(INSERT, photos[0])["oneToNVerificationId"])}
            for photos in people.staying
        ]

    def search_for(self, seconds: float) -> Searched:
        searched = Searched()
        ends_s = time.monotonic() + seconds
        number = 0
        while time.monotonic() < ends_s:
            number += 1
            is_stranger = number % 4 == 0
            group = self._people.strangers if is_stranger else self._people.staying
            who = number % len(group)
            photo = group[who][number % len(group[who])]
            began_s = time.perf_counter()
            found = self._caller.post(SEARCH, photo)
            searched.took_ms.append((time.perf_counter() - began_s) * 1000)
            is_right = (
                not found["oneToNVerificationMatch"]
                if is_stranger
                else found["oneToNVerificationId"] in self.ids[who]
            )
            if not is_right:
                searched.wrong.append(f"search {number}: {found}")
        return searched


def enroll(port: int, token: str, stop: Event, done: Any) -> None:  # noqa: ANN401
    """Insert photos of those who come, one after another."""
    caller, people = Caller(port, token), People()
    photos = [photo for each in people.coming for photo in each]
    while not stop.is_set():
        caller.post(INSERT, photos[done.value % len(photos)])
        done.value += 1


def purge(port: int, token: str, kept: set[str], stop: Event, done: Any) -> None:  # noqa: ANN401
    """Purge face record after face record, oldest first."""
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    http.headers["Authorization"] = f"Bearer {token}"
    while not stop.is_set():
        page = http.get("/v1/galleries/default/faces", params={"limit": PAGE})
        for face in page.raise_for_status().json()["items"]:
            if face["face_id"] not in kept and not stop.is_set():
                http.delete(f"/v1/faces/{face['face_id']}").raise_for_status()
                done.value += 1


def counted(log: Path, since: int) -> dict[str, int]:
    """What the server's log says it did after so many lines."""
    lines = log.read_text().splitlines()[since:]
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    return {name: events.count(name) for name in ("snapshot taken", "snapshot set aside")}


STAGES = {
    "model": ("decode", "detect", "embed"),
    "index": ("search",),
    "head and changes": ("head", "catch_up"),
}


def stages(log: Path, since: int, until: int) -> list[dict[str, float]]:
    """How long each search spent where, in ms, by the server's own log between two lines."""
    lines = log.read_text().splitlines()[since:until]
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [
        {
            name: sum(each["stages_ms"].get(part, 0.0) for part in parts)
            for name, parts in STAGES.items()
        }
        for each in entries
        if each["event"] == "request" and each["path"] == SEARCH and each["status"] == 200
    ]


def stage_lines(idle: list[dict[str, float]], busy: list[dict[str, float]]) -> list[str]:
    """Markdown: p50 and p95 of every stage, alone and beside the clients."""
    lines = ["| stage | idle p50, ms | p95 | while it changes p50, ms | p95 | p95 ratio |"]
    lines.append("| --- |" + " ---: |" * 5)
    for name in STAGES:
        low, high = ([each[name] for each in some] for some in (idle, busy))
        (a, b), (c, d) = np.percentile(low, [50, 95]), np.percentile(high, [50, 95])
        lines.append(f"| {name} | {a:.2f} | {b:.2f} | {c:.2f} | {d:.2f} | {d / b:.2f} |")
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--idle", type=float, default=60)
    parser.add_argument("--photos", type=Path, help="small photos, such as LFW's, to draw alike")
    parser.add_argument("--out", type=Path, default=Path("docs/bench/stress.md"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running_server(Path(name), SMALL) as port:
        folder, people = Path(name), People()
        token = token_of(folder, port, TENANT, allow=Permission)
        assemble_buffalo_sc(folder)
        asyncio.run(
            fill(
                folder,
                TENANT,
                asked.faces,
                drawing(open_pack("buffalo_sc", folder), asked.photos),
            )
        )
        caller = Caller(port, token)
        searcher = Searcher(caller, people)
        time.sleep(SETTLED_S if asked.faces > 100_000 else 1)
        searcher.search_for(5)
        warm = len((folder / "serve.log").read_text().splitlines())
        idle = searcher.search_for(asked.idle)
        print(idle.line("idle"), file=sys.stderr)
        log = folder / "serve.log"
        before = len(log.read_text().splitlines())
        spawning = multiprocessing.get_context("spawn")
        stop = spawning.Event()
        enrolled, purged = spawning.Value("q", 0), spawning.Value("q", 0)
        kept = {each for ids in searcher.ids for each in ids}
        clients = [
            spawning.Process(target=enroll, args=(port, token, stop, enrolled), daemon=True),
            spawning.Process(target=purge, args=(port, token, kept, stop, purged), daemon=True),
        ]
        for each in clients:
            each.start()
        while not (enrolled.value and purged.value):
            time.sleep(0.1)
        begun = enrolled.value, purged.value
        try:
            busy = searcher.search_for(asked.seconds)
        finally:
            stop.set()
            for each in clients:
                each.join(30)
        done = counted(log, before)
        after = len(log.read_text().splitlines())
        parts = stage_lines(stages(log, warm, before), stages(log, before, after))
        changes = (enrolled.value - begun[0], purged.value - begun[1])
        lines = report(asked, idle, busy, *changes, done)
        lines = [*lines, "", "Where the time goes, by the server's log:", "", *parts]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n")
    print("\n".join([*lines, *idle.wrong[:10], *busy.wrong[:10]]))
    sys.exit(bool(idle.wrong or busy.wrong))


def report(
    asked: argparse.Namespace,
    idle: Searched,
    busy: Searched,
    enrolled: int,
    purged: int,
    done: dict[str, int],
) -> Sequence[str]:
    """Markdown."""
    return [
        "# Searching while the gallery changes",
        "",
        f"`scripts/bench stress-http --faces {asked.faces} --seconds {asked.seconds:g}`,"
        f" {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}); whole"
        " requests over HTTP, one after another, first alone, then beside a client that inserts"
        " photos and one that purges face records, both without pause, on the same cores.",
        "",
        "| | searches | p50, ms | p95, ms | p99, ms | wrong answers |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        idle.line("idle"),
        busy.line("while it changes"),
        "",
        f"p95 is {busy.p95_ms / idle.p95_ms:.2f} times idle. Meanwhile {enrolled:,} faces were"
        f" inserted and {purged:,} purged, {(enrolled + purged) / asked.seconds:.0f} changes a"
        f" second; segments were sealed at {SMALL['ONETON_INDEX_SEAL_FACES']} faces and merged,"
        f" and {done['snapshot taken']} snapshots taken.",
    ]


if __name__ == "__main__":
    main()
