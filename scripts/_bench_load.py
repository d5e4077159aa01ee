"""Mixed calls at a fixed rate, whatever the answers take; writes docs/bench/load.md and load.svg.

Searches, inserts of who is missing, matches and erasures arrive by a Poisson process over HTTP. A
call's time counts from when it was due, so a server that stalls cannot hide it. Every answer is
judged. Ends with 1 after a wrong answer or an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import psutil
from _bench import run, running_server
from _bench_http import drawing, fill
from _bench_load_client import Http, Run, closed_loop, due_times, open_loop
from _bench_load_people import People, cast_of_folder, cast_of_packages

from oneton.biometrics.packs import assemble_buffalo_sc, open_pack

TENANT = "load"
MIX = "search=70,insert=15,match=10,erase=5"
MEMORY_EVERY_S = 10.0
CALLERS, BURST_S, WARM_S = 8, 15.0, 5.0
MIB = 1 << 20


class Memory(msgspec.Struct, frozen=True):
    """Of the server's process, in MiB.

    Attributes:
        own: what no other process shares (USS).
        anonymous: what is no page of a file.
    """

    at_s: float
    rss: float
    own: float
    anonymous: float


def read_memory(pid: int, at_s: float) -> Memory:
    """Source: the kernel's sums, /proc/PID/smaps_rollup."""
    sums = {
        line.split(":")[0]: int(line.split()[1]) / 1024
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    }
    own = sums["Private_Clean"] + sums["Private_Dirty"]
    return Memory(at_s, sums["Rss"], own, sums["Anonymous"])


def read_mix(text: str) -> dict[str, float]:
    """Such as `search=70,erase=5`.

    Raises:
        ValueError: it is none.
    """
    mix = {
        name: float(share) for name, _, share in (each.partition("=") for each in text.split(","))
    }
    if not set(mix) <= {"search", "insert", "match", "erase"} or sum(mix.values()) <= 0:
        raise ValueError(f"a mix looks like {MIX}")
    return mix


