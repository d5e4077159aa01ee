"""Draws the faces of `scripts/bench index`, plants real mates and ranks them by the full product.

A gallery of millions of real faces is nowhere to be had. The mean and covariance of real
embeddings say how crowded the space is, which is what makes a search hard; the mates are real.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import faiss
import msgspec
import numpy as np
from _bench_index_data import DIMENSION, LIST_LENGTH, Arrays
from numpy.typing import NDArray

from oneton.biometrics.analyse import Analyser
from oneton.biometrics.calibration import load_calibration
from oneton.biometrics.packs import PackFiles, assemble_buffalo_sc, file_sha256, open_pack
from oneton.domain.errors import ProbeError
from oneton.domain.model import DEFAULT_THRESHOLD

SEED = 1
CHUNK = 50_000
PROBES = 2_000
NEWCOMERS = 20_000
# Seeds of chunks are numbered from 0; the newcomers' is far behind those of any size.
NEWCOMERS_CHUNK = 1_000_000


class Photos(msgspec.Struct, frozen=True):
    """Real embeddings.

    Attributes:
        embeddings: (P, D) float32 of unit L2 norm.
        first: (people,) positions of each person's first photo.
        mated: (pairs, 2): position of another photo, and the person's position in `first`.
    """

    embeddings: NDArray[np.float32]
    first: NDArray[np.int64]
    mated: NDArray[np.int64]


class Spread(msgspec.Struct, frozen=True):
    """A Gaussian: mean (D,), and a (D, D) whose product with its transpose is the covariance."""

    mean: NDArray[np.float32]
    factor: NDArray[np.float32]

    def draw(self, count: int, chunk: int) -> NDArray[np.float32]:
        """(count, D) of unit L2 norm, always the same of one chunk number."""
        rng = np.random.default_rng([SEED, chunk])
        rows = rng.standard_normal((count, DIMENSION), dtype=np.float32) @ self.factor.T + self.mean
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def prepare(folder: Path, photos: Path, sizes: list[int]) -> None:
    """Make the arrays of each size that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    pack = open_pack("buffalo_sc", assemble_buffalo_sc(folder / "models").parent)
    threshold = float(
        load_calibration(file_sha256(pack.recogniser)).cosine(DEFAULT_THRESHOLD),
    )
    real = grouped(folder / "lfw.npz", photos, pack)
    spread = spread_of(real.embeddings[real.first])
    newcomers = Arrays(folder, 0).newcomers_path
    if not newcomers.exists():
        drawn = spread.draw(NEWCOMERS, NEWCOMERS_CHUNK).astype(np.float16)
        _write(newcomers, lambda file: np.save(file, drawn))
    for size in sizes:
        arrays = Arrays(folder, size)
        if size < len(real.first):
            sys.exit(f"a size holds each person once: {len(real.first)} at least")
        rng = np.random.default_rng([SEED, size])
        rows = rng.permutation(size)[: len(real.first)]
        if not arrays.faces_path.exists():
            print(f"drawing {size:,} faces", file=sys.stderr)
            _write_faces(arrays, spread, rows, real.embeddings[real.first])
        if not arrays.planted_path.exists():
            print(f"ranking {size:,} faces by the full product", file=sys.stderr)
            _write_planted(arrays, real, rows, threshold)


def grouped(cache: Path, photos: Path, pack: PackFiles) -> Photos:
    """Embed all photos, or take them from the cache."""
    if not cache.exists():
        _embed(cache, photos, pack)
    with np.load(cache) as file:
        embeddings, people = file["e"].astype(np.float32), file["n"]
    _, first, person = np.unique(people, return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(people)), first)
    return Photos(embeddings, first, np.column_stack([others, person[others]]))


def _embed(cache: Path, photos: Path, pack: PackFiles) -> None:
    paths = sorted(photos.glob("*/*.jpg"))
    if not paths:
        sys.exit(f"no photos in {photos}: name a folder with one folder a person")
    print(f"embedding {len(paths):,} photos", file=sys.stderr)
    analyser = Analyser(pack)

    def embedded(path: Path) -> NDArray[np.float32] | None:
        try:
            return analyser.analyse(path.read_bytes()).embedding
        except ProbeError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [(path, row) for path, row in zip(paths, pool.map(embedded, paths), strict=True)]
    rows = np.stack([row for _, row in found if row is not None])
    names = np.array([path.parent.name for path, row in found if row is not None])
    _write(cache, lambda file: np.savez(file, e=rows, n=names))


def spread_of(rows: NDArray[np.float32]) -> Spread:
    """Of each person's first photo, so that no person weighs more than another."""
    variances, axes = np.linalg.eigh(np.cov(rows.T))
    factor = axes * np.sqrt(np.maximum(variances, 0))
    return Spread(rows.mean(axis=0), factor.astype(np.float32))


def _write_faces(
    arrays: Arrays, spread: Spread, rows: NDArray[np.int64], mates: NDArray[np.float32]
) -> None:
    beside = arrays.faces_path.with_suffix(".partial")
    faces = np.lib.format.open_memmap(
        beside, mode="w+", dtype=np.float16, shape=(arrays.size, DIMENSION)
    )
    for chunk, start in enumerate(range(0, arrays.size, CHUNK)):
        stop = min(arrays.size, start + CHUNK)
        faces[start:stop] = spread.draw(stop - start, chunk)
    faces[rows] = mates
    faces.flush()
    beside.replace(arrays.faces_path)


def _write_planted(arrays: Arrays, real: Photos, rows: NDArray[np.int64], threshold: float) -> None:
    rng = np.random.default_rng(SEED)
    mated = real.mated[rng.permutation(len(real.mated))[:PROBES]]
    probes, mates = real.embeddings[mated[:, 0]], rows[mated[:, 1]]
    cosines, found = _full_product(arrays, probes)
    findable = ((found == mates[:, None]) & (cosines >= threshold)).any(axis=1)
    _write(
        arrays.planted_path,
        lambda file: np.savez(
            file, probes=probes, mates=mates, findable=findable, threshold=threshold
        ),
    )


def _full_product(
    arrays: Arrays, probes: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best of all inner products in float32, a chunk of the faces after another."""
    cosines = np.full((len(probes), LIST_LENGTH), -2, dtype=np.float32)
    found = np.full((len(probes), LIST_LENGTH), -1, dtype=np.int64)
    for start in range(0, arrays.size, CHUNK):
        chunk = arrays.rows(start, min(arrays.size, start + CHUNK))
        near, at = faiss.knn(probes, chunk, LIST_LENGTH, metric=faiss.METRIC_INNER_PRODUCT)
        cosines, found = np.hstack([cosines, near]), np.hstack([found, at + start])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :LIST_LENGTH]
        cosines = np.take_along_axis(cosines, best, axis=1)
        found = np.take_along_axis(found, best, axis=1)
    return cosines, found


def _write(path: Path, content: Callable[[BinaryIO], None]) -> None:
    """Write beside and rename, so that a run that was cut off leaves no half of a file."""
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        content(file)
    beside.replace(path)
