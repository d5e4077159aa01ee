"""`oneton models`: the registry of model packs, and their calibrations."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table

from oneton.cli.common import as_json, example, fail, run, stdout, write_json
from oneton.domain.errors import LicenceError, NotFoundError, OnetonError
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.records.model_packs import RegisteredPack


@click.group()
def models() -> None:
    """Add, verify, calibrate and remove model packs."""


@models.command("list", epilog=example("oneton models list --json"))
@as_json
def list_models(as_json: bool) -> None:
    """List the packs that the database knows, and whether this machine has them."""
    from oneton.parts import open_parts

    async def work(settings: Settings) -> list[tuple[RegisteredPack, str]]:
        async with open_parts(settings) as parts:
            return [(each, _here(settings, each)) for each in await parts.model_packs.list()]

    found = run(work)
    if as_json:
        write_json([{"registered": each, "here": here} for each, here in found])
        return
    table = Table("pack", "version", "dimension", "SHA-256", "in use", "on this machine")
    for each, here in found:
        table.add_row(
            each.pack.name,
            each.version,
            str(each.pack.dimension),
            each.pack.sha256[:12],
            "yes" if each.in_use else "no",
            here,
        )
    stdout.print(table)


@models.command("show", epilog=example("oneton models show buffalo_sc"))
@click.argument("name")
@as_json
def show_model(name: str, as_json: bool) -> None:
    """Show a pack's files, licence and calibration."""
    from oneton.biometrics.calibration import Calibration
    from oneton.models import read_pack
    from oneton.parts import load_pack_calibration, open_parts

    async def work(settings: Settings) -> tuple[RegisteredPack | None, Calibration | None, str]:
        async with open_parts(settings) as parts:
            known = [each for each in await parts.model_packs.list() if each.pack.name == name]
        calibration = None
        here = "not on this machine"
        try:
            files = read_pack(settings, name)
            here = str(files.folder)
            calibration = load_pack_calibration(files)
        except OnetonError as error:
            if not known:
                raise NotFoundError("model pack", name) from error
        return (known[-1] if known else None), calibration, here

    registered, calibration, here = run(work)
    if as_json:
        write_json({"registered": registered, "calibration": calibration, "here": here})
        return
    stdout.print(f"{name}: {here}", soft_wrap=True)
    if registered is not None:
        stdout.print(f"dimension {registered.pack.dimension}, SHA-256 {registered.pack.sha256}")
        for file, digest in sorted(registered.files.items()):
            print(f"{digest}  {file}")
        if registered.licence:
            print(registered.licence.strip())
        if registered.licence_accepted_at:
            accepted = f"{registered.licence_accepted_at:%Y-%m-%d}"
            print(f"accepted by {registered.licence_accepted_by} on {accepted}")
    if calibration is None:
        stdout.print("no calibration: oneton models calibrate makes one")
        return
    stdout.print(
        f"calibrated on {calibration.made_on} with {calibration.photos:,} photos of "
        f"{calibration.people:,} people ({calibration.source})"
    )
    table = Table("FMR", "cosine", "95 %", "lost true matches")
    for rate in calibration.impostor:
        interval = "" if rate.low is None else f"{rate.low:.3f} to {rate.high:.3f}"
        mark = " extrapolated" if rate.extrapolated else ""
        fnmr = calibration.fnmr(rate.cosine)  # type: ignore[arg-type]
        table.add_row(f"{rate.fmr:.0e}{mark}", f"{rate.cosine:.4f}", interval, f"{fnmr:.2%}")
    stdout.print(table)


