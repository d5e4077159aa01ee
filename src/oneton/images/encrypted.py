"""An object store over another one, which sees nothing of a face.

A picture keeps its key. Its object begins with a head (four bytes, the form, the number of the
tenant's key); content type and picture are sealed, and the object's key is authenticated with them.
One without that head is from before, and is read as it is.

A copy of a snapshot lies under its key with `.sealed-N`, where N is the number of the tenant's key,
so that a listing tells which are left to be sealed anew.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TypeVar
from uuid import UUID

import anyio.to_thread
import msgspec

from oneton.domain.errors import KeyDestroyedError, NotFoundError, SealBrokenError, SnapshotError
from oneton.domain.model import StoredObject, TenantId
from oneton.domain.sealing import NONCE_BYTES, TAG_BYTES, Ring, Rings
from oneton.images import ObjectStore
from oneton.images.blocks import stop_on_leaving, write_blocks
from oneton.images.chunks import open_blocks, plain_size, seal_blocks
from oneton.images.files import UNKNOWN_TYPE
from oneton.images.keys import check_key, copy_key
from oneton.images.scratch import scratch_file

T = TypeVar("T")

SLOW_PUT_S = 4.0
"""After one that took longer it is looked whether its key is still in force: what was sealed with a
key that was retired since might come too late for being sealed anew."""
_MAGIC = b"\x8fotp\x01"
_HEAD_BYTES = len(_MAGIC) + 4
_TYPE_BYTES = 64
"""Of the content type, padded, so that an object tells nothing of it by its size."""
SEALED_MORE_BYTES = _HEAD_BYTES + NONCE_BYTES + _TYPE_BYTES + TAG_BYTES
_SAID = b"oneton picture"
_AT_ONCE_BYTES = 1 << 18
"""Sealing less is done before a thread has started."""
_SEALED_COPY = re.compile(r"(.+)\.sealed-(\d{1,8})")


class EncryptedStore:
    """Seals what it is given with the key of the tenant that the object's key begins with."""

    def __init__(self, store: ObjectStore, rings: Rings, *, slow_put_s: float = SLOW_PUT_S) -> None:
        self._store = store
        self._rings = rings
        self._slow_put_s = slow_put_s

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Seal and store; a key that is there is overwritten."""
        tenant = _tenant_of(check_key(key))
        async for ring in self._until_in_force(tenant):
            sealed = await _off(len(data), partial(_seal, ring, key, data, content_type))
            await self._store.put(key, sealed, UNKNOWN_TYPE)

    async def get(self, key: str) -> tuple[bytes, str]:
        """Read the bytes and the content type they were put with.

        Raises:
            KeyDestroyedError: the tenant's keys were destroyed.
            SealBrokenError: the object is not what was put.
        """
        stored, content_type = await self._store.get(key)
        if key_number(stored) == 0:
            return stored, content_type
        return await self._open(_tenant_of(key), key, stored)

    async def seal_anew(self, key: str) -> bool | None:
        """Seal an object with the key in force; None when it is not there, False when it was."""
        try:
            stored, content_type = await self._store.get(key)
        except NotFoundError:
            return None
        tenant = _tenant_of(key)
        if key_number(stored) == (await self._rings.ring(tenant)).number:
            return False
        if key_number(stored):
            stored, content_type = await self._open(tenant, key, stored)
        await self.put(key, stored, content_type)
        return True

    async def delete(self, key: str) -> None:
        """Delete; a key that is not there is no error."""
        await self._store.delete(key)

    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """All objects whose key starts with `prefix`; sizes are as they lie there."""
        return self._store.list(prefix)

    async def put_file(self, key: str, path: Path) -> None:
        """Seal and store a file; what is not whole is not there.

        Raises:
            OSError: it cannot be read, or nothing can be written beside it.
        """
        copy_key(key)
        async for ring in self._until_in_force(_tenant_of(key)):
            sealed = _form(key, ring.number)
            await self._put_form(ring, key, sealed, path)
            for other in await self._forms(key):
                if other != sealed:
                    await self._store.delete_file(other)

    async def get_file(self, key: str, path: Path) -> None:
        """Write what was stored to a file, beside it first.

        Raises:
            SnapshotError: what is stored is not what was put.
        """
        copy_key(key)
        ring = await self._rings.ring(_tenant_of(key))
        for number in sorted(ring.ciphers, reverse=True):
            if await self._try_file(ring, key, _form(key, number), path):
                return
        await self._store.get_file(key, path)

    async def delete_file(self, key: str) -> None:
        """Delete a file of a copy, the form in force last; see `seal_file_anew`."""
        copy_key(key)
        forms = await self._forms(key)
        try:
            ring = await self._rings.ring(_tenant_of(key))
        except (KeyDestroyedError, NotFoundError):
            in_force = key
        else:
            in_force = _form(key, ring.number)
        for form in [*(each for each in forms if each != in_force), in_force]:
            await self._store.delete_file(form)

    async def list_files(self, folder: str) -> tuple[StoredObject, ...]:
        """Everything below a folder, by the names and sizes that were put."""
        found: dict[str, tuple[int, StoredObject]] = {}
        for each in await self._store.list_files(folder):
            key, number = _split(each.key)
            size = plain_size(each.size_bytes) if number else each.size_bytes
            if key not in found or found[key][0] < number:
                found[key] = number, msgspec.structs.replace(each, key=key, size_bytes=size)
        return tuple(each for _, each in found.values())

    async def files_to_seal(self, tenant: TenantId) -> tuple[str, ...]:
        """Names, as they lie in the store below, of copies that another key sealed, or none."""
        number = (await self._rings.ring(tenant, fresh=True)).number
        stored = await self._store.list_files(str(tenant))
        return tuple(sorted(each.key for each in stored if _split(each.key)[1] != number))

    async def seal_file_anew(self, name: str, scratch: Path) -> bool:
        """Seal a copy with the key in force; False when it was deleted meanwhile.

        Whoever deletes it deletes the older form first and this one last, so the older one that is
        still there says that this one may stay.

        Args:
            name: one of `files_to_seal`.
            scratch: a folder for the file in plain, which is deleted.
        """
        key, number = _split(name)
        ring = await self._rings.ring(_tenant_of(key), fresh=True)
        sealed, path = _form(key, ring.number), scratch_file(scratch, ring.tenant_id)
        stored = {each.key for each in await self._store.list_files(_folder_of(key))}
        if name not in stored:
            return False
        if sealed not in stored:
            try:
                if number:
                    if not await self._try_file(ring, key, name, path):
                        return False
                else:
                    await self._store.get_file(key, path)
                await self._put_form(ring, key, sealed, path)
            except NotFoundError:
                return False
            finally:
                path.unlink(missing_ok=True)
            if name not in {each.key for each in await self._store.list_files(_folder_of(key))}:
                await self._store.delete_file(sealed)
                return False
        await self._store.delete_file(name)
        return True

    async def check(self) -> None:
        """Answer only if a write, a read and a delete work."""
        await self._store.check()

    async def close(self) -> None:
        """Give back connections."""
        await self._store.close()

    async def _until_in_force(self, tenant: TenantId) -> AsyncIterator[Ring]:
        """The tenant's keys, for a put; again when its key was retired while it was slow."""
        ring = await self._rings.ring(tenant)
        while True:
            started_s = monotonic()
            yield ring
            if monotonic() - started_s < self._slow_put_s:
                return
            now = await self._rings.ring(tenant, fresh=True)
            if now.number == ring.number:
                return
            ring = now

    async def _open(self, tenant: TenantId, key: str, stored: bytes) -> tuple[bytes, str]:
        ring = await self._rings.ring(tenant)
        if key_number(stored) not in ring.ciphers:
            ring = await self._rings.ring(tenant, fresh=True)
        try:
            return await _off(len(stored), partial(_unseal, ring, key, stored))
        except KeyError as error:
            raise SealBrokenError(f"the object {key}") from error

    async def _put_form(self, ring: Ring, key: str, sealed: str, path: Path) -> None:
        """Seal a file, beside it first, and store it under a name."""
        beside = _beside(path)
        try:
            await _write(beside, lambda stop: seal_blocks(ring, key, path, stop))
            await self._store.put_file(sealed, beside)
        finally:
            beside.unlink(missing_ok=True)

    async def _try_file(self, ring: Ring, key: str, sealed: str, path: Path) -> bool:
        """Fetch and open a sealed file; False when nothing has this name."""
        beside = _beside(path)
        try:
            await self._store.get_file(sealed, beside)
            await _write(path, lambda stop: open_blocks(ring, key, beside, stop))
        except NotFoundError:
            return False
        except KeyError as error:
            raise SnapshotError(f"the copy {key} does not open: its key is gone") from error
        finally:
            beside.unlink(missing_ok=True)
        return True

    async def _forms(self, key: str) -> tuple[str, ...]:
        """The names that a copy's file has in the store below, the oldest form first."""
        stored = await self._store.list_files(_folder_of(key))
        found = [
            (number, each.key) for each in stored for of, number in (_split(each.key),) if of == key
        ]
        return tuple(name for _, name in sorted(found))


