"""Who plays in `scripts/demo`, and what it shows: verdicts, a table, a page with pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from _photos import package_people, variations
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oneton.biometrics.analyse import LIMIT_BYTES, LIMIT_PIXELS, Analyser
from oneton.biometrics.calibration import Calibration
from oneton.biometrics.decode import decode
from oneton.domain.errors import OnetonError, ProbeError
from oneton.domain.model import Analysis, Cosine, Score

Kind = Literal["exact", "enrolment", "mated", "stranger"]

_ENROLLED_OF_PACKAGES = 7
_OTHERS_AT_MOST = 4
_VARIATIONS = 2
_ACCEPTED_RATE = 0.05
_FAILURES: dict[Kind, str] = {
    "exact": "wrong",
    "enrolment": "refused",
    "mated": "missed",
    "stranger": "false match",
}
_SUFFIXES = (".jpg", ".jpeg", ".png")
_THUMB_SIDE = 220
_TABLE_WIDTH = 110


@dataclass(frozen=True)
class Photo:
    """A picture, and who is on it."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Person:
    """Somebody to enroll, and other photos to search with."""

    photo: Photo
    others: Sequence[Photo]


@dataclass(frozen=True)
class Cast:
    """Who plays; `accepted_rate` of the rated answers may be wrong."""

    people: Sequence[Person]
    strangers: Sequence[Photo]
    accepted_rate: float


def cast_of_packages() -> Cast:
    """The faces that packages carry; other photos are made of the one."""
    photos = [Photo(name, data) for name, data in package_people().items()]
    people = [Person(photo, varied(photo)) for photo in photos[:_ENROLLED_OF_PACKAGES]]
    return Cast(people, photos[_ENROLLED_OF_PACKAGES:], 0.0)


