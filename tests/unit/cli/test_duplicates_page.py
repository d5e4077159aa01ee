"""The page and the table of a duplicates report."""

from __future__ import annotations

import csv
import stat
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID

import cv2
import msgspec
import numpy as np
import pytest
from PIL import ExifTags, Image

from oneton.cli import duplicates_page as pages
from oneton.cli.duplicates_page import Photo, Summary, make_cards, make_page
from oneton.cli.duplicates_report import shrink, write_page, write_table
from oneton.domain.errors import BadImageError
from oneton.domain.model import DEFAULT_GALLERY, Cosine, Face, FaceId, FaceNo, Score, TenantId
from oneton.verbs.group_duplicates import Duplicate, Group

SUMMARY = Summary(
    "acme", "default", "buffalo_sc", Score(50), 10_001, 3, 1, datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
)


def a_face(face_no: int, *, has_image: bool = True) -> Face:
    return Face(
        face_id=FaceId(UUID(int=face_no)),
        face_no=FaceNo(face_no),
        tenant_id=TenantId(UUID(int=1)),
        gallery_id=DEFAULT_GALLERY,
        has_image=has_image,
        content_type="image/jpeg",
        created_at=datetime(2026, 1, face_no % 28 + 1, tzinfo=UTC),
    )


def a_group(*pairs: tuple[int, int, float]) -> Group:
    faces = {each: a_face(each) for pair in pairs for each in pair[:2]}
    return Group(
        tuple(faces[each] for each in sorted(faces)),
        tuple(
            Duplicate(faces[one], faces[other], Cosine(score / 100), Score(score))
            for one, other, score in pairs
        ),
    )


