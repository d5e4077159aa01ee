"""`oneton export`: a gallery as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

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
from oneton.domain.model import GalleryId
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.verbs.export_gallery import Exported


@click.command(epilog=example("oneton export default --out default.zip"))
@click.argument("gallery")
@of_tenant
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder that is not there, or a name that ends in .zip.",
)
@click.option("--templates", is_flag=True, help="With the templates, as fp16 for NumPy.")
@as_json
def export(
    gallery: str, tenant_name: str | None, out: Path, templates: bool, as_json: bool
) -> None:
    """Write a gallery's images, and what goes with them, as they are at one moment.

    What is written can be imported again. Faces whose image was erased are listed without a file.
    Exit 1 when images are missing in the object store.
    """
    from oneton.cli.progress import progress_bar
    from oneton.parts import make_export_gallery, open_parts

    async def work(settings: Settings) -> Exported:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            with progress_bar() as progress:
                bar = progress.add_task("exporting", total=None, said="")
                return await make_export_gallery(parts)(
                    owner.tenant_id,
                    GalleryId(gallery),
                    out,
                    templates=templates,
                    begun=lambda total: progress.update(bar, total=total),
                    done=lambda count: progress.advance(bar, count),
                )

    exported = run(work)
    if as_json:
        write_json(exported)
    else:
        stdout.print(
            f"{exported.faces} faces at head {exported.head}: {exported.images} images, "
            f"{exported.erased} erased, {exported.missing} missing; written to {out}",
            soft_wrap=True,
        )
    raise SystemExit(EXIT_NEGATIVE if exported.missing else 0)
