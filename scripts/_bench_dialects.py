"""Every dialect's 1:1 and 1:N calls against the native ones and the bare model, in one run.

Rounds of everything alternate, so that a busy moment of the machine meets all; figures are medians
over rounds. Writes docs/bench/dialects.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import Request, urlopen

import msgspec
from _bench import Api, run, running_server
from _bench_http import SETTLE_S, SETTLED_S, BareModel, Figure, drawing, fill, find_photos, measured

from oneton.biometrics.packs import assemble_buffalo_sc, open_pack
from oneton.domain.model import Permission
from oneton.records.database import Database
from oneton.records.embedded import EmbeddedPostgres
from oneton.records.tenants import Keys as KeyTable
from oneton.records.tenants import Tenants
from oneton.verbs.authenticate import CreateKey

TENANT = "bench"
BOUNDARY = "oneton-bench"
PHOTOS = 100
NOTES = (
    "In a 1:1 call both pictures are worked on side by side: their parts add up to more than it.",
    "Didit and VeriFlow tell age and gender of every face (attributes), which the others do not.",
)
LIMITED_KEYS = 50
"""Didit's calls are limited by key, so that they take turns with so many."""


class Keys(msgspec.Struct, frozen=True):
    """What each dialect is called with."""

    client_id: str
    client_secret: str
    token: str
    limited: tuple[str, ...]

    @property
    def basic(self) -> str:
        return "Basic " + b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()


