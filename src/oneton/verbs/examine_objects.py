"""Examine objects: rows without them, those without rows, and those that are no picture."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from oneton.biometrics.decode import decode
from oneton.domain.errors import (
    KeyDestroyedError,
    NotFoundError,
    OnetonError,
    UnavailableError,
)
from oneton.domain.examining import Examined, Finding, Kind
from oneton.domain.model import StoredObject
from oneton.domain.requests import PICTURES
from oneton.images import ImageStore
from oneton.records.tenants import Tenants
from oneton.verbs.in_turn import each_of
from oneton.verbs.sweep import Sweep

AT_ONCE = 8


@dataclass(frozen=True)
class ExamineObjects:
    """Walks rows and objects side by side as the sweeper does, then looks at each object.

    Args:
        images: as verbs read them.
        grace: age from which an object without a row is a leftover.
        decode: read every object, and decode every face's image.
    """

    sweep: Sweep
    tenants: Tenants
    images: ImageStore
    grace: timedelta
    decode: bool
    limit_bytes: int
    limit_pixels: int

    async def __call__(self) -> Examined:
        """Look once."""
        examined = Examined("objects")
        swept = await self.sweep(self.grace, delete=False)
        examined.looked_at = {"objects": swept.objects, "rows": swept.rows}
        for kind, keys, said in (
            (Kind.IMAGE_MISSING, swept.missing, "a row names it, and it is not in the store"),
            (Kind.LEFTOVER_OBJECT, swept.leftovers, "no row names it"),
        ):
            examined.findings += [finding_of(kind, key, said) for key in keys]
        known = {str(each.tenant_id) for each in await self.tenants.list()}
        strangers = Counter[str]()

        async def look(found: StoredObject) -> None:
            tenant = found.key.partition("/")[0]
            if tenant not in known:
                strangers[tenant] += 1
            elif not found.size_bytes:
                examined.findings.append(finding_of(Kind.IMAGE_EMPTY, found.key, "has no bytes"))
            elif self.decode:
                await self._decode(found.key, examined)

        await each_of(self.images.list(), look, AT_ONCE)
        for name, count in sorted(strangers.items()):
            said = f"{count} objects of a tenant that this database does not know"
            examined.findings.append(Finding(Kind.UNKNOWN_OBJECTS, said, name))
        return examined

    async def _decode(self, key: str, examined: Examined) -> None:
        try:
            data, _ = await self.images.get(key)
            if f"/{PICTURES}/" not in key:
                await asyncio.to_thread(
                    partial(
                        decode, data, limit_bytes=self.limit_bytes, limit_pixels=self.limit_pixels
                    )
                )
            examined.count("decoded")
        except UnavailableError:
            raise
        except (NotFoundError, KeyDestroyedError):
            return
        except OnetonError as error:
            # No picture, or one that cannot be decrypted.
            examined.findings.append(finding_of(Kind.IMAGE_UNREADABLE, key, str(error)))


def finding_of(kind: Kind, key: str, said: str) -> Finding:
    """A finding about an object."""
    tenant, gallery, _ = key.split("/")
    return Finding(kind, said, key, UUID(tenant), gallery)
