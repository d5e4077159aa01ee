"""Figures for whoever operates it: counts over all tenants, nothing of any of them."""

from __future__ import annotations

import msgspec

from oneton.records.database import Database

MOST_GALLERIES = 1000
"""Told one by one, those with the most changes; the rest count together."""


class Figure(msgspec.Struct, frozen=True):
    """One number: what it is of, and of which kind and state."""

    what: str
    kind: str
    state: str
    value: float


class GalleryHead(msgspec.Struct, frozen=True):
    """How far a gallery is.

    Attributes:
        gallery_no: None is all that are not told one by one.
    """

    gallery_no: int | None
    head: int


class ReadFigures:
    """Reads them in two cheap statements, whoever asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def figures(self) -> list[Figure]:
        """Every number; one that is 0 may be left out."""
        rows = await self._database.fetch("select * from oneton_figures()")
        return [Figure(row["what"], row["kind"], row["state"], row["value"]) for row in rows]

    async def heads(self) -> list[GalleryHead]:
        """Of the galleries that changed most, the first first; the rest summed."""
        rows = await self._database.fetch("select * from oneton_heads($1)", MOST_GALLERIES)
        return [GalleryHead(row["gallery_no"], int(row["head"])) for row in rows]
