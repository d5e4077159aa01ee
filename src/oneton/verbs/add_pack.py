"""Add a model pack to this machine and to the registry; verify one; remove one."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from oneton.biometrics.calibration import FILE as CALIBRATION
from oneton.biometrics.calibration import read_calibration
from oneton.biometrics.examine_pack import examine, try_out
from oneton.biometrics.pack_source import gather
from oneton.biometrics.packs import (
    MANIFEST,
    PackFiles,
    PackManifest,
    digest_of,
    open_listed,
    open_pack,
    place,
)
from oneton.domain.errors import ConflictError, LicenceError, SettingError
from oneton.records.model_packs import ModelPacks, RegisteredPack


@dataclass(frozen=True)
class AddPack:
    """Nothing is kept, on disk or in Postgres, of a pack that is refused.

    Args:
        root: where packs lie, a folder each.
    """

    packs: ModelPacks
    root: Path

    async def __call__(
        self,
        source: str,
        *,
        name: str | None,
        detector_of: PackFiles | None,
        accepted_by: str | None,
    ) -> RegisteredPack:
        """Look at a pack, try it out, put it in place and register it.

        Args:
            source: as `pack_source.gather`.
            detector_of: a pack whose detector is used, for a recogniser that comes alone.
            accepted_by: who accepts the licence; None when nobody did.

        Raises:
            SettingError: what is wrong with the pack.
            LicenceError: its licence has to be accepted.
            ConflictError: there is another pack of this name on this machine.
            UnavailableError: it cannot be downloaded.
        """
        manifest = await asyncio.to_thread(
            self._put, source, name, detector_of, accepted=accepted_by is not None
        )
        folder = self.root / manifest.name
        files = open_pack(manifest.name, self.root)
        number = await self.packs.register(
            files.pack,
            version=manifest.version,
            files=manifest.files,
            licence=manifest.licence,
            accepted_by=accepted_by if manifest.licence else None,
        )
        if (folder / CALIBRATION).is_file():
            await self.packs.set_calibration(number, (folder / CALIBRATION).read_text())
        details = {"pack": manifest.name, "sha256": files.pack.sha256}
        await self.packs.note(accepted_by or "", "models add", details)
        return next(each for each in await self.packs.list() if each.number == number)

    def _put(
        self, source: str, name: str | None, detector_of: PackFiles | None, *, accepted: bool
    ) -> PackManifest:
        with gather(source, self.root) as (folder, own_name):
            if detector_of is not None:
                shutil.copyfile(detector_of.detector, folder / detector_of.detector.name)
            manifest = examine(folder, name or own_name)
            if (folder / CALIBRATION).is_file():
                _check_calibration(folder, manifest)
            try_out(open_listed(folder, manifest))
            if manifest.licence and not accepted:
                raise LicenceError(manifest.name, manifest.licence)
            target = self.root / manifest.name
            if target.exists():
                self._check_same(target, manifest)
                return manifest
            kept = {*manifest.files, CALIBRATION}
            for path in folder.iterdir():
                if path.name not in kept:
                    path.unlink()
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            place(text, folder / MANIFEST)
            folder.chmod(0o755)
            folder.rename(target)
            # The block removes the folder by its old name.
            folder.mkdir()
            return manifest

    def _check_same(self, target: Path, manifest: PackManifest) -> None:
        """A pack that is here already may be registered again, by another database."""
        if open_pack(manifest.name, self.root).pack.sha256 == digest_of(manifest):
            return
        raise ConflictError(
            f"{target} holds another pack of this name; remove it, or give this one another name"
        )


def _check_calibration(folder: Path, manifest: PackManifest) -> None:
    calibration = read_calibration(folder / CALIBRATION)
    if calibration.recogniser_sha256 != manifest.files[manifest.recogniser]:
        raise SettingError(f"{folder / CALIBRATION} belongs to another recogniser")


@dataclass(frozen=True)
class RemovePack:
    """From this machine and from the registry."""

    packs: ModelPacks
    root: Path

    async def __call__(self, name: str, actor: str) -> None:
        """Remove a pack that no gallery uses.

        Raises:
            NotFoundError: there is none of the name.
            ConflictError: it is used.
        """
        number = await self.packs.number_of(name)
        await self.packs.remove(number)
        await self.packs.note(actor, "models remove", {"pack": name})
        await asyncio.to_thread(shutil.rmtree, self.root / name, ignore_errors=True)


def verify_pack(files: PackFiles) -> PackFiles:
    """Let a pack whose files were checked work on a picture.

    Raises:
        SettingError: what is wrong.
    """
    try_out(files)
    return files
