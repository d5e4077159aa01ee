"""Whole requests against the bare model, in one run; writes docs/bench/http.md.

The bare model is the detector and the recogniser called alone, on pixels decoded beforehand, with
as many callers at once. Rounds of everything alternate, so that a busy moment of the machine meets
all; the figures are medians over rounds. What is not the model is a ratio within this run.
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
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import asyncpg
import msgspec
import numpy as np
import onnxruntime as ort
from _bench import Api, running_server, token_of
from _photos import package_people, variations
from insightface.model_zoo.scrfd import SCRFD
from numpy.typing import NDArray
from uuid_utils.compat import uuid7

from oneton.biometrics.align import align
from oneton.biometrics.analyse import Analyser
from oneton.biometrics.decode import decode
from oneton.biometrics.detect import Detector
from oneton.biometrics.embed import Embedder
from oneton.biometrics.onnx_network import Callers
from oneton.biometrics.packs import PackFiles, assemble_buffalo_sc, open_pack
from oneton.records.embedded import EmbeddedPostgres
from oneton.records.templates import encode_template

SIZES = (1_000, 10_000, 100_000, 1_000_000)
FILL_ROWS = 50_000
REAL_PHOTOS = 3000
SETTLED_S = 45
"""Segments of a gallery that was just read from Postgres are merged meanwhile."""
SPREAD = 110
"""Directions in which the variance of the templates falls by e: half of the 512 hold nine tenths of
it, as measured for the default model pack on LFW."""
CALLERS = (1, 4)
SETTLE_S = 0.5
SEARCH = "/api/v1/face/one-to-n/search"


class Figure(msgspec.Struct, frozen=True):
    """One round: the middle time of a call, and calls a second of all callers together."""

    took_ms: float
    per_s: float


def measured(work: Callable[[int], object], callers: int, count: int) -> Figure:
    """Run `work(n)` for n below `count`, shared out over so many callers."""
    took: list[float] = []
    numbers = iter(range(count))
    lock = threading.Lock()

    def call() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            started_s = time.perf_counter()
            work(number)
            took.append((time.perf_counter() - started_s) * 1000)

    started_s = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        for each in [pool.submit(call) for _ in range(callers)]:
            each.result()
    return Figure(statistics.median(took), count / (time.perf_counter() - started_s))


class BareModel:
    """Detector and recogniser, called as `Analyser` calls them, and nothing else."""

    def __init__(self, pack: PackFiles, photos: Sequence[bytes]) -> None:
        self._callers = Callers()
        self._detector = Detector(pack.detector, self._callers)
        self._embedder = Embedder.load(pack.recogniser, self._callers)
        self._detector.widen()
        self._embedder.widen()
        self._at_once = threading.Semaphore(os.cpu_count() or 1)
        self.pixels = [decode(p, limit_bytes=10**8, limit_pixels=10**8).pixels for p in photos]
        self.chips = [align(p, self._detector.detect(p)[0].landmarks) for p in self.pixels]

    def __call__(self, number: int) -> None:
        number %= len(self.pixels)
        with self._at_once, self._callers:
            self._detector.detect(self.pixels[number])
            self._embedder.embed(self.chips[number])


class StockModel:
    """The pack's files as they come: sessions of ONNX Runtime's and InsightFace's defaults."""

    def __init__(self, pack: PackFiles, bare: BareModel) -> None:
        self._scrfd = SCRFD(str(pack.detector))
        self._scrfd.prepare(0, input_size=(256, 256))
        self._recogniser = ort.InferenceSession(str(pack.recogniser))
        self._input = self._recogniser.get_inputs()[0].name
        self._bare = bare

    def __call__(self, number: int) -> None:
        number %= len(self._bare.pixels)
        self._scrfd.detect(self._bare.pixels[number])
        chip = self._bare.chips[number][:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        self._recogniser.run(None, {self._input: (chip - 127.5) / 127.5})


def search_requests(token: str, photos: Sequence[bytes]) -> list[bytes]:
    """The bytes of one search for each photo."""
    requests = []
    for photo in photos:
        body = json.dumps({"idPhoto": b64encode(photo).decode()}).encode()
        head = (
            f"POST {SEARCH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


Draw = Callable[[np.random.Generator, int], NDArray[np.float32]]
"""So many templates, (N, 512) of unit L2 norm."""


def drawing(pack: PackFiles, photos: Path | None) -> Draw:
    """Templates with the mean and covariance of real ones; without photos, of a falling spectrum.

    How crowded the space is about a probe is what a search costs.
    """
    if photos is None:
        rng = np.random.default_rng(0)
        factor = np.linalg.qr(rng.standard_normal((512, 512)))[0].astype(np.float32)
        factor *= np.exp(-np.arange(512, dtype=np.float32) / SPREAD / 2)
        mean = np.zeros(512, dtype=np.float32)
    else:
        analyser = Analyser(pack)
        some = find_photos(photos, REAL_PHOTOS)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = np.stack(list(pool.map(lambda photo: analyser.analyse(photo).embedding, some)))
        variances, axes = np.linalg.eigh(np.cov(rows.T))
        factor = (axes * np.sqrt(np.maximum(variances, 0))).astype(np.float32)
        mean = rows.mean(axis=0)

    def draw(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        rows = rng.standard_normal((count, 512), dtype=np.float32) @ factor.T + mean
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return draw


async def fill(folder: Path, tenant: str, count: int, draw: Draw) -> None:
    """Put so many random templates in a tenant's gallery, by COPY."""
    server = EmbeddedPostgres(folder / ".oneton" / "postgres")
    connection = await asyncpg.connect(server.owner_dsn)
    gallery = await connection.fetchrow(
        "select gallery.* from gallery join tenant using (tenant_id) where name = $1", tenant
    )
    assert gallery is not None
    rng = np.random.default_rng(count)
    owner, number = gallery["tenant_id"], gallery["gallery_no"]
    for first in range(1, count + 1, FILL_ROWS):
        heads = range(first, min(first + FILL_ROWS, count + 1))
        # Without an image, or the sweeper would look for each of them, and say that it is missing.
        now = datetime.now(UTC)
        faces = [(owner, number, head, uuid7(), "image/jpeg", now) for head in heads]
        columns = ["tenant_id", "gallery_no", "added_at_head", "face_id", "image_content_type"]
        columns.append("image_erased_at")
        await connection.copy_records_to_table("face", records=faces, columns=columns)
        face_nos = await connection.fetch(
            "select face_no from face where gallery_no = $1 and added_at_head >= $2", number, first
        )
        rows = draw(rng, len(heads))
        await connection.copy_records_to_table(
            "template",
            records=[
                (gallery["model_pack_no"], face_no["face_no"], owner, encode_template(row))
                for face_no, row in zip(face_nos, rows, strict=True)
            ],
            columns=["model_pack_no", "face_no", "tenant_id", "embedding"],
        )
    await connection.execute("update gallery set head = $2 where gallery_no = $1", number, count)
    await connection.execute("analyze face, template")
    await connection.close()


def wait_until_loaded(api: Api) -> None:
    """Search until the answer is no longer 503, that the index is being loaded."""
    for _ in range(120):
        try:
            api(0)
        except RuntimeError as error:
            print(f"waiting for the index: {error}", file=sys.stderr)
            time.sleep(1)
        else:
            return
    sys.exit("the index was not loaded in two minutes")


def find_photos(folder: Path | None, count: int) -> list[bytes]:
    """Small photos: of a folder, else variations of those that packages carry."""
    if folder is not None:
        paths = sorted(folder.rglob("*.jpg"))
        return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]
    people = list(package_people().values())
    return [
        photo
        for seed, one in enumerate(islice(cycle(people), count // 4))
        for photo in variations(one, 4, seed)
    ]


Rounds = dict[tuple[str, int], list[Figure]]


def run_rounds(jobs: dict[str, Callable[[int], object]], rounds: int, count: int) -> Rounds:
    """Alternate all jobs at all numbers of callers."""
    figures: Rounds = {}
    for each in jobs.values():
        measured(each, 2, 20)
    for number in range(rounds):
        for callers in CALLERS:
            for name, each in jobs.items():
                # Threads of the job before may still be spinning, above all the stock model's.
                time.sleep(SETTLE_S)
                figure = measured(each, callers, count)
                figures.setdefault((name, callers), []).append(figure)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return figures


def table(figures: Rounds, sizes: Sequence[int]) -> list[str]:
    """Markdown rows: times, rates, and what is not the model as a share of the model."""
    lines = [
        "| callers | what | ms a call, median | calls a second | more than the bare model |",
        "| --- | --- | --- | --- | --- |",
    ]
    for callers in CALLERS:
        bare_s = _share(figures, "bare model", callers)
        for name in ("bare model", "stock model", *(f"search of {size:,}" for size in sizes)):
            rounds = figures[name, callers]
            took = statistics.median(each.took_ms for each in rounds)
            rate = statistics.median(each.per_s for each in rounds)
            more = _share(figures, name, callers) / bare_s - 1
            shown = "" if name == "bare model" else f"{more:+.0%}"
            lines.append(f"| {callers} | {name} | {took:.1f} | {rate:.0f} | {shown} |")
    return lines


def _share(figures: Rounds, name: str, callers: int) -> float:
    """Seconds of the machine that one call takes: with several callers, one over the rate."""
    return 1 / statistics.median(each.per_s for each in figures[name, callers])


def stages(folder: Path, count: int, took_ms: float) -> list[str]:
    """Where the last `count` requests spent their time, by the server's own log."""
    logged = [json.loads(line) for line in (folder / "serve.log").read_text().splitlines()]
    last = [line for line in logged if line["event"] == "request"][-count:]
    names = ("decode", "detect", "embed", "search", "head")
    ms = {name: statistics.median(line["stages_ms"][name] for line in last) for name in names}
    inside = statistics.median(line["took_ms"] for line in last)
    model = ms["detect"] + ms["embed"]
    rows = {
        "detect and embed, which are the model": model,
        "decode": ms["decode"],
        "head of the gallery, by Postgres": ms["head"],
        "search": ms["search"],
        "everything else in the application": inside
        - model
        - sum(ms[n] for n in names[3:])
        - ms["decode"],
        "HTTP on both sides": took_ms - inside,
    }
    return [
        "| part | ms | of the model |",
        "| --- | --- | --- |",
        *(f"| {name} | {value:.2f} | {value / model:.0%} |" for name, value in rows.items()),
        f"| all that is not the model | {took_ms - model:.2f} | {took_ms / model - 1:.0%} |",
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=150, help="calls of each kind in a round")
    parser.add_argument("--photos", type=Path, help="folder of small photos, such as LFW's")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, default=Path("docs/bench/http.md"))
    asked = parser.parse_args()
    photos = find_photos(asked.photos, 100)
    with tempfile.TemporaryDirectory() as name, running_server(Path(name)) as port:
        folder = Path(name)
        jobs: dict[str, Callable[[int], object]] = {}
        assemble_buffalo_sc(folder)
        bare = BareModel(open_pack("buffalo_sc", folder), photos)
        jobs["bare model"] = bare
        draw = drawing(open_pack("buffalo_sc", folder), asked.photos)
        for size in asked.sizes:
            token = token_of(folder, port, f"t{size}")
            asyncio.run(fill(folder, f"t{size}", size, draw))
            jobs[f"search of {size:,}"] = api = Api(port, search_requests(token, photos))
            wait_until_loaded(api)
        time.sleep(SETTLED_S)
        jobs["stock model"] = StockModel(open_pack("buffalo_sc", folder), bare)
        figures = run_rounds(jobs, asked.rounds, asked.count)
        parts: list[str] = []
        for size in (asked.sizes[len(asked.sizes) // 2], asked.sizes[-1]):
            alone = measured(jobs[f"search of {size:,}"], 1, 400)
            parts += [
                f"Where a search of {size:,} spends its time, one caller, by the server's log:",
                "",
                *stages(folder, 400, alone.took_ms),
                "",
            ]
    lines = [
        "# Whole requests against the bare model",
        "",
        f"`scripts/bench http`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores"
        f" ({platform.machine()}), {asked.rounds} rounds of {asked.count} calls each, medians;"
        f" photos of {np.median([len(photo) for photo in photos]) / 1000:.0f} kB.",
        "",
        *table(figures, asked.sizes),
        "",
        "The bare model is our detector and recogniser called alone on decoded pixels; the stock",
        "model is the pack's files in sessions with default options. The last column compares the",
        "time of the machine that a call takes, which is one over the calls a second.",
        "",
        *parts[:-1],
    ]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
