"""The model packs of this machine, as settings name and load them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.liveness import load_liveness
from oneton.biometrics.packs import PackFiles, find_pack
from oneton.settings import Settings


def start_loading(settings: Settings) -> Future[tuple[PackFiles, Analyser]]:
    """Load the pack that settings name in a thread, while a server imports the rest.

    What is wrong with the pack is raised by the result.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="loading")
    loading = pool.submit(_load, settings)
    pool.shutdown(wait=False)
    return loading


def _load(settings: Settings) -> tuple[PackFiles, Analyser]:
    files = read_pack(settings, settings.model_pack)
    return files, make_analyser(settings, files)


def make_analyser(settings: Settings, files: PackFiles) -> Analyser:
    """Load a pack's networks as settings ask."""
    return Analyser(
        files,
        runtime=settings.inference,
        limit_bytes=settings.max_image_bytes,
        limit_pixels=settings.max_image_pixels,
        liveness=None if settings.liveness is None else load_liveness(settings.liveness),
    )


def read_pack(settings: Settings, name: str) -> PackFiles:
    """A pack of this machine by its name or folder, its files checked.

    Raises:
        SettingError: there is none, or a file is missing or altered.
    """
    return find_pack(name, settings.data_dir / "models")