def post(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def as_json(path: str, authorization: str, fields: Mapping[str, object]) -> bytes:
    """A request with a JSON body."""
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    return post(path, headers, json.dumps(fields).encode())


def as_form(path: str, key: str, files: Mapping[str, bytes], **fields: str) -> bytes:
    """A multipart request with Didit's key."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.jpg"\r\n'
        f"Content-Type: image/jpeg\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    parts += [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    headers = {"x-api-key": key, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return post(path, headers, body)


def pair_calls(keys: Keys, photos: Sequence[bytes]) -> dict[str, list[bytes]]:
    """1:1 requests of every dialect, on neighbouring photos."""
    bearer, secret = f"Bearer {keys.token}", f"Bearer {keys.client_secret}"
    calls: dict[str, list[bytes]] = {}
    for number, (first, second) in enumerate(zip(photos, [*photos[1:], photos[0]], strict=True)):
        limited = keys.limited[number % LIMITED_KEYS]
        a, b = b64encode(first).decode(), b64encode(second).decode()
        files = {"user_image": first, "ref_image": second}
        for name, request in {
            "native verify": as_json("/v1/verify", bearer, {"source": a, "target": b}),
            "native verify, saved": as_json(
                "/v1/verify", bearer, {"source": a, "target": b, "save": True}
            ),
            "uqudo match": as_json(
                "/api/v1/face/match", bearer, {"sourceImage": a, "targetImage": b}
            ),
            "Trustmatic verify": as_json(
                "/api/v1/face/verify",
                keys.basic,
                {"probe": {"imageBase64": a}, "reference": {"imageBase64": b}},
            ),
            "Didit face match, unsaved": as_form(
                "/v3/face-match/", limited, files, save_api_request="false"
            ),
            "Didit face match": as_form("/v3/face-match/", limited, files),
            "VeriFlow face match": as_json(
                "/v2/face-match", secret, {"userImage": a, "refImage": b}
            ),
        }.items():
            calls.setdefault(name, []).append(request)
    return calls


def search_calls(keys: Keys, photos: Sequence[bytes]) -> dict[str, list[bytes]]:
    """1:N requests of every dialect."""
    bearer, secret = f"Bearer {keys.token}", f"Bearer {keys.client_secret}"
    calls: dict[str, list[bytes]] = {}
    for number, photo in enumerate(photos):
        limited = keys.limited[number % LIMITED_KEYS]
        text = b64encode(photo).decode()
        files = {"user_image": photo}
        for name, request in {
            "native identify": as_json("/v1/identify", bearer, {"image": text, "limit": 5}),
            "native identify, saved": as_json(
                "/v1/identify", bearer, {"image": text, "limit": 5, "save": True}
            ),
            "uqudo search": as_json("/api/v1/face/one-to-n/search", bearer, {"idPhoto": text}),
            "Didit face search, unsaved": as_form(
                "/v3/face-search/", limited, files, save_api_request="false"
            ),
            "Didit face search": as_form("/v3/face-search/", limited, files),
            "VeriFlow face search": as_json("/v2/face-search", secret, {"userImage": text}),
        }.items():
            calls.setdefault(name, []).append(request)
    return calls


def make_keys(folder: Path, port: int) -> Keys:
    """A tenant, its key and a token."""
    run(folder, "tenant", "create", TENANT)
    made = json.loads(run(folder, "key", "create", "--tenant", TENANT, "--json"))
    form = f"grant_type=client_credentials&client_id={made['client_id']}"
    form += f"&client_secret={made['client_secret']}"
    with urlopen(Request(f"http://127.0.0.1:{port}/api/oauth/token", form.encode())) as reply:
        token = str(json.load(reply)["access_token"])
    limited = asyncio.run(_limited_keys(folder))
    return Keys(made["client_id"], made["client_secret"], token, limited)


async def _limited_keys(folder: Path) -> tuple[str, ...]:
    server = EmbeddedPostgres(folder / ".oneton" / "postgres")
    database = await Database.connect(server.app_dsn, size=2)
    try:
        tenant = (await Tenants(database).named(TENANT)).tenant_id
        create = CreateKey(KeyTable(database))
        return tuple(
            [
                (await create(tenant, label="", permissions=list(Permission)))[1]
                for _ in range(LIMITED_KEYS)
            ]
        )
    finally:
        await database.close()


def bare_pair(bare: BareModel) -> Callable[[int], None]:
    """The bare model on two pictures at once, as a 1:1 call has them."""
    pool = ThreadPoolExecutor(8)

    def both(number: int) -> None:
        for each in [pool.submit(bare, number), pool.submit(bare, number + 1)]:
            each.result()

    return both


Rounds = dict[str, list[Figure]]


def run_rounds(jobs: Mapping[str, Callable[[int], object]], rounds: int, count: int) -> Rounds:
    """Alternate all jobs, one caller."""
    figures: Rounds = {}
    for each in jobs.values():
        measured(each, 1, 20)
    for number in range(rounds):
        for name, each in jobs.items():
            time.sleep(SETTLE_S)
            figures.setdefault(name, []).append(measured(each, 1, count))
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return figures


def table(figures: Rounds, model: str, native: str, saved: str) -> list[str]:
    """Markdown rows; what keeps its call is compared with the native call that does."""
    took = {name: statistics.median(f.took_ms for f in each) for name, each in figures.items()}
    lines = [
        "| what | ms a call, median | more than the bare model | than the native call |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, each in took.items():
        more = "" if name == model else f"{each / took[model] - 1:+.0%}"
        keeps = name == saved or (name.startswith(("Didit", "VeriFlow")) and "uns" not in name)
        beside = took[saved if keeps else native]
        ratio = "" if name in (model, native, saved) else f"{each / beside - 1:+.0%}"
        lines.append(f"| {name} | {each:.1f} | {more} | {ratio} |")
    return lines


def parts(folder: Path, count: int) -> list[str]:
    """Where the last `count` requests spent their time, by the server's own log."""
    logged = [json.loads(line) for line in (folder / "serve.log").read_text().splitlines()]
    last = [line for line in logged if line["event"] == "request"][-count:]
    names = {name for line in last for name in line["stages_ms"]}
    ms = {
        name: statistics.median(line["stages_ms"].get(name, 0.0) for line in last)
        for name in sorted(names)
    }
    model = sum(ms.get(name, 0.0) for name in ("detect", "embed", "attributes"))
    rest = statistics.median(line["took_ms"] for line in last) - sum(ms.values())
    rows = {**ms, "all else in the application": rest}
    return [
        "| part | ms | of the model |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {value:.2f} | {value / model:.0%} |" for name, value in rows.items()),
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=60, help="calls of each kind in a round")
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--photos", type=Path, help="folder of small photos, such as LFW's")
    parser.add_argument("--out", type=Path, default=Path("docs/bench/dialects.md"))
    asked = parser.parse_args()
    photos = find_photos(asked.photos, PHOTOS)
    lines = [
        "# Every dialect against the native calls and the bare model",
        "",
        f"`scripts/bench dialects`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores"
        f" ({platform.machine()}), {asked.rounds} rounds of {asked.count} calls each, one caller,"
        f" medians; a gallery of {asked.faces:,}.",
    ]
    with tempfile.TemporaryDirectory() as name, running_server(Path(name)) as port:
        folder = Path(name)
        keys = make_keys(folder, port)
        assemble_buffalo_sc(folder)
        pack = open_pack("buffalo_sc", folder)
        asyncio.run(fill(folder, TENANT, asked.faces, drawing(pack, asked.photos)))
        time.sleep(SETTLED_S)
        bare = BareModel(pack, photos)
        for title, model, calls in (
            ("1:1", ("bare model, two pictures", bare_pair(bare)), pair_calls(keys, photos)),
            ("1:N", ("bare model", bare), search_calls(keys, photos)),
        ):
            jobs = dict([model]) | {name: Api(port, each) for name, each in calls.items()}
            figures = run_rounds(jobs, asked.rounds, asked.count)
            names = list(calls)
            lines += ["", f"## {title}", "", *table(figures, model[0], names[0], names[1])]
            for each in names:
                measured(jobs[each], 1, PHOTOS)
                lines += ["", f"{each}, by the server's log:", "", *parts(folder, PHOTOS)]
    lines += ["", *NOTES]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
