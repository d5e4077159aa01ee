"""An import's stages and its journal, without faces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from oneton.cli.import_journal import Journal, Task
from oneton.domain.errors import BadTextError, NoFaceError, QuotaError, SettingError, StoreDownError
from oneton.domain.model import DEFAULT_GALLERY, Enrolment, FaceId, TenantId
from oneton.sources import Item, ItemError, Note
from oneton.verbs import import_faces
from oneton.verbs.analyse import Picture
from oneton.verbs.enroll_batch import Later, Outcome
from oneton.verbs.import_faces import ImportFaces, Wanted
from oneton.verbs.import_lines import Came, Line

TENANT = TenantId(uuid4())
WANTED = Wanted(max_bytes=100, at_once=3)
TASK = Task("photos", TENANT, 1, if_missing=True, dry_run=False)


class FakeEnroll:
    """Enrolls without faces: a photo's bytes are what comes of it.

    Attributes:
        room: how many are added until the quota ends.
        away: what is not added the first time.
    """

    def __init__(self, room: int = 1000, away: Sequence[bytes] = ()) -> None:
        self.room = room
        self.away = set(away)
        self.added: list[bytes] = []
        self.galleries = self.faces = self

    async def read(self, *arguments: object) -> str:
        if "\0" in str(arguments[1]):
            raise BadTextError
        return "a gallery"

    async def enrolled_with_each(self, *arguments: Any) -> dict[str, UUID]:
        return {key: uuid4() for key in arguments[2] if "known" in key}

    async def embed(
        self, _tenant: object, _gallery: object, picture: Picture, **_: object
    ) -> bytes:
        # Those that come first are ready last.
        await asyncio.sleep(0.01 if picture.data == b"slow" else 0)
        if picture.data == b"away":
            raise StoreDownError("Postgres is away")
        if picture.data == b"nobody":
            raise NoFaceError
        return picture.data

    async def __call__(
        self, _tenant: object, _gallery: object, batch: Sequence[bytes], **_: object
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for photo in batch:
            if photo in self.away:
                self.away.remove(photo)
                outcomes.append(StoreDownError("away"))
                continue
            if photo in (b"bad text", b"later"):
                outcomes.append(BadTextError() if photo == b"bad text" else Later("not now"))
                continue
            self.room -= 1
            self.added.append(photo)
            added = Enrolment(FaceId(uuid4()), added=True, score=None, faces=())
            outcomes.append(added if self.room >= 0 else QuotaError("no more faces"))
        return outcomes


def item(name: str, data: bytes = b"photo") -> Item:
    return Item(name, lambda _limit: data, len(data), "stamp")


async def run_import(items: list[Item], enroll: FakeEnroll | None = None) -> list[Line]:
    lines: list[Line] = []

    async def done(some: list[Line]) -> None:
        lines.extend(some)

    verb = ImportFaces(enroll or FakeEnroll())  # type: ignore[arg-type]
    try:
        await verb(TENANT, DEFAULT_GALLERY, iter(items), WANTED, done)
    except QuotaError:
        lines.append(Line("the quota", Came.REFUSED))
    return lines


@pytest.mark.anyio
async def test_lines_come_in_the_order_of_the_items() -> None:
    names = [f"{number:03}" for number in range(100)]
    items = [item(name, b"slow" if name.endswith("0") else b"photo") for name in names]
    lines = await run_import(items)
    assert [line.file for line in lines] == names


@pytest.mark.anyio
async def test_each_item_has_its_own_error_and_the_others_go_on() -> None:
    def unreadable(_limit: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    bad = Note(problem=ItemError("BadRow", "line 3"))
    items = [
        item("a"),
        item("b", b"nobody"),
        Item("c", unreadable),
        Item("d", partial(pytest.fail, "it was read"), note=bad),
        item("known"),
        item("e"),
    ]
    lines = await run_import(items)
    assert [(line.file, line.outcome, line.reason) for line in lines] == [
        ("a", Came.ADDED, ""),
        ("b", Came.REFUSED, "NoFace"),
        ("c", Came.REFUSED, "Permission"),
        ("d", Came.REFUSED, "BadRow"),
        ("known", Came.EXISTS, "Imported"),
        ("e", Came.ADDED, ""),
    ]


@pytest.mark.anyio
async def test_a_part_that_is_away_ends_an_import_with_its_own_error() -> None:
    with pytest.raises(StoreDownError, match="away"):
        await run_import([*(item(f"{number}") for number in range(70)), item("x", b"away")])


@pytest.mark.anyio
async def test_a_quota_ends_an_import_after_what_still_fits_is_told() -> None:
    lines = await run_import([item(f"{number:02}") for number in range(50)], FakeEnroll(room=40))
    assert [line.file for line in lines] == [*(f"{number:02}" for number in range(40)), "the quota"]


@pytest.mark.anyio
async def test_a_name_or_gallery_that_cannot_be_kept_is_refused_alone(tmp_path: Path) -> None:
    nowhere = Note(gallery="a\0b")
    items = [
        item("a"),
        item("b\udcff"),
        item("c\0"),
        replace(item("d"), note=nowhere),
        item("e", b"bad text"),
        item("f"),
    ]
    for _ in range(2):
        lines = await run_import(items)
        assert [(each.file, each.outcome, each.reason) for each in lines] == [
            ("a", Came.ADDED, ""),
            ("b\\udcff", Came.REFUSED, "BadName"),
            ("c\\x00", Came.REFUSED, "BadName"),
            ("d", Came.REFUSED, "BadText"),
            ("e", Came.REFUSED, "BadText"),
            ("f", Came.ADDED, ""),
        ]
        journal = Journal(tmp_path / "report.csv", TASK)
        journal.append(lines)
        journal.close()
    journal = Journal(tmp_path / "report.csv", TASK)
    assert [journal.has(each) for each in items] == [True, False, False, True, True, True]
    journal.finish()
    journal.close()


@pytest.mark.anyio
async def test_what_is_refused_until_later_is_not_done(tmp_path: Path) -> None:
    items = [item("a"), item("b", b"later"), item("c")]
    journal = Journal(tmp_path / "report.csv", TASK)
    journal.append(await run_import(items))
    assert [journal.has(each) for each in items] == [True, False, True]
    assert journal.counts().of(Came.REFUSED, "Later") == 1
    journal.close()


@pytest.mark.anyio
async def test_only_what_was_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_faces, "RETRY_S", 0)
    enroll = FakeEnroll(away=[b"2", b"3"])
    lines = await run_import(
        [item(str(number), str(number).encode()) for number in range(6)], enroll
    )
    assert [each.outcome for each in lines] == [Came.ADDED] * 6
    assert sorted(enroll.added) == [str(number).encode() for number in range(6)]


def line(name: str, **changes: object) -> Line:
    return msgspec.structs.replace(
        Line(name, Came.ADDED, FaceId(UUID(int=1)), stamp="stamp"), **changes
    )


def test_a_journal_that_was_cut_short_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    journal = Journal(report, TASK)
    journal.append([line("a"), line("b", stamp="old")])
    journal.close()
    partial_path = tmp_path / "report.csv.partial"
    partial_path.write_bytes(partial_path.read_bytes() + b'{"file":"c","out')
    journal = Journal(report, TASK)
    assert [journal.has(item(name)) for name in "abc"] == [True, False, False]
    journal.append([line("b"), line("c", outcome=Came.REFUSED, reason="NoFace")])
    journal.finish()
    journal.close()
    assert [row.split(",")[:2] for row in report.read_text().splitlines()] == [
        ["file", "outcome"],
        ["a", "added"],
        ["b", "added"],
        ["c", "refused"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]


def test_a_journal_of_another_import_or_one_at_work_is_left_alone(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    journal = Journal(report, TASK)
    with pytest.raises(SettingError, match="another import is at work"):
        Journal(report, TASK)
    journal.append([line("a")])
    journal.close()
    other = msgspec.structs.replace(TASK, source="elsewhere")
    with pytest.raises(SettingError, match="of another import"):
        Journal(report, other)
    journal = Journal(report, other, restart=True)
    assert not journal.has(item("a"))
    journal.close()