def read_arguments() -> argparse.Namespace:
    """What is asked for; wrong usage ends with 2."""
    parser = argparse.ArgumentParser("scripts/bench load", description=__doc__)
    parser.add_argument("--rate", type=float, help="calls a second; default: --capacity")
    parser.add_argument("--capacity", action="store_true", help="measure it first, in a burst")
    parser.add_argument("--share", type=float, default=0.8, help="of the capacity (%(default)s)")
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--mix", type=read_mix, default=read_mix(MIX), metavar=MIX)
    parser.add_argument("--arrivals", choices=("poisson", "fixed"), default="poisson")
    parser.add_argument("--faces", type=int, default=10_000, help="in the gallery beforehand")
    parser.add_argument("--photos", type=Path, help="one folder a person, such as LFW's")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--key", help="secret of a key of a tenant without faces there")
    parser.add_argument(
        "--pid", type=int, help="of that server, if on this machine, for its memory"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/bench/load.md"))
    asked = parser.parse_args()
    if bool(asked.url) != bool(asked.key):
        parser.error("--url and --key go together")
    asked.seconds = asked.minutes * 60 + asked.seconds or 60.0
    asked.capacity = asked.capacity or asked.rate is None
    return asked


class Target(msgspec.Struct, frozen=True):
    """Who is asked."""

    url: str
    secret: str
    pid: int | None
    faces: int


def own_target(asked: argparse.Namespace, stack: ExitStack) -> Target:
    """A server of our own, whose gallery is full of drawn templates."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oneton-load-")))
    before = {each.pid for each in psutil.Process().children()}
    port = stack.enter_context(running_server(folder))
    (pid,) = {
        each.pid
        for each in psutil.Process().children()
        if each.pid not in before and "serve" in each.cmdline()
    }
    run(folder, "tenant", "create", TENANT)
    made = json.loads(run(folder, "key", "create", "--tenant", TENANT, "--json"))
    if asked.faces:
        assemble_buffalo_sc(folder)
        draw = drawing(open_pack("buffalo_sc", folder), asked.photos)
        asyncio.run(fill(folder, TENANT, asked.faces, draw))
    return Target(f"http://127.0.0.1:{port}", made["client_secret"], pid, asked.faces)


class Measured(msgspec.Struct):
    """All that the report is made of."""

    run: Run
    rate: float
    capacity: float | None
    memory: list[Memory]
    added: int
    erased: int


async def measure(asked: argparse.Namespace, target: Target) -> Measured:
    """Prepare, warm up, find the capacity if asked for, and load."""
    http = Http(target.url)
    cast = cast_of_folder(asked.photos) if asked.photos else cast_of_packages()
    people = People(http, target.secret, cast)
    await people.prepare()
    await closed_loop(people.operations, asked.mix, CALLERS, WARM_S)
    rate, capacity = asked.rate, None
    if asked.capacity:
        capacity = await closed_loop(people.operations, asked.mix, CALLERS, BURST_S)
        rate = rate or asked.share * capacity
        print(f"capacity {capacity:.1f} calls a second, asked {rate:.1f}", file=sys.stderr)
    memory: list[Memory] = []

    def tick(at_s: float) -> None:
        if target.pid is not None:
            memory.append(read_memory(target.pid, at_s))

    added, erased = people.added, people.erased
    due = due_times(rate, asked.seconds, poisson=asked.arrivals == "poisson", seed=1)
    done = await open_loop(people.operations, asked.mix, due, every_s=MEMORY_EVERY_S, tick=tick)
    await http.close()
    return Measured(done, rate, capacity, memory, people.added - added, people.erased - erased)


def latency_lines(done: Run, mix: Mapping[str, float]) -> list[str]:
    """Markdown: percentiles of each operation."""
    lines = [
        "| operation | calls | p50, ms | p95, ms | p99, ms | longest, ms | errors | wrong |",
        "| --- |" + " ---: |" * 7,
    ]
    for name in (*mix, "all"):
        calls = [call for call in done.calls if name in (call.operation, "all")]
        answered = [call.took_ms for call in calls if 200 <= call.status < 300]
        if not answered:
            lines.append(f"| {name} | {len(calls):,} | | | | | {len(calls)} | 0 |")
            continue
        p50, p95, p99 = np.percentile(answered, [50, 95, 99])
        errors, wrong = len(calls) - len(answered), sum(call.wrong for call in calls)
        lines.append(
            f"| {name} | {len(calls):,} | {p50:.1f} | {p95:.1f} | {p99:.1f} |"
            f" {max(answered):.0f} | {errors} | {wrong} |"
        )
    return lines


def error_lines(done: Run) -> list[str]:
    """Markdown: every kind of error, or that there was none."""
    if not done.errors:
        return ["No error."]
    lines = ["| operation | status | code | calls |", "| --- | ---: | --- | ---: |"]
    for (operation, status, code), count in sorted(done.errors.items()):
        lines.append(f"| {operation} | {status or 'none'} | {code} | {count:,} |")
    return lines


def memory_lines(memory: Sequence[Memory]) -> list[str]:
    """Markdown: the server's memory over time."""
    if not memory:
        return []
    first, last = memory[0], memory[-1]
    lines = [
        "",
        f"Memory of the server that no other process shares: {first.own:.0f} MiB at the beginning,"
        f" {last.own:.0f} MiB at the end; not of files: {first.anonymous:.0f} and"
        f" {last.anonymous:.0f} MiB.",
        "",
        "| s | RSS, MiB | own (USS), MiB | anonymous, MiB |",
        "| ---: |" + " ---: |" * 3,
    ]
    return lines + [
        f"| {each.at_s:.0f} | {each.rss:.0f} | {each.own:.0f} | {each.anonymous:.0f} |"
        for each in memory
    ]


def report(asked: argparse.Namespace, target: Target, found: Measured) -> list[str]:
    """Markdown."""
    done = found.run
    answered = sum(200 <= call.status < 300 for call in done.calls)
    late = float(np.percentile([call.late_ms for call in done.calls], 99))
    hidden = {"--key", "--url", "--out", "--pid", "--photos"}
    words = [
        word
        for place, word in enumerate(sys.argv[1:])
        if word not in hidden and sys.argv[place] not in hidden
    ]
    capacity = (
        ""
        if found.capacity is None
        else (
            f" Capacity, {CALLERS} callers one call after another for {BURST_S:.0f} s:"
            f" {found.capacity:.1f} calls a second."
        )
    )
    return [
        "# Mixed load",
        "",
        f"`{shlex.join(['scripts/bench', 'load', *words])}`, {datetime.now(UTC):%Y-%m-%d},"
        f" {os.cpu_count()} cores ({platform.machine()}), client and server on the same ones;"
        f" {target.faces:,} faces"
        f" beforehand; arrivals {asked.arrivals}; times count from when a call was due." + capacity,
        "",
        f"Wanted {found.rate:.1f} calls a second for {asked.seconds:.0f} s; answered"
        f" {answered / done.seconds:.1f} a second, {answered:,} in all; {found.added} faces were"
        f" added and {found.erased} images erased. The client started 99 % of the calls within"
        f" {late:.1f} ms of when they were due, and took {done.cpu_s / done.seconds:.0%} of a"
        " core.",
        "",
        *latency_lines(done, asked.mix),
        "",
        *error_lines(done),
        *memory_lines(found.memory),
    ]


def draw_plot(found: Measured, title: str, path: Path) -> list[str]:
    """Beside the table; without matplotlib there is none."""
    try:
        from _bench_load_plots import plot  # noqa: PLC0415 - of scripts/bench.lock
    except ImportError:
        print("no plot: matplotlib is in scripts/bench.lock", file=sys.stderr)
        return []
    series = {
        name: sorted(
            (call.due_s, call.took_ms)
            for call in found.run.calls
            if call.operation == name and 200 <= call.status < 300
        )
        for name in dict.fromkeys(call.operation for call in found.run.calls)
    }
    plot(series, title, path)
    return ["", f"![Latency over time and its distribution]({path.name})"]


def main() -> None:
    """Measure, print and write."""
    asked = read_arguments()
    with ExitStack() as stack:
        if asked.url:
            target = Target(asked.url, asked.key, asked.pid, 0)
        else:
            target = own_target(asked, stack)
        found = asyncio.run(measure(asked, target))
        lines = report(asked, target, found)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    title = f"{found.rate:.0f} calls a second for {asked.seconds:.0f} s"
    lines += draw_plot(found, title, asked.out.with_suffix(".svg"))
    asked.out.write_text("\n".join(lines) + "\n")
    print("\n".join([*lines, *found.run.wrong]))
    sys.exit(bool(found.run.wrong or found.run.errors))


if __name__ == "__main__":
    main()
