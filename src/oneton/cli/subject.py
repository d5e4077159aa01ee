"""`oneton subject`: what is kept of one person, for the rights of access and of erasure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec
import rich_click as click

from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    chosen_tenant,
    example,
    of_tenant,
    print_line,
    run,
    stdout,
    write_json,
)
from oneton.domain.model import FaceId, Score, TenantId
from oneton.domain.screening import ScreenedFace
from oneton.domain.subjects import Roots, Subject, Thing
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.parts import Parts
    from oneton.verbs.export_subject import Exported
    from oneton.verbs.find_subject import LookAlike

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def subject() -> None:
    """Find, export or purge everything that is kept of one person.

    A photo finds face records in every gallery of the tenant; a person has to look at the
    candidates, and leave out with --without who is somebody else. Saved calls and users without
    a face record are found by an external id only. An external id is taken for one person's.
    """


def _asking(command: F) -> F:
    """The options that say who it is."""
    options = (
        of_tenant,
        click.option(
            "--photo",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A photo of the person.",
        ),
        click.option(
            "--id", "face_ids", type=click.UUID, multiple=True, help="A oneToNVerificationId."
        ),
        click.option(
            "--external-id", "external_ids", multiple=True, help="What callers know them by."
        ),
        click.option(
            "--without",
            type=click.UUID,
            multiple=True,
            help="A face record that is somebody else's; may be repeated.",
        ),
        click.option(
            "--score",
            type=click.FloatRange(0, 100),
            help="Candidates of the photo from this score on; by default from each gallery's.",
        ),
        click.option("--rotate", is_flag=True, help="Try the photo at every right angle."),
    )
    return reduce(lambda made, option: option(made), reversed(options), command)


class _Asked(msgspec.Struct, frozen=True):
    """What the options say."""

    tenant_name: str | None
    photo: Path | None
    face_ids: tuple[UUID, ...]
    external_ids: tuple[str, ...]
    without: tuple[UUID, ...]
    score: float | None
    rotate: bool


@dataclass(frozen=True)
class _Desk:
    """One tenant's, open."""

    asked: _Asked
    parts: Parts
    tenant: TenantId
    look_alike: LookAlike | None

    async def candidates(self) -> tuple[ScreenedFace, ...]:
        """Those of the photo that are not left out."""
        from oneton.verbs.analyse import Picture

        if self.look_alike is None or self.asked.photo is None:
            return ()
        picture = Picture(self.asked.photo.read_bytes(), rotate=self.asked.rotate)
        score = None if self.asked.score is None else Score(self.asked.score)
        found = await self.look_alike(self.tenant, picture, score)
        return tuple(each for each in found if each.face.face_id not in self.asked.without)

    async def find(self, candidates: tuple[ScreenedFace, ...]) -> Subject:
        """All that is kept."""
        from oneton.parts import make_find_subject

        scores: dict[FaceId, Score | None] = {FaceId(each): None for each in self.asked.face_ids}
        scores |= {each.face.face_id: each.score for each in candidates}
        roots = Roots(
            tuple(scores.items()),
            self.asked.external_ids,
            frozenset(FaceId(each) for each in self.asked.without),
        )
        return await make_find_subject(self.parts)(self.tenant, roots)


@asynccontextmanager
async def _opened(settings: Settings, asked: _Asked) -> AsyncIterator[_Desk]:
    from oneton.parts import open_parts

    async with open_parts(settings) as parts:
        tenant = (await chosen_tenant(parts.tenants, asked.tenant_name)).tenant_id
        if asked.photo is None:
            yield _Desk(asked, parts, tenant, None)
            return
        from oneton.app import open_verbs
        from oneton.verbs.find_subject import LookAlike

        async with open_verbs(settings, parts) as verbs:
            yield _Desk(asked, parts, tenant, LookAlike(parts.galleries, verbs.platform.screen))


def _read(options: dict[str, object]) -> _Asked:
    asked = msgspec.convert(options, _Asked)
    if not (asked.photo or asked.face_ids or asked.external_ids):
        raise click.UsageError("say who: --photo, --id or --external-id")
    return asked


@subject.command("find", epilog=example("oneton subject find --photo ada.jpg --tenant acme"))
@_asking
@as_json
def find_subject(as_json: bool, **options: object) -> None:
    """Show what is kept. Exit 0 when there is something, 1 when there is nothing."""
    asked = _read(options)

    async def work(settings: Settings) -> tuple[tuple[ScreenedFace, ...], Subject]:
        async with _opened(settings, asked) as desk:
            candidates = await desk.candidates()
            return candidates, await desk.find(candidates)

    candidates, found = run(work)
    if as_json:
        write_json(_document(candidates, found))
    else:
        _print(candidates, found)
    raise SystemExit(0 if found.things else EXIT_NEGATIVE)


