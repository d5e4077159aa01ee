"""`oneton search`, `oneton purge` and `oneton sweep`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

import rich_click as click
from rich.table import Table

from oneton.cli.common import (
    EXIT_NEGATIVE,
    as_json,
    chosen_tenant,
    example,
    of_tenant,
    run,
    stdout,
    write_json,
)
from oneton.cli.remote import ask_server, is_remote
from oneton.domain.model import DEFAULT_GALLERY, CandidateList, FaceId, GalleryId
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.verbs.sweep import SweepReport

of_gallery = click.option(
    "--gallery", default=str(DEFAULT_GALLERY), show_default=True, help="The gallery's name."
)


@click.command(epilog=example("oneton search photo.jpg --limit 5"))
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@of_tenant
@of_gallery
@click.option(
    "--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="Candidates shown."
)
@click.option("--rotate", is_flag=True, help="Try the picture at every right angle.")
@click.option("--attributes", is_flag=True, help="Estimate age and gender of each face, in --json.")
@as_json
def search(
    image: Path,
    tenant_name: str | None,
    gallery: str,
    limit: int,
    rotate: bool,
    attributes: bool,
    as_json: bool,
) -> None:
    """Search a gallery for the largest face in a picture. Exit 0 on a match, 1 on none."""
    if is_remote(tenant_name, rotate=rotate, attributes=attributes):
        from oneton.cli.remote_faces import search_there

        found, faces = search_there(image, gallery, limit)
        _say_found(found, faces, as_json=as_json)
    from oneton.app import open_verbs
    from oneton.parts import open_parts
    from oneton.verbs.analyse import Picture

    picture = Picture(image.read_bytes(), rotate=rotate, attributes=attributes)

    async def work(settings: Settings) -> CandidateList:
        async with open_parts(settings) as parts, open_verbs(settings, parts) as verbs:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            return await verbs.platform.identify(
                owner.tenant_id, GalleryId(gallery), picture, limit=limit
            )

    found = run(work)
    faces = [
        {
            "box": face.box,
            "confidence": face.confidence,
            "quality": face.quality,
            "attributes": face.attributes,
        }
        for face in found.faces
    ]
    _say_found(found, faces, as_json=as_json)


def _say_found(found: CandidateList, faces: list[dict[str, object]], *, as_json: bool) -> NoReturn:
    if as_json:
        write_json(
            {
                "match": found.match,
                "threshold": found.threshold,
                "candidates": found.candidates,
                "faces": faces,
            }
        )
    else:
        _print_candidates(found)
    raise SystemExit(0 if found.match else EXIT_NEGATIVE)


def _print_candidates(found: CandidateList) -> None:
    table = Table("rank", "oneToNVerificationId", "score", "match")
    for each in found.candidates:
        says = "yes" if each.score >= found.threshold else "no"
        table.add_row(str(each.rank), str(each.face_id), f"{each.score:.1f}", says)
    stdout.print(table)
    stdout.print(f"{'match' if found.match else 'no match'} at threshold {found.threshold:g}")


@click.command(epilog=example("oneton purge 019a3c1e-... --tenant acme"))
@click.argument("face_id", type=click.UUID)
@of_tenant
@as_json
def purge(face_id: UUID, tenant_name: str | None, as_json: bool) -> None:
    """Remove a face record for good: image, templates and id."""
    if is_remote(tenant_name):
        ask_server(lambda client: client.purge(face_id))
    else:
        _purge_here(face_id, tenant_name)
    if as_json:
        write_json({"oneToNVerificationId": face_id, "purged": True})
    else:
        stdout.print(f"{face_id} purged")


def _purge_here(face_id: UUID, tenant_name: str | None) -> None:
    from oneton.parts import make_purge, open_parts

    async def work(settings: Settings) -> None:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            await make_purge(parts)(owner.tenant_id, FaceId(face_id))

    run(work)


@click.command(epilog=example("oneton sweep --dry-run"))
@click.option(
    "--older-than",
    "older_than_s",
    type=click.FloatRange(min=0),
    help="Age in seconds from which an object without a row is a leftover; by default "
    "ONETON_SWEEP_GRACE_S. Less than the time an enrolment takes is unsafe while a server runs.",
)
@click.option("--dry-run", is_flag=True, help="Only report.")
@as_json
def sweep(older_than_s: float | None, dry_run: bool, as_json: bool) -> None:
    """Delete objects that no row names; report rows whose object is missing (exit 1)."""
    from oneton.parts import make_sweep, open_parts

    async def work(settings: Settings) -> SweepReport:
        async with open_parts(settings) as parts:
            grace_s = settings.sweep_grace_s if older_than_s is None else older_than_s
            return await make_sweep(parts)(timedelta(seconds=grace_s), delete=not dry_run)

    report = run(work)
    if as_json:
        write_json(report)
    else:
        stdout.print(
            f"{report.objects} objects, {report.rows} rows with an image: "
            f"{len(report.leftovers)} leftovers, {report.deleted} of them deleted, "
            f"{report.spared} spared for their age, {report.doomed} of deleted galleries, "
            f"{report.foreign} not ours, "
            f"{len(report.missing)} images missing"
        )
        for key in report.missing:
            stdout.print(f"missing: {key}")
    raise SystemExit(EXIT_NEGATIVE if report.missing else 0)