class Reader(HTMLParser):
    """What a page holds: elements with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(
    summary: Summary, groups: list[Group], photos: dict[FaceId, Photo], most: int = 200
) -> Reader:
    cards = make_cards(groups)
    left = max(0, len(cards) - most)
    return Reader(b"".join(make_page(summary, cards[:most], left, photos)).decode())


def photos_of(group: Group) -> dict[FaceId, Photo]:
    return {face.face_id: Photo(f"photos/{face.face_id}.jpg") for face in group.faces}


def test_a_group_shows_its_photos_ids_dates_and_scores() -> None:
    group = a_group((1, 2, 98.79), (2, 5, 71.24), (1, 5, 59.99))
    page = read(SUMMARY, [group], photos_of(group))
    images = page.all("img")
    assert [each["src"] for each in images] == [f"photos/{UUID(int=n)}.jpg" for n in (1, 2, 5)]
    assert [each["alt"] for each in images] == [f"Group 1, photo {n}" for n in (1, 2, 3)]
    for face in group.faces:
        assert str(face.face_id) in page.text
        assert f"{face.created_at:%Y-%m-%d}" in page.text
    for row in ("1 and 2 98.7", "2 and 3 71.2", "1 and 3 59.9"):
        assert row in page.text
    assert "may be more than one person" not in page.text
    for fact in ("10,001 faces", "acme", "buffalo_sc", "2026-03-04", "score 50", "about 500"):
        assert fact in page.text
    assert "one in 100,000" in page.text


def test_a_group_that_hangs_by_single_pairs_says_so() -> None:
    group = a_group((1, 2, 80), (2, 3, 70))
    assert "Only 2 of 3 possible pairs" in read(SUMMARY, [group], photos_of(group)).text


def test_photos_that_are_not_there_say_why() -> None:
    group = a_group((1, 2, 80))
    said = {
        group.faces[0].face_id: Photo(None, "The image was erased."),
        group.faces[1].face_id: Photo(None, "The image cannot be shown: <b>bad</b>."),
    }
    page = read(SUMMARY, [group], said)
    assert page.all("img") == []
    assert "The image was erased." in page.text
    assert "<b>bad</b>" in page.text


def test_nothing_of_the_page_comes_from_elsewhere_or_unescaped() -> None:
    odd = msgspec.structs.replace(SUMMARY, tenant='<script>"x"</script>', model_pack="a&b<i>")
    group = a_group((1, 2, 80))
    page = read(odd, [group], photos_of(group))
    assert {"script", "link", "iframe", "i"} & {name for name, _ in page.elements} == set()
    assert '<script>"x"</script>' in page.text
    assert "a&b<i>" in page.text
    addresses = [each[key] for _, each in page.elements for key in ("src", "href") if key in each]
    assert addresses
    assert all(each and each.startswith(("photos/", "pairs.csv")) for each in addresses)


def test_a_large_group_comes_in_parts_the_best_pairs_first() -> None:
    """Two people of 40 photos each, held together by one low pair, and a pair between them."""
    first = [(1, each, 99 - each / 100) for each in range(2, 41)]
    second = [(101, each, 80 - each / 100) for each in range(102, 141)]
    chain = a_group(*first, *second, (20, 101, 51))
    groups = [chain, a_group((201, 202, 90))]
    photos = photos_of(chain) | photos_of(groups[1])
    page = read(SUMMARY, groups, photos)
    titles = [title for title in page.text.splitlines() if title.startswith("Group")]
    assert [title.partition("best")[0] for title in titles] == [
        "Group 1, part 1 of 2",
        "Group 2",
        "Group 1, part 2 of 2",
    ]
    assert len(page.all("img")) == 82
    assert page.text.count("A part of 80 photos") == 2

    page = read(SUMMARY, groups, photos, most=1)
    assert len(page.all("img")) == 40
    assert "2 groups more" in page.text


def test_a_card_shows_its_best_scores_only() -> None:
    pairs = [(one, two, 99 - two) for two in range(2, 12) for one in range(1, two)]
    group = a_group(*pairs)
    page = read(SUMMARY, [group], photos_of(group))
    assert len(page.all("meter")) == pages.CARD_PAIRS
    assert f"{len(pairs) - pages.CARD_PAIRS} pairs more" in page.text


def test_a_page_without_pairs_says_so() -> None:
    page = read(msgspec.structs.replace(SUMMARY, pairs=0, groups=0, faces=1), [], {})
    assert "No two faces reach score 50." in page.text
    assert "hardly one" in page.text


def test_the_table_has_every_pair(tmp_path: Path) -> None:
    groups = [a_group((1, 2, 98.76543), (2, 5, 71.2)), a_group((3, 4, 60))]
    write_table(tmp_path, groups)
    assert stat.S_IMODE((tmp_path / "pairs.csv").stat().st_mode) == 0o600
    with (tmp_path / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == ["1", "1", "2"]
    assert rows[0] == {
        "group": "1",
        "a": str(UUID(int=1)),
        "b": str(UUID(int=2)),
        "score": "98.7654",
        "cosine": "0.987654",
        "a_enrolled_at": "2026-01-02T00:00:00+00:00",
        "b_enrolled_at": "2026-01-03T00:00:00+00:00",
        "a_has_image": "yes",
        "b_has_image": "yes",
    }


def test_photos_of_an_earlier_page_go(tmp_path: Path) -> None:
    group = a_group((1, 2, 80))
    (tmp_path / "photos").mkdir()
    kept = tmp_path / "photos" / f"{UUID(int=1)}.jpg"
    for path in (kept, tmp_path / "photos" / f"{UUID(int=9)}.jpg"):
        path.write_bytes(b"x")
    photos = {
        group.faces[0].face_id: Photo(f"photos/{UUID(int=1)}.jpg"),
        group.faces[1].face_id: Photo(None, "The image was erased."),
    }
    write_page(tmp_path, SUMMARY, make_cards([group]), 0, photos)
    assert list((tmp_path / "photos").iterdir()) == [kept]


def test_a_photo_is_made_small_upright_and_loses_its_exif(tmp_path: Path) -> None:
    pixels = np.zeros((300, 600, 3), dtype=np.uint8)
    pixels[:, :300] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "SECRET"
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif)
    data = (tmp_path / "x.jpg").read_bytes()
    small = shrink(data, limit_bytes=10**6, limit_pixels=10**6)
    assert b"SECRET" in data
    assert b"SECRET" not in small
    seen = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR)
    assert seen is not None
    assert seen.shape == (240, 120, 3)
    assert seen[:100].mean() > 250
    assert seen[140:].mean() < 5


def test_a_small_photo_stays_small_and_a_broken_one_is_none() -> None:
    encoded = cv2.imencode(".png", np.zeros((50, 30, 3), dtype=np.uint8))[1].tobytes()
    seen = cv2.imdecode(
        np.frombuffer(shrink(encoded, limit_bytes=10**6, limit_pixels=10**6), np.uint8),
        cv2.IMREAD_COLOR,
    )
    assert seen is not None
    assert seen.shape == (50, 30, 3)
    with pytest.raises(BadImageError):
        shrink(encoded[:60], limit_bytes=10**6, limit_pixels=10**6)
