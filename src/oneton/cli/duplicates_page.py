"""The page of `oneton duplicates`: every group's photos side by side, and what they score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

import msgspec

from oneton.domain.model import Face, FaceId, Score
from oneton.verbs.group_duplicates import Group, expected_false_pairs, split_group

CARD_FACES = 60
CARD_PAIRS = 30
"""Shown at once; strangers whom chance holds together may be many."""
_MEASURED_TO = 60


class Summary(msgspec.Struct, frozen=True):
    """What a report is of.

    Attributes:
        faces: that every other one was compared with.
        score: the least that counts.
    """

    tenant: str
    gallery: str
    model_pack: str
    score: Score
    faces: int
    pairs: int
    groups: int
    made_at: datetime


class Photo(msgspec.Struct, frozen=True):
    """A face's picture on the page.

    Attributes:
        address: relative to the page; None when there is no picture to show.
        said: why there is none.
    """

    address: str | None
    said: str = ""


class Card(msgspec.Struct, frozen=True):
    """What the page shows together: a group, or a part of a large one.

    Attributes:
        number: of the group, as in the table.
        part: from 1.
        parts: of the group.
        faces: of the whole group.
    """

    number: int
    part: int
    parts: int
    faces: int
    shown: Group

    @property
    def title(self) -> str:
        """For people."""
        part = "" if self.parts == 1 else f", part {self.part:,} of {self.parts:,}"
        return f"Group {self.number}{part}"


def make_cards(groups: Iterable[Group]) -> list[Card]:
    """All groups in parts that a person can look at, that of the best pair first."""
    cards = [
        Card(number, part, len(parts), len(group.faces), shown)
        for number, group in enumerate(groups, start=1)
        for parts in [split_group(group, CARD_FACES)]
        for part, shown in enumerate(parts, start=1)
    ]
    return sorted(cards, key=lambda card: -card.shown.best)


def make_page(
    summary: Summary, cards: Sequence[Card], left: int, photos: Mapping[FaceId, Photo]
) -> Iterator[bytes]:
    """One HTML file, in parts, which needs the photos beside it and nothing else.

    Args:
        cards: those that the page shows.
        left: how many more there are.
        photos: of every face that the cards show.
    """
    facts = [_outcome(summary), *_facts(summary)]
    yield _HEAD.format(
        style=_STYLE,
        gallery=escape(summary.gallery),
        facts="\n".join(f"<p>{fact}</p>" for fact in facts),
    ).encode()
    for place, card in enumerate(cards, start=1):
        yield _section(place, card, photos).encode()
    if left:
        yield (
            f"<p>{_count(left, 'group')} more, or parts of groups, of lower scores, only in "
            "<a href=pairs.csv>pairs.csv</a>; <code>--groups</code> says how many come on this "
            "page.</p>\n"
        ).encode()
    yield b"</main>\n</html>\n"


def _outcome(summary: Summary) -> str:
    if not summary.pairs:
        return f"<strong>No two faces reach score {summary.score:g}.</strong>"
    return (
        f"<strong>{_count(summary.groups, 'group')} of faces that seem to be one person's, "
        f"held together by {_count(summary.pairs, 'pair')} of score {summary.score:g} or more."
        "</strong> The groups of the best scores come first; every pair is in "
        "<a href=pairs.csv>pairs.csv</a>."
    )


def _facts(summary: Summary) -> Iterator[str]:
    when = _moment(summary.made_at)
    yield (
        f"{_count(summary.faces, 'face')} of gallery {escape(summary.gallery)} of tenant "
        f"{escape(summary.tenant)} were compared, each with every other, on {when}, by model pack "
        f"{escape(summary.model_pack)}."
    )
    decades = min(summary.score, _MEASURED_TO) / 10
    most = "at most " if summary.score > _MEASURED_TO else ""
    expected = expected_false_pairs(summary.faces, summary.score)
    about = f"{most or 'about '}{expected:,.0f}" if expected >= 1 else "hardly one"
    yield (
        "What a score means: of pairs of photos of different people, one in 10<sup>n</sup> scores "
        f"10 n or more, up to 60. Score {summary.score:g} is {most}one in {10**decades:,.0f}. "
        f"Among so many faces {about} of the pairs would be of different people: look before you "
        "act."
    )
    yield (
        "This folder holds copies of photos. Erasing or purging a record does not reach them: run "
        "the command again, or delete the folder."
    )


def _section(place: int, card: Card, photos: Mapping[FaceId, Photo]) -> str:
    group = card.shown
    figures = "".join(
        _figure(card, number, face, photos[face.face_id])
        for number, face in enumerate(group.faces, start=1)
    )
    notes = []
    if card.parts > 1:
        notes.append(
            f"A part of {card.faces:,} photos that hang together; pairs of two parts are only in "
            "pairs.csv."
        )
    if len(group.pairs) < group.possible:
        notes.append(
            f"Only {len(group.pairs):,} of {group.possible:,} possible pairs score enough: this "
            "may be more than one person."
        )
    said = "".join(f"<p class=note>{note}</p>" for note in notes)
    return (
        f"<section aria-labelledby=c{place}><h2 id=c{place}>{card.title}"
        f"<span>best score {_score(group.best)}, {_count(len(group.faces), 'photo')}</span></h2>"
        f"<ul class=photos>{figures}</ul>{said}{_scores(group)}</section>\n"
    )


def _figure(card: Card, number: int, face: Face, photo: Photo) -> str:
    if photo.address is None:
        picture = f"<div class=none>{escape(photo.said)}</div>"
    else:
        picture = (
            f'<img loading=lazy src="{escape(photo.address)}" alt="{card.title}, photo {number}">'
        )
    return (
        f"<li><figure>{picture}<figcaption><b>{number}</b> {_moment(face.created_at)}"
        f"<code>{escape(str(face.face_id))}</code></figcaption></figure></li>"
    )


def _scores(group: Group) -> str:
    numbers = {face.face_id: number for number, face in enumerate(group.faces, start=1)}
    rows = [
        f"<li>{numbers[pair.earlier.face_id]} and {numbers[pair.later.face_id]} "
        f"<b>{_score(pair.score)}</b>"
        f"<meter min=0 max=100 value={_score(pair.score)} aria-hidden=true></meter></li>"
        for pair in group.pairs[:CARD_PAIRS]
    ]
    left = len(group.pairs) - len(rows)
    more = f"<p class=note>{_count(left, 'pair')} more, in pairs.csv.</p>" if left else ""
    return f"<h3>Scores of photos</h3><ul class=scores>{''.join(rows)}</ul>{more}"


def _score(score: Score) -> str:
    """One decimal, rounded down: nothing shows as a limit that it does not reach."""
    return f"{int(score * 10) / 10:.1f}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _moment(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"<time datetime={moment:%Y-%m-%dT%H:%M:%SZ}>{moment:%Y-%m-%d %H:%M} UTC</time>"


_STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --text: #1c2430;
  --soft: #596273; --line: #dfe3e8 }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b212a; --text: #e7ebf0;
  --soft: #a4adba; --line: #2d3642 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif }
main { margin: 0 auto; max-width: 1280px; padding: 24px 16px 64px }
h1 { margin: 0 0 12px; font-size: 24px; overflow-wrap: anywhere }
p { margin: 6px 0; max-width: 80ch }
a { color: inherit }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 16px 0; padding: 14px; content-visibility: auto; contain-intrinsic-size: auto 400px }
h2 { margin: 0 0 10px; font-size: 17px } h2 span { font-weight: 400; color: var(--soft);
  margin-left: 10px }
ul { display: grid; margin: 0; padding: 0; list-style: none }
.photos { gap: 12px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) }
.scores { gap: 0 28px; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)) }
.scores li { display: grid; grid-template-columns: 6em 3em auto; align-items: center;
  justify-content: start; font-size: 14px; font-variant-numeric: tabular-nums }
.scores b { font-weight: 500 } meter { width: 100px; height: 12px }
h3 { margin: 12px 0 2px; font-size: 13px; font-weight: 400; color: var(--soft) }
figure { margin: 0 } figcaption { font-size: 12px; margin-top: 4px }
time, .note { color: var(--soft) } figcaption code { display: block; font-size: 11px;
  overflow-wrap: anywhere }
img, .none { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 6px;
  background: var(--page) }
.none { display: grid; place-items: center; padding: 8px; text-align: center; color: var(--soft);
  border: 1px dashed var(--line) }
"""

_HEAD = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=robots content=noindex>
<meta name=referrer content=no-referrer>
<meta http-equiv=Content-Security-Policy
  content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<title>Duplicates in gallery {gallery}</title>
<style>{style}</style>
<main>
<h1>Duplicates in gallery {gallery}</h1>
{facts}
"""
