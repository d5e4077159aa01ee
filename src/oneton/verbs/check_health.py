"""Check health: do the parts that every answer needs answer?"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from oneton.domain.errors import UnavailableError
from oneton.images import ImageStore
from oneton.records.database import Database


class Health(msgspec.Struct):
    """Each part is "ok" or says what is wrong."""

    ready: bool
    postgres: str
    images: str


@dataclass(frozen=True)
class CheckHealth:
    """One small question to each part."""

    database: Database
    images: ImageStore

    async def __call__(self) -> Health:
        """Ask both; what they answer is in the result, never raised."""
        postgres = images = "ok"
        try:
            await self.database.fetch("select 1")
        except UnavailableError as error:
            postgres = str(error)
        try:
            await self.images.check()
        except UnavailableError as error:
            images = str(error)
        return Health(postgres == images == "ok", postgres, images)
