"""The manifest of a snapshot: whose it is, what it consists of, and how it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from oneton.domain.errors import SnapshotError
from oneton.index.segment import CODES, TEMPLATES, SegmentMeta

FORMAT = 1
SEGMENTS = "segments"


class Identity(msgspec.Struct, frozen=True):
    """Whose faces these are; another's snapshot is never opened.

    Attributes:
        fill: which time the gallery's templates of this pack are whole.
    """

    tenant_id: str
    gallery_id: str
    gallery_no: int
    model_pack: str
    model_sha256: str
    dimension: int
    fill: int = 0


class KeptGallery(msgspec.Struct, frozen=True):
    """A gallery of which there are files, whatever the model packs."""

    tenant_id: str
    gallery_id: str
    gallery_no: int


class Anchor(msgspec.Struct, frozen=True):
    """A face by which Postgres is known to be the one that the snapshot was taken of."""

    face_no: int
    check: int


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot consists of.

    Attributes:
        head: the gallery's, that it answers for.
        faces: that it ranks.
        anchors: its newest faces.
    """

    identity: Identity
    head: int
    faces: int
    taken_at_s: float
    segments: tuple[SegmentMeta, ...]
    state_file: str
    state_sha256: str
    anchors: tuple[Anchor, ...]


class Envelope(msgspec.Struct, frozen=True):
    """The manifest file: the format comes first, whatever follows it."""

    format: int
    sha256: str
    manifest: msgspec.Raw


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        SnapshotError: it is damaged, or of a newer format.
        OSError: it cannot be read.
    """
    try:
        envelope = msgspec.json.decode(path.read_bytes(), type=Envelope)
        if envelope.format != FORMAT:
            raise SnapshotError(f"format {envelope.format}; this version reads {FORMAT}")
        if hashlib.sha256(bytes(envelope.manifest)).hexdigest() != envelope.sha256:
            raise SnapshotError("the manifest is not what was written")
        return msgspec.json.decode(envelope.manifest, type=Manifest)
    except FileNotFoundError as error:
        raise SnapshotError("the manifest is missing") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SnapshotError(f"the manifest cannot be read: {error}") from error


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest file."""
    body = msgspec.json.encode(manifest)
    return msgspec.json.encode(
        Envelope(FORMAT, hashlib.sha256(body).hexdigest(), msgspec.Raw(body))
    )


def names_of(manifest: Manifest) -> set[str]:
    """Names of a snapshot's segments."""
    return {meta.name for meta in manifest.segments}


def files_of(manifest: Manifest) -> Iterator[str]:
    """Names of a snapshot's files within its folder, the manifest's own left out."""
    for meta in manifest.segments:
        yield f"{SEGMENTS}/{meta.name}{TEMPLATES}"
        yield f"{SEGMENTS}/{meta.name}{CODES}"
    yield manifest.state_file