def key_number(stored: bytes) -> int:
    """The number of the key that an object was sealed with; 0 for one in plain."""
    if not stored.startswith(_MAGIC):
        return 0
    return int.from_bytes(stored[len(_MAGIC) : _HEAD_BYTES], "big")


def _seal(ring: Ring, key: str, data: bytes, content_type: str) -> bytes:
    head = _MAGIC + ring.number.to_bytes(4, "big")
    kind = content_type.encode()[:_TYPE_BYTES].ljust(_TYPE_BYTES, b"\0")
    return head + ring.seal(kind + data, _said(ring, head, key))


def _unseal(ring: Ring, key: str, stored: bytes) -> tuple[bytes, str]:
    head = stored[:_HEAD_BYTES]
    try:
        opened = ring.open(key_number(stored), stored[_HEAD_BYTES:], _said(ring, head, key))
    except SealBrokenError as error:
        raise SealBrokenError(f"the object {key}") from error
    return opened[_TYPE_BYTES:], opened[:_TYPE_BYTES].rstrip(b"\0").decode()


def _said(ring: Ring, head: bytes, key: str) -> bytes:
    return _SAID + ring.tenant_id.bytes + head + key.encode()


def _tenant_of(key: str) -> TenantId:
    """Whose an object is.

    Raises:
        ValueError: nobody's; keys are ours, so this is our own mistake.
    """
    return TenantId(UUID(key.partition("/")[0]))


def _form(key: str, number: int) -> str:
    return f"{key}.sealed-{number}"


def _split(name: str) -> tuple[str, int]:
    """The key of a copy's file, and the number of the key that sealed it; 0 is in plain."""
    found = _SEALED_COPY.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 0)


def _folder_of(key: str) -> str:
    return key.rpartition("/")[0] or key


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.sealing")


async def _off(size_bytes: int, work: Callable[[], T]) -> T:
    """Work on so many bytes, in a thread when they are many."""
    if size_bytes < _AT_ONCE_BYTES:
        return work()
    return await anyio.to_thread.run_sync(work)


async def _write(path: Path, blocks: Callable[[Event], Iterator[bytes]]) -> None:
    """Write blocks to a file in a thread, which ends soon after who waits has left."""
    with stop_on_leaving() as stop:
        await anyio.to_thread.run_sync(lambda: write_blocks(path, blocks(stop)))
