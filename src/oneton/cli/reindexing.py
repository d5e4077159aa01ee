"""The work of `oneton reindex`: a measured rate, and a progress bar."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import cv2
import numpy as np

from oneton.biometrics.packs import PackFiles
from oneton.cli.progress import progress_bar
from oneton.domain.errors import NoFaceError
from oneton.domain.reindexing import GalleryState, RunState, Work
from oneton.models import make_analyser
from oneton.settings import Settings
from oneton.verbs.reindex import Reindex

LOOK_S = 0.5
_TRIAL_S = 2.0
_SIDE = 640


def measure_rate(settings: Settings, files: PackFiles) -> float:
    """Pictures a second that this machine analyses with a pack, on all threads of the budget.

    The picture has no face: every network is run on it once, as on one with a face.
    """
    analyser = make_analyser(settings, files)
    grey = np.full((_SIDE, _SIDE, 3), 127, dtype=np.uint8)
    data = cv2.imencode(".jpg", grey)[1].tobytes()

    def analyse_until(end_s: float) -> int:
        done = 0
        while time.perf_counter() < end_s:
            try:
                analyser.analyse(data)
            except NoFaceError:
                analyser.embed_grey()
            done += 1
        return done

    started_s = time.perf_counter()
    with ThreadPoolExecutor(settings.cpu_threads) as pool:
        ends = [started_s + _TRIAL_S] * settings.cpu_threads
        done = sum(pool.map(analyse_until, ends))
    return done / (time.perf_counter() - started_s)


async def watch_run(verb: Reindex, run_id: UUID | None) -> list[Work]:
    """Show a run until every gallery is cut over, or ended, or stopped."""
    works = await verb.status(run_id)
    with progress_bar() as progress:
        bars = {
            each.gallery_no: progress.add_task(each.gallery_id, total=each.to_embed, said="")
            for each in works
        }
        while True:
            for each in works:
                progress.update(
                    bars[each.gallery_no],
                    completed=each.embedded + each.failed,
                    said=f"{each.state}, {each.failed} failed",
                )
            open_states = (GalleryState.FILLING, GalleryState.FILLED)
            going = any(each.state in open_states for each in works)
            if not going or works[0].run_state is RunState.PAUSED:
                return works
            await asyncio.sleep(LOOK_S)
            works = await verb.status(works[0].run_id)
