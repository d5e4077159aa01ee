"""Merchant uploads: links that one picture of a stated name and type may be sent to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from oneton.domain.errors import UnauthenticatedError
from oneton.domain.merchants import Purpose, Refusal, Upload, checked_user_id
from oneton.domain.model import TenantId
from oneton.records.merchants import Uploads
from oneton.verbs.analyse import Picture
from oneton.verbs.authenticate import Authenticate, Principal
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.verify import Verify

TARGET_LIFE = timedelta(hours=24)
_TAG_BYTES = 16
_SAID_BYTES = 40
# Signed with the secret of the dialect's tokens, which have no such beginning.
_KIND = b"upload\0"


@dataclass(frozen=True)
class MerchantUploads:
    """A link names its key and its upload, and is signed with them and the picture's name.

    Links are our own in both storage modes: an object store's presigned ones would take a second
    picture, and keep one without a face.

    Args:
        secret: the same on every replica.
        life_s: how long a link is good.
    """

    uploads: Uploads
    authenticate: Authenticate
    keep_picture: KeepPicture
    verify: Verify
    secret: bytes
    life_s: int
    clock: Callable[[], float] = time.time

    async def ask(
        self,
        principal: Principal,
        user_id: str,
        purpose: Purpose,
        image_name: str,
        content_type: str,
    ) -> tuple[Upload, str] | Refusal:
        """An upload and its link's token; with a source, earlier links for one end.

        Raises:
            NotFoundError: the tenant has no such user.
        """
        now = self._now()
        upload = Upload(
            upload_id=uuid4(),
            tenant_id=principal.tenant_id,
            user_id=checked_user_id(user_id),
            purpose=purpose,
            image_name=image_name,
            content_type=content_type,
            created_at=now,
            expires_at=now + timedelta(seconds=self.life_s),
        )
        if refused := await self.uploads.add(upload):
            return refused
        return upload, self._token(principal.key_id, upload)

    async def open(self, token: str, image_name: str) -> Upload | Refusal:
        """The upload that a link is of, when a picture may be sent to it."""
        data = _decode(token)
        tag, said = data[:_TAG_BYTES], data[_TAG_BYTES:]
        if len(said) != _SAID_BYTES or not hmac.compare_digest(tag, self._tag(said, image_name)):
            return Refusal.LINK_INVALID
        key_id, upload_id = UUID(bytes=said[:16]), UUID(bytes=said[16:32])
        if int.from_bytes(said[32:]) <= self.clock():
            return Refusal.LINK_EXPIRED
        try:
            # A link is made from where the key may be used, and given to whoever has the picture.
            key = await self.authenticate.check_key(key_id, from_anywhere=True)
            tenant: TenantId = key.tenant_id
        except UnauthenticatedError:
            return Refusal.LINK_INVALID
        upload = await self.uploads.find(tenant, upload_id)
        if upload is None:
            return Refusal.LINK_INVALID
        return upload if upload.used_at is None else Refusal.LINK_USED

    async def receive(
        self, upload: Upload, data: bytes, accepted: tuple[str, ...]
    ) -> Refusal | None:
        """Check the picture that came and give it to the user.

        A picture that is refused leaves the link good, for a better one.

        Raises:
            ProbeError: it cannot be used, or has no face; nothing of it is kept.
            UnavailableError: try again.
        """
        found = await self.verify.analyse(Picture(data, accepted=accepted))
        kept = await self.keep_picture(upload.tenant_id, data, found.content_type, keep=TARGET_LIFE)
        try:
            replaced = await self.uploads.use(upload, kept.picture_id, self._now())
        except BaseException:
            # A source that did get attached meanwhile would be erased with it; asked once more,
            # the user has no source then, and may send one.
            await self.keep_picture.erase(upload.tenant_id, kept.picture_id)
            raise
        if isinstance(replaced, Refusal):
            await self.keep_picture.erase(upload.tenant_id, kept.picture_id)
            return replaced
        await self.keep_picture.erase(upload.tenant_id, *replaced)
        return None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def _token(self, key_id: UUID, upload: Upload) -> str:
        ends = int(upload.expires_at.timestamp()).to_bytes(8)
        said = key_id.bytes + upload.upload_id.bytes + ends
        tag = self._tag(said, upload.image_name)
        return _encode(tag + said)

    def _tag(self, said: bytes, image_name: str) -> bytes:
        named = _KIND + said + image_name.encode()
        return hmac.digest(self.secret, named, hashlib.sha256)[:_TAG_BYTES]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(token: str) -> bytes:
    """Nothing, unless it is just what `_encode` writes: base64 has several texts for some bytes."""
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        return b""
    return data if _encode(data) == token else b""