def cast_of_folder(folder: Path, limit: int) -> Cast:
    """One folder a person; those of one photo, or the last tenth, are the strangers.

    Raises:
        ValueError: there are too few of them, or none can be varied.
    """
    every = [_pictures(each) for each in sorted(folder.iterdir()) if each.is_dir()]
    several = [paths for paths in every if len(paths) > 1] or [paths for paths in every if paths]
    single = [paths for paths in every if len(paths) == 1 and len(several[0]) > 1]
    if not single:
        cut = len(several) - max(1, len(several) // 10)
        several, single = several[:cut], several[cut:]
    strangers = [_photo(paths[0]) for paths in single[: max(1, limit // 4)]]
    people = []
    for paths in several[: limit - len(strangers)]:
        first, *others = [_photo(path) for path in paths[: 1 + _OTHERS_AT_MOST]]
        people.append(Person(first, others or varied(first)))
    if len(people) < 2 or not strangers:
        raise ValueError(f"{folder} needs three folders with JPEG or PNG photos, one a person")
    return Cast(people, strangers, _ACCEPTED_RATE)


def _pictures(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES]


def _photo(path: Path) -> Photo:
    return Photo(path.parent.name, path.read_bytes())


def varied(photo: Photo) -> list[Photo]:
    """Make other photos of the same face."""
    made = variations(photo.data, _VARIATIONS, seed=len(photo.data))
    return [Photo(photo.name, data) for data in made]


@dataclass(frozen=True)
class Step:
    """One question to the server and its answer.

    Attributes:
        part: of the story.
        kind: a `mated` search has its person enrolled, a `stranger` search has not; at these, and
            at the photo of an `enrolment`, a model may fail. An `exact` answer has no excuse.
        beside: the enrolled picture that it was matched with, or the second one of 1:1.
        enrolled: how many people were when it was asked, for the nearest of them.
    """

    part: str
    asked: str
    expected: str
    answered: str
    took_ms: float
    right: bool
    kind: Kind = "exact"
    probe: Photo | None = None
    beside: Photo | None = None
    enrolled: int = 0


@dataclass(frozen=True)
class Outcome:
    """What all answers amount to.

    Attributes:
        counts: of each kind, how many are not right, of how many.
    """

    counts: Mapping[Kind, tuple[int, int]]
    good: bool

    def __str__(self) -> str:
        wrong, answers = (sum(pair) for pair in zip(*self.counts.values(), strict=True))
        (missed, mated), (found, strangers) = self.counts["mated"], self.counts["stranger"]
        refused, photos = self.counts["enrolment"]
        return (
            f"{answers} answers, {answers - wrong} right; "
            f"{refused} of {photos} photos refused when enrolled; "
            f"{missed} of {mated} searches for enrolled people missed them "
            f"(FNIR {_share(missed, mated):.1%}); "
            f"{found} of {strangers} for strangers found somebody "
            f"(FPIR {_share(found, strangers):.1%})"
        )


def judge(steps: Sequence[Step], accepted_rate: float) -> Outcome:
    """Sum up; every exact answer must be right, other kinds may fail at `accepted_rate` each."""
    counts = {}
    for kind in get_args(Kind):
        right = [step.right for step in steps if step.kind == kind]
        counts[kind] = (len(right) - sum(right), len(right))
    good = all(
        _share(*pair) <= (0 if kind == "exact" else accepted_rate) for kind, pair in counts.items()
    )
    return Outcome(counts, good and bool(steps))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def print_table(steps: Sequence[Step]) -> None:
    """Print a row per step."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_TABLE_WIDTH)
    table = Table("step", "asked", "expected", "answered")
    table.add_column("ms", justify="right")
    table.add_column("verdict")
    for part, group in groupby(steps, key=lambda step: step.part):
        for number, step in enumerate(group):
            verdict = Text(_verdict(step), style="green" if step.right else "bold red")
            texts = ("" if number else part, step.asked, step.expected, step.answered)
            table.add_row(*map(Text, texts), f"{step.took_ms:.0f}", verdict)
        table.add_section()
    console.print(table)


def _verdict(step: Step) -> str:
    if step.right:
        return "right"
    return _FAILURES[step.kind]


class Sight:
    """The project's own engines, for the boxes and scores that the dialect does not tell."""

    def __init__(self, analyser: Analyser, calibration: Calibration) -> None:
        self.analyse = cache(self._analyse)
        self._analyser, self._calibration = analyser, calibration

    def _analyse(self, data: bytes) -> Analysis | None:
        """The faces of a picture; None when it has none or is none."""
        try:
            return self._analyser.analyse(data)
        except ProbeError:
            return None

    def score(self, one: bytes, other: bytes) -> Score | None:
        """Of the largest faces of two pictures."""
        first, second = self.analyse(one), self.analyse(other)
        if first is None or second is None:
            return None
        cosine = float(np.clip(first.embedding @ second.embedding, -1, 1))
        return self._calibration.score(Cosine(cosine))

    def nearest(self, probe: bytes, enrolled: Sequence[Photo]) -> Photo | None:
        """The enrolled picture of the best score."""
        scores = [(self.score(probe, photo.data), photo) for photo in enrolled]
        known = [(score, photo) for score, photo in scores if score is not None]
        return max(known, key=lambda pair: pair[0])[1] if known else None


def make_page(
    steps: Sequence[Step], enrolled: Sequence[Photo], sight: Sight, outcome: Outcome, server: str
) -> str:
    """One HTML file that needs no other."""
    parts = []
    for part, group in groupby(steps, key=lambda step: step.part):
        cards = "".join(_card(step, enrolled[: step.enrolled], sight) for step in group)
        parts.append(f"<h2>{escape(part)}</h2>\n<div class=cards>{cards}</div>")
    return _PAGE.format(
        style=_STYLE,
        state="right" if outcome.good else "wrong",
        word="The answers are right" if outcome.good else "There are wrong answers",
        summary=escape(str(outcome)),
        server=escape(server),
        parts="\n".join(parts),
    )


def _card(step: Step, enrolled: Sequence[Photo], sight: Sight) -> str:
    pictures, score = "", ""
    if step.probe is not None:
        beside = step.beside or sight.nearest(step.probe.data, enrolled)
        pictures = _figure(step.probe, "asked", sight)
        if beside is not None:
            role = "with" if step.beside is not None else "nearest enrolled"
            pictures += _figure(beside, role, sight)
            value = sight.score(step.probe.data, beside.data)
            score = "" if value is None else _score(value)
    state = "right" if step.right else "wrong"
    return (
        f"<article class={state}><header><b>{escape(step.asked)}</b>"
        f"<span class=badge>{escape(_verdict(step))}</span></header>"
        f"<div class=photos>{pictures}</div>{score}"
        f"<dl><dt>expected<dd>{escape(step.expected)}<dt>answered<dd>{escape(step.answered)}"
        f"<dt>took<dd>{step.took_ms:.0f} ms</dl></article>\n"
    )


def _score(value: Score) -> str:
    return (
        f"<div class=score><meter min=0 max=100 value={value:.1f}></meter>"
        f"<span>score {value:.1f}</span></div>"
    )


def _figure(photo: Photo, role: str, sight: Sight) -> str:
    address = _thumbnail(photo.data)
    caption = f"<figcaption>{escape(role)}: {escape(photo.name)}</figcaption>"
    if address is None:
        return f"<figure><div class=none>no picture</div>{caption}</figure>"
    found, box = sight.analyse(photo.data), ""
    if found is not None:
        left, top, right, bottom = found.faces[0].box
        x, y = 100 / found.width, 100 / found.height
        box = (
            f'<i style="left:{left * x:.1f}%;top:{top * y:.1f}%;'
            f'width:{(right - left) * x:.1f}%;height:{(bottom - top) * y:.1f}%"></i>'
        )
    name = escape(photo.name, quote=True)
    image = f'<div class=photo><img alt="{name}" src="{address}">{box}</div>'
    return f"<figure>{image}{caption}</figure>"


@cache
def _thumbnail(data: bytes) -> str | None:
    """A data URL of the upright picture; None when it cannot be decoded."""
    try:
        pixels = decode(data, limit_bytes=LIMIT_BYTES, limit_pixels=LIMIT_PIXELS).pixels
    except OnetonError:
        return None
    share = min(1.0, _THUMB_SIDE / max(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


_STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --text: #1c2430;
  --soft: #667085; --line: #dfe3e8; --right: #16794a; --wrong: #c0271d; --box: #38e08b }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b212a; --text: #e7ebf0;
  --soft: #98a2b3; --line: #2d3642; --right: #4ade94; --wrong: #ff7b70 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1280px; padding: 32px 24px 64px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 26px } h2 { margin: 36px 0 12px; font-size: 18px }
p { margin: 6px 0; max-width: 80ch } .soft, dt, figcaption { color: var(--soft) }
.cards { display: grid; gap: 14px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)) }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px; display: flex; flex-direction: column; gap: 10px }
article.wrong { border-color: var(--wrong) }
article header { display: flex; justify-content: space-between; gap: 8px }
.badge { font-weight: 600; white-space: nowrap } .right .badge, p.right { color: var(--right) }
.wrong .badge, p.wrong { color: var(--wrong) } p.right, p.wrong { font-weight: 600 }
.photos { display: flex; gap: 10px } .photos:empty { display: none }
figure { margin: 0; flex: 0 1 calc(50% - 5px); min-width: 0 }
figcaption { font-size: 13px; overflow-wrap: anywhere }
.photo { position: relative } .photo img { display: block; width: 100%; border-radius: 6px }
.photo i { position: absolute; border: 2px solid var(--box); border-radius: 3px }
.none { aspect-ratio: 1; display: grid; place-items: center; color: var(--soft);
  border: 1px dashed var(--line); border-radius: 6px }
.score { display: flex; align-items: center; gap: 8px } meter { flex: 1; height: 14px }
dl { margin: auto 0 0; display: grid; grid-template-columns: auto 1fr; gap: 0 12px }
dd { margin: 0; overflow-wrap: anywhere }
"""

_PAGE = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta http-equiv=Content-Security-Policy
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>oneton: a demo run</title>
<style>{style}</style>
<h1>Have we seen this person before?</h1>
<p class={state}>{word}</p>
<p>{summary}</p>
<p class=soft>Asked of {server}. The API tells an id and whether it matches; boxes and scores are
computed here, by the demo's own model pack. By default a search matches from score 50 (one in
100,000 pairs of different people scores as high), a 1:1 match from 40 (one in 10,000).</p>
{parts}
</html>
"""
