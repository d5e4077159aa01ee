"""The model packs that galleries were made with, and what operators did to them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import asyncpg
import msgspec

from oneton.domain.errors import ConflictError, NotFoundError
from oneton.domain.model import ModelPack
from oneton.records.audit import Audit
from oneton.records.database import Database


class RegisteredPack(msgspec.Struct, frozen=True):
    """A pack as Postgres knows it.

    Attributes:
        files: the SHA-256 of each; empty for a pack that was only named by a setting.
        calibration: as JSON; None when it has none, or one that oneton ships.
        in_use: a gallery is made with it, or being re-embedded under it.
    """

    number: int
    pack: ModelPack
    version: str
    files: dict[str, str]
    licence: str
    licence_accepted_by: str | None
    licence_accepted_at: datetime | None
    calibration: str | None
    in_use: bool


class ModelPacks:
    """The registry of model packs; it belongs to the operator, not to a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def number(self, pack: ModelPack) -> int:
        """The pack's number here; given when it is first asked for."""
        await self._database.fetch(
            """insert into model_pack (name, sha256, dimension) values ($1, $2, $3)
               on conflict do nothing""",
            pack.name,
            pack.sha256,
            pack.dimension,
        )
        rows = await self._database.fetch(
            "select model_pack_no from model_pack where name = $1 and sha256 = $2",
            pack.name,
            pack.sha256,
        )
        return int(rows[0]["model_pack_no"])

    async def number_of(self, name: str) -> int:
        """The number of the newest pack of a name.

        Raises:
            NotFoundError: none of this name was ever used or added.
        """
        rows = await self._database.fetch(
            "select max(model_pack_no) as number from model_pack where name = $1", name
        )
        if rows[0]["number"] is None:
            raise NotFoundError("model pack", f"{name}; oneton models add adds one")
        return int(rows[0]["number"])

    async def named(self, model_pack_no: int) -> ModelPack:
        """The pack of a number that a gallery holds."""
        rows = await self._database.fetch(
            "select name, sha256, dimension from model_pack where model_pack_no = $1",
            model_pack_no,
        )
        if not rows:
            raise NotFoundError("model pack", model_pack_no)
        return ModelPack(rows[0]["name"], rows[0]["sha256"], rows[0]["dimension"])

    async def list(self) -> list[RegisteredPack]:
        """All packs, in the order in which they came."""
        rows = await self._database.fetch(
            """select *, model_pack_no in (select oneton_packs_in_use()) as in_use
               from model_pack order by model_pack_no"""
        )
        return [_registered(row) for row in rows]

    async def register(
        self,
        pack: ModelPack,
        *,
        version: str,
        files: Mapping[str, str],
        licence: str,
        accepted_by: str | None,
    ) -> int:
        """Note what a pack is; returns its number."""
        number = await self.number(pack)
        await self._database.fetch(
            """update model_pack set version = $2, files = $3, licence = $4,
                 licence_accepted_by = $5, licence_accepted_at = case when $5::text is null
                   then null else now() end
               where model_pack_no = $1""",
            number,
            version,
            msgspec.json.encode(files).decode(),
            licence,
            accepted_by,
        )
        return number

    async def set_calibration(self, number: int, calibration: str) -> None:
        """Keep a pack's calibration, a JSON document."""
        await self._database.fetch(
            "update model_pack set calibration = $2 where model_pack_no = $1", number, calibration
        )

    async def remove(self, number: int) -> None:
        """Forget a pack.

        Raises:
            ConflictError: a gallery uses it, or templates or runs of it are kept.
        """
        used = await self._database.fetch("select oneton_packs_in_use() as number")
        if number in [row["number"] for row in used]:
            raise ConflictError("a gallery uses this model pack")
        try:
            await self._database.fetch("delete from model_pack where model_pack_no = $1", number)
        except asyncpg.ForeignKeyViolationError as error:
            raise ConflictError("templates or re-embedding runs of this model pack are kept") from (
                error
            )

    async def note(self, actor: str, action: str, details: Mapping[str, object]) -> None:
        """Write down what an operator did."""
        await Audit(self._database).note(None, actor, action, details)


def _registered(row: asyncpg.Record) -> RegisteredPack:
    return RegisteredPack(
        number=row["model_pack_no"],
        pack=ModelPack(row["name"], row["sha256"], row["dimension"]),
        version=row["version"],
        files=msgspec.json.decode(row["files"], type=dict[str, str]),
        licence=row["licence"],
        licence_accepted_by=row["licence_accepted_by"],
        licence_accepted_at=row["licence_accepted_at"],
        calibration=row["calibration"],
        in_use=row["in_use"],
    )
