"""Accuracy over HTTP on a folder of people; writes docs/bench/accuracy.md.

The first photo of each person is enrolled by `oneton import`, the others are probes. A tenant with
threshold 0 answers with its best candidate always, which gives rank 1; one with the default
threshold gives TPIR; two with half of the people each give FPIR, each searched with the probes of
the other half. One with a target FPIR and 5,000 faces is searched with photos of all others.
Rates as in ISO/IEC 19795-1.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import random
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from _bench import SEARCH, run, running_server, token_of
from rich.progress import track

TARGET_FACES = 5000
TARGET_FPIR = 0.01


class Photo(msgspec.Struct, frozen=True):
    """A photo and whose it is."""

    person: str
    path: Path


class Searches(msgspec.Struct):
    """What a tenant answered to many probes."""

    total: int = 0
    matched: int = 0
    right: int = 0
    failed: list[str] = msgspec.field(default_factory=list)


class Tenant:
    """A gallery of some people's first photos."""

    def __init__(
        self,
        folder: Path,
        port: int,
        name: str,
        photos: Sequence[Photo],
        threshold: float = 50,
        target_fpir: float | None = None,
    ) -> None:
        self._folder, self._name = folder, name
        self._token = token_of(folder, port, name, threshold, target_fpir)
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._person_of: dict[str, str] = {}
        self._enroll(photos)

    def _enroll(self, photos: Sequence[Photo]) -> None:
        listing = self._folder / f"{self._name}.csv"
        with listing.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image"])
            writer.writerows([str(photo.path.absolute())] for photo in photos)
        started_s = time.perf_counter()
        report = run(
            self._folder, "import", str(listing), "--tenant", self._name, "--always", "--json",
            expect=(0, 1),
        )  # fmt: skip
        took_s = time.perf_counter() - started_s
        self.report = json.loads(report)
        self.rate_per_s = len(photos) / took_s
        for photo in photos:
            self._person_of[self.report["enrolled_as"][str(photo.path.absolute())]] = photo.person

    def search(self, photos: Sequence[Photo]) -> Searches:
        """Search with each photo."""
        seen = Searches()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        for photo in track(photos, self._name, console=None, transient=True):
            body = json.dumps({"idPhoto": b64encode(photo.path.read_bytes()).decode()})
            self._connection.request("POST", SEARCH, body, headers)
            reply = self._connection.getresponse()
            answer = json.loads(reply.read())
            seen.total += 1
            if reply.status != 200:
                seen.failed.append(f"{photo.path.name}: {answer}")
                continue
            if answer["oneToNVerificationMatch"]:
                seen.matched += 1
                found = self._person_of[answer["oneToNVerificationId"]]
                seen.right += found == photo.person
        return seen


def split(folder: Path, limit: int | None) -> tuple[list[Photo], list[Photo]]:
    """Each person's first photo by name, and all others."""
    first, others = [], []
    for person in sorted(path for path in folder.iterdir() if path.is_dir())[:limit]:
        photos = sorted(person.glob("*.jpg"))
        first += [Photo(person.name, path) for path in photos[:1]]
        others += [Photo(person.name, path) for path in photos[1:]]
    return first, others


def measure_target(folder: Path, port: int, photos: Sequence[Photo]) -> list[str]:
    """Strangers against a large gallery whose threshold follows a target."""
    people = sorted({photo.person for photo in photos})
    random.Random(0).shuffle(people)
    of = {person: [photo for photo in photos if photo.person == person] for person in people}
    inside: list[Photo] = []
    strangers: list[Photo] = []
    for person in people:
        (inside if len(inside) < TARGET_FACES else strangers).extend(of[person])
    tenant = Tenant(folder, port, "target", inside, target_fpir=TARGET_FPIR)
    seen = tenant.search(strangers)
    shown = json.loads(run(folder, "gallery", "show", "--tenant", "target", "--json"))
    return [
        f"| threshold of a gallery of {shown['faces']:,} with target FPIR {TARGET_FPIR:.0%}"
        f" | score {shown['threshold']:.1f}, FMR {shown['fmr']:.1e} |",
        f"| FPIR there, measured with {seen.total:,} photos of strangers |"
        f" {seen.matched / seen.total:.2%} ({seen.matched}) |",
        f"| true matches that it loses, by the calibration | {shown['fnmr']:.2%} |",
    ]


def measure(folder: Path, port: int, first: list[Photo], others: list[Photo]) -> list[str]:
    """Enroll and search; returns the table."""
    ranked = Tenant(folder, port, "rank", first, threshold=0)
    usual = Tenant(folder, port, "usual", first)
    people = sorted({photo.person for photo in first})
    halves = [set(people[::2]), set(people[1::2])]
    rank = ranked.search(others)
    tpir = usual.search(others)
    false = Searches()
    for number, half in enumerate(halves):
        tenant = Tenant(folder, port, f"half{number}", [p for p in first if p.person in half])
        seen = tenant.search([photo for photo in others if photo.person not in half])
        false.total += seen.total
        false.matched += seen.matched
    failed = [*rank.failed, *tpir.failed]
    return [
        "| what | figure |",
        "| --- | --- |",
        f"| enrolled | {ranked.report['enrolled']} of {len(first)}"
        f" ({ranked.rate_per_s:.0f} a second) |",
        f"| refused for lack of a face, or for anything | {len(ranked.report['refused'])} |",
        f"| probes | {rank.total}, of which failed: {len(failed)} |",
        f"| rank 1 | {rank.right / rank.total:.2%} |",
        f"| TPIR, rank 1 and default threshold | {tpir.right / tpir.total:.2%} |",
        "| wrong person at the default threshold"
        f" | {(tpir.matched - tpir.right) / tpir.total:.2%} |",
        f"| FPIR at the default threshold, gallery of {len(first) // 2} |"
        f" {false.matched / false.total:.2%} of {false.total} |",
        *measure_target(folder, port, [*first, *others]),
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="one folder a person, such as LFW")
    parser.add_argument("--limit", type=int, help="people at most")
    parser.add_argument("--out", type=Path, default=Path("docs/bench/accuracy.md"))
    asked = parser.parse_args()
    if not asked.photos.is_dir():
        sys.exit(f"{asked.photos} is no folder")
    first, others = split(asked.photos, asked.limit)
    with tempfile.TemporaryDirectory() as name, running_server(Path(name)) as port:
        rows = measure(Path(name), port, first, others)
    lines = [
        "# Accuracy over HTTP",
        "",
        f"`scripts/bench accuracy`, {datetime.now(UTC):%Y-%m-%d}, `buffalo_sc`: the first photo of"
        f" each of {len(first)} people enrolled by `oneton import`, the other {len(others)}"
        " searched with.",
        "",
        *rows,
    ]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
