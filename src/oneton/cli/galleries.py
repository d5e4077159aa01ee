"""`oneton gallery`: create, list, show and set galleries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table

from oneton.cli.common import as_json, chosen_tenant, example, of_tenant, run, stdout, write_json
from oneton.cli.remote import is_remote
from oneton.domain.model import (
    DEFAULT_GALLERY,
    DEFAULT_THRESHOLD,
    Gallery,
    GalleryId,
    GalleryKind,
    NewGallery,
    Score,
)
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.cli.remote_galleries import GalleryThere, ViewThere
    from oneton.verbs.show_gallery import GalleryView

    AnyGallery = Gallery | GalleryThere

_THRESHOLD = click.option(
    "--threshold",
    type=click.FloatRange(0, 100),
    help="Score from which a search says match.",
)
_TARGET = click.option(
    "--target-fpir",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of searches for strangers that may match; the threshold follows the size.",
)


@click.group()
def gallery() -> None:
    """Create, list, show and set a tenant's galleries."""


@gallery.command("create", epilog=example("oneton gallery create watch --target-fpir 0.01"))
@click.argument("name")
@of_tenant
@click.option(
    "--kind",
    type=click.Choice([str(each) for each in GalleryKind]),
    default=str(GalleryKind.ENROLLMENT),
    show_default=True,
)
@click.option("--pack", help="The model pack; by default that of ONETON_MODEL_PACK.")
@_THRESHOLD
@_TARGET
@as_json
def create_gallery(
    name: str,
    tenant_name: str | None,
    kind: str,
    pack: str | None,
    threshold: float | None,
    target_fpir: float | None,
    as_json: bool,
) -> None:
    """Create an empty gallery."""
    _one_of(threshold, target_fpir)
    if is_remote(tenant_name, pack=pack):
        from oneton.cli.remote_galleries import create_there

        _say_created(create_there(name, kind, threshold, target_fpir), as_json=as_json)
        return
    new = NewGallery(
        DEFAULT_THRESHOLD if threshold is None else Score(threshold),
        target_fpir,
        GalleryKind(kind),
    )
    from oneton.parts import open_find_pack, open_parts

    async def work(settings: Settings) -> Gallery:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            find_pack = await open_find_pack(settings, parts)
            number = find_pack.own_no if pack is None else await parts.model_packs.number_of(pack)
            await find_pack(number)
            return await parts.galleries.create(
                owner.tenant_id, GalleryId(name), model_pack_no=number, new=new
            )

    _say_created(run(work), as_json=as_json)


@gallery.command("list", epilog=example("oneton gallery list --json"))
@of_tenant
@as_json
def list_galleries(tenant_name: str | None, as_json: bool) -> None:
    """List a tenant's galleries by name."""
    if is_remote(tenant_name):
        from oneton.cli.remote_galleries import list_there

        _print_list(
            [(each.gallery, each.faces, each.pack.name) for each in list_there()], as_json=as_json
        )
        return
    from oneton.parts import open_parts

    async def work(settings: Settings) -> list[tuple[Gallery, int, str]]:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            return [
                (
                    each,
                    (await parts.galleries.count(owner.tenant_id, each)).faces,
                    (await parts.model_packs.named(each.model_pack_no)).name,
                )
                for each in await parts.galleries.list(owner.tenant_id)
            ]

    _print_list(run(work), as_json=as_json)


def _print_list(found: Sequence[tuple[AnyGallery, int, str]], *, as_json: bool) -> None:
    if as_json:
        write_json([{"gallery": each, "faces": faces, "pack": pack} for each, faces, pack in found])
        return
    table = Table("gallery", "kind", "faces", "model pack", "judged by")
    for each, faces, pack in found:
        table.add_row(each.gallery_id, str(each.kind), f"{faces:,}", pack, _rule(each))
    stdout.print(table)