@models.command("add", epilog=example("oneton models add buffalo_l.zip --accept-license"))
@click.argument("source")
@click.option("--name", help="What the pack is called here; by default as its file or folder.")
@click.option(
    "--detector-of",
    help="Take the detector of this pack, for a recogniser that comes alone.",
)
@click.option("--accept-license", is_flag=True, help="You have read its licence and accept it.")
@as_json
def add_model(
    source: str,
    name: str | None,
    detector_of: str | None,
    accept_license: bool,
    as_json: bool,
) -> None:
    """Add a pack: a folder, a zip, one ONNX file, or the name of a pack of InsightFace.

    A recogniser that is not InsightFace's comes with a TOML file of the same name that says how it
    is fed. Every network is looked at and tried out first; a pack that is refused leaves nothing.
    """
    from oneton.models import read_pack
    from oneton.parts import make_add_pack, open_parts

    async def work(settings: Settings) -> RegisteredPack | LicenceError:
        detector = None if detector_of is None else read_pack(settings, detector_of)
        async with open_parts(settings) as parts:
            try:
                return await make_add_pack(settings, parts)(
                    source,
                    name=name,
                    detector_of=detector,
                    accepted_by=getpass.getuser() if accept_license else None,
                )
            except LicenceError as error:
                return error

    made = run(work)
    if isinstance(made, LicenceError):
        print(made.licence.strip())
        fail(made)
    if as_json:
        write_json(made)
        return
    stdout.print(f"model pack {made.pack.name} added, dimension {made.pack.dimension}")
    if made.licence:
        print(made.licence.strip())


@models.command("verify", epilog=example("oneton models verify buffalo_sc"))
@click.argument("name")
@as_json
def verify_model(name: str, as_json: bool) -> None:
    """Check every SHA-256 of a pack, and let it work on a picture."""
    from oneton.parts import verify_installed

    async def work(settings: Settings) -> str:
        return verify_installed(settings, name).pack.sha256

    sha256 = run(work)
    if as_json:
        write_json({"pack": name, "sha256": sha256, "well": True})
    else:
        stdout.print(f"model pack {name} is whole and works; SHA-256 {sha256}", soft_wrap=True)


@models.command("remove", epilog=example("oneton models remove buffalo_l"))
@click.argument("name")
@as_json
def remove_model(name: str, as_json: bool) -> None:
    """Remove a pack that no gallery uses."""
    from oneton.parts import make_remove_pack, open_parts

    async def work(settings: Settings) -> None:
        async with open_parts(settings) as parts:
            await make_remove_pack(settings, parts)(name, getpass.getuser())

    run(work)
    if as_json:
        write_json({"pack": name, "removed": True})
    else:
        stdout.print(f"model pack {name} removed")


@models.command("calibrate", epilog=example("oneton models calibrate buffalo_sc lfw/"))
@click.argument("pack")
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--each",
    type=click.IntRange(2, 100),
    default=4,
    show_default=True,
    help="Photos of a person at most, so that nobody dominates.",
)
@click.option("--source", help="What the photos are; by default the folder's name.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON; by default calibration.json beside the pack. The report lies beside it.",
)
@as_json
def calibrate_model(
    pack: str, photos: Path, each: int, source: str | None, out: Path | None, as_json: bool
) -> None:
    """Measure a pack on a folder with one folder of photos a person.

    Writes the calibration that scores and thresholds are made of, and an HTML report with the DET
    curve, histograms, thresholds, and the likeliest label errors among the photos.
    """
    from oneton.cli.calibrating import CalibrationSummary, calibrate_to_files

    about = source or photos.absolute().name

    async def work(settings: Settings) -> CalibrationSummary:
        return await calibrate_to_files(settings, pack, photos, each, about, out)

    made = run(work)
    if as_json:
        write_json(made)
        return
    table = Table("FMR", "cosine", "95 %", "of single pairs")
    for rate in made.calibration.impostor:
        interval = "" if rate.low is None else f"{rate.low:.4f} to {rate.high:.4f}"
        observed = "extrapolated" if rate.observed is None else f"{rate.observed:.4f}"
        table.add_row(f"{rate.fmr:.0e}", f"{rate.cosine:.4f}", interval, observed)
    stdout.print(table)
    stdout.print(
        f"{made.calibration.photos:,} photos of {made.calibration.people:,} people, "
        f"{made.calibration.suspects} likely label errors, {made.refused} without a face"
    )
    stdout.print(f"{made.file} and {made.report}", soft_wrap=True)


def _here(settings: Settings, each: RegisteredPack) -> str:
    from oneton.models import read_pack

    try:
        files = read_pack(settings, each.pack.name)
    except OnetonError:
        return "no"
    return "yes" if files.pack == each.pack else "another of this name"
