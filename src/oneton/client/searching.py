"""The calls that take pictures: search, compare, enroll."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from oneton.client.answers import Compared, Enrolled, Identified
from oneton.client.flows import Flow
from oneton.client.images import Picture, as_base64
from oneton.client.session import Session, path_of, post_call

DEFAULT_GALLERY = "default"
Metadata = Mapping[str, Any]


def identify(  # noqa: PLR0913 - one for each field
    session: Session,
    image: Picture,
    *,
    galleries: Sequence[str] = (DEFAULT_GALLERY,),
    limit: int = 10,
    threshold: float | None = None,
    target_fpir: float | None = None,
    matches_only: bool = False,
    explain: bool = False,
    save: bool = False,
    external_id: str | None = None,
    metadata: Metadata | None = None,
    idempotency_key: str | None = None,
) -> Flow[Identified]:
    """Search galleries for the largest face of a picture.

    Args:
        limit: candidates at most, over all galleries.
        threshold: the least score of a match; left out, it is each gallery's own.
        target_fpir: instead: the share of searches for strangers that may return a match.
        matches_only: leave out candidates that are no match.
        explain: say what was searched and how scores came about.
        save: keep the call, its picture and its answer as a request.
        external_id: of the request; your own reference. Likewise `metadata`.
        idempotency_key: to carry the call out once over several runs of your program.
    """
    if isinstance(galleries, str):
        galleries = (galleries,)
    body = {
        "image": (yield from as_base64(image)),
        "galleries": tuple(galleries),
        "limit": limit,
        "threshold": threshold,
        "target_fpir": target_fpir,
        "matches_only": matches_only,
        "explain": explain,
        "save": save,
        "external_id": external_id,
        "metadata": metadata,
    }
    call = post_call(path_of("identify"), body, idempotency_key)
    return (yield from session.ask(call, Identified))


def verify(  # noqa: PLR0913 - one for each field
    session: Session,
    source: Picture,
    target: Picture,
    *,
    threshold: float | None = None,
    save: bool = False,
    external_id: str | None = None,
    metadata: Metadata | None = None,
    idempotency_key: str | None = None,
) -> Flow[Compared]:
    """Compare the largest faces of two pictures.

    Args:
        threshold: the least score of a match; left out, it is 40.
        save: keep the call, its pictures and its answer as a request.
    """
    body = {
        "source": (yield from as_base64(source)),
        "target": (yield from as_base64(target)),
        "threshold": threshold,
        "save": save,
        "external_id": external_id,
        "metadata": metadata,
    }
    call = post_call(path_of("verify"), body, idempotency_key)
    return (yield from session.ask(call, Compared))


def enroll(
    session: Session,
    image: Picture,
    gallery: str = DEFAULT_GALLERY,
    *,
    external_id: str | None = None,
    metadata: Metadata | None = None,
    idempotency_key: str | None = None,
) -> Flow[Enrolled]:
    """Add the largest face of a picture to a gallery, exactly once however often it is tried.

    Args:
        idempotency_key: to add it once over several runs of your program, within a day.
    """
    note = {"external_id": external_id, "metadata": metadata}
    return (yield from _enroll(session, image, gallery, note, idempotency_key))


def enroll_if_missing(
    session: Session,
    image: Picture,
    gallery: str = DEFAULT_GALLERY,
    *,
    external_id: str | None = None,
    metadata: Metadata | None = None,
    idempotency_key: str | None = None,
) -> Flow[Enrolled]:
    """Add it only when nobody in the gallery matches; else the record that does."""
    note = {"external_id": external_id, "metadata": metadata, "if_missing": True}
    return (yield from _enroll(session, image, gallery, note, idempotency_key))


def _enroll(
    session: Session, image: Picture, gallery: str, note: dict[str, Any], key: str | None
) -> Flow[Enrolled]:
    body = {"image": (yield from as_base64(image)), **note}
    call = post_call(path_of("galleries", gallery, "faces"), body, key)
    return (yield from session.ask(call, Enrolled))


def as_id(text: UUID | str) -> UUID:
    """An id; ValueError when it is none."""
    return text if isinstance(text, UUID) else UUID(text)