@gallery.command("show", epilog=example("oneton gallery show default --tenant acme"))
@click.argument("name", default=str(DEFAULT_GALLERY))
@of_tenant
@as_json
def show_gallery(name: str, tenant_name: str | None, as_json: bool) -> None:
    """Show a gallery's size and pack, and what its threshold means at this size.

    Of a server: its threshold, and not what it means.
    """
    if is_remote(tenant_name):
        from oneton.cli.remote_galleries import show_there

        _print_view_there(show_there(name), as_json=as_json)
        return
    from oneton.parts import open_find_pack, open_parts
    from oneton.verbs.show_gallery import ShowGallery

    async def work(settings: Settings) -> GalleryView:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            show = ShowGallery(parts.galleries, await open_find_pack(settings, parts))
            return await show(owner.tenant_id, GalleryId(name))

    _print_view(run(work), as_json=as_json)


@gallery.command("set", epilog=example("oneton gallery set default --target-fpir 0.01"))
@click.argument("name", default=str(DEFAULT_GALLERY))
@of_tenant
@_THRESHOLD
@_TARGET
@as_json
def set_gallery(
    name: str,
    tenant_name: str | None,
    threshold: float | None,
    target_fpir: float | None,
    as_json: bool,
) -> None:
    """Set what counts as a match: a score, or a target that the threshold follows."""
    _one_of(threshold, target_fpir)
    if threshold is None and target_fpir is None:
        raise click.UsageError("give --threshold or --target-fpir")
    if is_remote(tenant_name):
        from oneton.cli.remote_galleries import set_there

        _print_view_there(set_there(name, threshold, target_fpir), as_json=as_json)
        return
    from oneton.parts import open_find_pack, open_parts
    from oneton.verbs.show_gallery import ShowGallery

    async def work(settings: Settings) -> GalleryView:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            show = ShowGallery(parts.galleries, await open_find_pack(settings, parts))
            found = await parts.galleries.read(owner.tenant_id, GalleryId(name))
            await parts.galleries.judge_by(
                owner.tenant_id,
                found,
                threshold=found.threshold if threshold is None else Score(threshold),
                target_fpir=target_fpir,
            )
            return await show(owner.tenant_id, GalleryId(name))

    _print_view(run(work), as_json=as_json)


def _one_of(threshold: float | None, target_fpir: float | None) -> None:
    if threshold is not None and target_fpir is not None:
        raise click.UsageError("--threshold or --target-fpir, not both")


def _say_created(made: AnyGallery, *, as_json: bool) -> None:
    if as_json:
        write_json(made)
    else:
        stdout.print(f"gallery {made.gallery_id} created")


def _rule(gallery: AnyGallery) -> str:
    if gallery.target_fpir is None:
        return f"score {gallery.threshold:g}"
    return f"target FPIR {gallery.target_fpir:g}"


def _print_view(view: GalleryView, *, as_json: bool) -> None:
    if as_json:
        write_json(view)
        return
    gallery = view.gallery
    second = "" if view.second_pack is None else f", {gallery.second}: {view.second_pack.name}"
    threshold = f"score {view.threshold:.1f}, false match rate {view.fmr:.1e}"
    _print_rows(
        *_first_rows(view, view.pack.name + second, threshold),
        ("expected", f"{view.fpir:.2%} of searches for strangers match"),
        ("lost", f"{view.fnmr:.2%} of true matches, by the pack's calibration"),
    )
    for warning in view.warnings:
        stdout.print(f"[yellow]warning[/yellow] {warning}", soft_wrap=True)


def _print_view_there(view: ViewThere, *, as_json: bool) -> None:
    if as_json:
        write_json(view)
    else:
        _print_rows(*_first_rows(view, view.pack.name, f"score {view.threshold:.1f}"))


def _first_rows(
    view: GalleryView | ViewThere, packs: str, threshold: str
) -> Iterable[tuple[str, str]]:
    gallery = view.gallery
    return (
        ("gallery", f"{gallery.gallery_id}, {gallery.kind}"),
        ("model pack", packs),
        ("faces", f"{view.faces:,}, of which {view.erased:,} without their image"),
        ("judged by", _rule(gallery)),
        ("threshold", threshold),
    )


def _print_rows(*rows: tuple[str, str]) -> None:
    table = Table(show_header=False, box=None)
    for name, said in rows:
        table.add_row(name, said)
    stdout.print(table)