@subject.command("export", epilog=example("oneton subject export --external-id emp-1 -o emp-1.zip"))
@_asking
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="A zip: subject.json, index.html and the original images.",
)
@as_json
def export_subject(output: Path, as_json: bool, **options: object) -> None:
    """Write what is kept to a file, without anything of other persons. Exit 1 on nothing."""
    asked = _read(options)

    async def work(
        settings: Settings,
    ) -> tuple[tuple[ScreenedFace, ...], Subject, Exported | None]:
        from oneton.parts import make_export_subject

        async with _opened(settings, asked) as desk:
            candidates = await desk.candidates()
            found = await desk.find(candidates)
            if not found.things:
                return candidates, found, None
            done = await make_export_subject(desk.parts)(desk.tenant, found, output)
            return candidates, found, done

    candidates, found, done = run(work)
    if as_json:
        write_json(_document(candidates, found) | {"exported": done, "output": output})
    else:
        _print(candidates, found)
        if done is not None:
            stdout.print(f"{done.things} rows, {done.images} images in {output}", soft_wrap=True)
            for key in done.missing:
                stdout.print(f"[yellow]missing in the object store[/yellow] {key}")
    raise SystemExit(0 if done is not None else EXIT_NEGATIVE)


@subject.command("purge", epilog=example("oneton subject purge --external-id emp-1 --yes"))
@_asking
@click.option("--yes", is_flag=True, help="Do it; else only show what would go.")
@as_json
def purge_subject(yes: bool, as_json: bool, **options: object) -> None:
    """Remove what is kept, block-list entries too, and look again. Exit 1 when something is left.

    After a crash the same call removes the rest. The audit trail stays: it has ids only.
    """
    asked = _read(options)

    async def work(settings: Settings) -> tuple[tuple[ScreenedFace, ...], Subject, Subject | None]:
        from oneton.parts import make_purge_subject

        async with _opened(settings, asked) as desk:
            candidates = await desk.candidates()
            found = await desk.find(candidates)
            if not yes:
                return candidates, found, None
            await make_purge_subject(desk.parts)(desk.tenant, found)
            # By the same names, by every id that was found, and by the photo.
            again = await desk.candidates()
            left = await desk.find((*candidates, *again))
            return candidates, found, left

    candidates, found, left = run(work)
    if as_json:
        said = None if left is None else [_shown(each) for each in left.things]
        write_json(_document(candidates, found) | {"purged": yes, "left": said})
    else:
        _print(candidates, found)
        if left is None:
            stdout.print("nothing was removed; --yes does it")
        elif left.things:
            stdout.print(f"[red]{len(left.things)} rows are left[/red]; call again")
        else:
            looked = ", and the photo matches nobody" if asked.photo else ""
            stdout.print(f"{len(found.things)} rows purged; looked again: nothing is left{looked}")
    raise SystemExit(EXIT_NEGATIVE if left is not None and left.things else 0)


def _document(candidates: tuple[ScreenedFace, ...], found: Subject) -> dict[str, object]:
    return {
        "candidates": [
            {
                "face_id": each.face.face_id,
                "gallery": each.face.gallery_id,
                "score": each.score,
                "created_at": each.face.created_at,
                "external_id": each.face.note.external_id,
            }
            for each in candidates
        ],
        "things": [_shown(each) for each in found.things],
        "kept_answers": found.answers,
        "audit": found.events,
    }


def _shown(thing: Thing) -> dict[str, object]:
    return {
        "kind": thing.kind,
        "id": thing.thing_id,
        "found_by": thing.found_by,
        "images": len(thing.images),
        "facts": thing.facts,
    }


def _print(candidates: tuple[ScreenedFace, ...], found: Subject) -> None:
    for each in candidates:
        face = each.face
        print_line(
            f"score {each.score:.1f}",
            str(face.face_id),
            face.gallery_id,
            f"enrolled {face.created_at:%Y-%m-%d}",
            face.note.external_id,
        )
    if not found.things:
        stdout.print("nothing is kept")
        return
    for thing in found.things:
        images = f"{len(thing.images)} images" if thing.images else None
        print_line(thing.kind, thing.thing_id, images, f"by {thing.found_by}")
    if found.answers:
        stdout.print(f"{found.answers} answers, kept a day for repeated calls, name them")
    stdout.print(f"{len(found.events)} events of the audit trail are about the face records")
