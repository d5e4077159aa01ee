"""Load a model pack by its number: its networks at work, and its calibration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.calibration import Calibration, load_calibration
from oneton.biometrics.packs import PackFiles
from oneton.domain.errors import ConflictError, SettingError
from oneton.domain.model import ModelPack
from oneton.records.model_packs import ModelPacks
from oneton.verbs.analyse import Analyse
from oneton.verbs.cpu import Cpu

log = structlog.get_logger()


@dataclass(frozen=True)
class Model:
    """A model pack that this process has loaded."""

    number: int
    pack: ModelPack
    calibration: Calibration
    analyse: Analyse


class FindPack:
    """The files and calibrations of the packs that galleries use, found at their first use.

    Args:
        read: finds a pack's files by its name, and checks them.
        own: the pack that settings name, wherever it lies, and its number.
    """

    def __init__(
        self, packs: ModelPacks, read: Callable[[str], PackFiles], own: tuple[int, PackFiles]
    ) -> None:
        self._packs = packs
        self._read = read
        self._found: dict[int, tuple[PackFiles, Calibration]] = {}
        number, files = own
        self._found[number] = (files, _calibration_of(files))
        self.own_no = number

    async def __call__(self, number: int) -> tuple[PackFiles, Calibration]:
        """A pack's files and its calibration.

        Raises:
            ConflictError: this machine has no such pack, or another of its name, or no
                calibration for it.
        """
        if number not in self._found:
            pack = await self._packs.named(number)
            try:
                files = await asyncio.to_thread(self._read, pack.name)
                calibration = await asyncio.to_thread(_calibration_of, files)
            except SettingError as error:
                raise ConflictError(f"model pack {pack.name} cannot be used: {error}") from error
            if files.pack != pack:
                raise ConflictError(
                    f"model pack {pack.name} of this machine is another one than the database's: "
                    f"SHA-256 {files.pack.sha256}, expected {pack.sha256}"
                )
            self._found[number] = (files, calibration)
        return self._found[number]

    async def named(self, number: int) -> ModelPack:
        """What Postgres knows of a pack, whether or not this machine has it."""
        return await self._packs.named(number)


def _calibration_of(files: PackFiles) -> Calibration:
    return load_calibration(files.recogniser_sha256, files.folder)


class LoadModel:
    """Loads each pack once.

    Args:
        make: loads the networks.
    """

    def __init__(
        self,
        find: FindPack,
        make: Callable[[PackFiles], Analyser],
        cpu: Cpu,
    ) -> None:
        self._find = find
        self._make = make
        self._cpu = cpu
        self._loaded: dict[int, Model] = {}
        self._lock = asyncio.Lock()
        self.own_no = find.own_no

    async def __call__(self, number: int) -> Model:
        """A pack at work.

        Raises:
            ConflictError: as `FindPack`.
        """
        model = self._loaded.get(number)
        if model is not None:
            return model
        async with self._lock:
            if number not in self._loaded:
                files, calibration = await self._find(number)
                analyser = await self._cpu.run_upkeep(partial(self._make, files))
                log.info("model pack loaded", pack=files.pack.name)
                self._loaded[number] = Model(
                    number, files.pack, calibration, Analyse(analyser, self._cpu)
                )
        return self._loaded[number]

    async def widen(self) -> None:
        """Give lone callers several threads where that is faster; answers need not wait for it."""
        for model in list(self._loaded.values()):
            analyser = model.analyse.analyser
            before = analyser.wide
            await self._cpu.run_upkeep(analyser.widen)
            if analyser.wide != before:
                log.info("threads measured", pack=model.pack.name, wide=analyser.wide)
