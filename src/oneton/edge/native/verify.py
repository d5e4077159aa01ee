"""Are these two pictures of one person?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency

from oneton.domain.errors import ProbeError
from oneton.domain.model import Permission, Verification
from oneton.domain.requests import NewPicture, RequestState
from oneton.edge.native.bodies import (
    ExternalId,
    Image,
    Metadata,
    Points,
    kept_metadata,
    picture,
    read_body,
)
from oneton.edge.native.callers import Caller
from oneton.edge.native.problems import PictureError, post_refusals
from oneton.edge.native.saving import Call, as_raw, new_request_id, save_call
from oneton.edge.native.schemas import takes
from oneton.edge.native.wire import FoundFace, Warnings, found_faces, warnings_of

DEFAULT_THRESHOLD = 40.0
"""FMR 1e-4."""


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two pictures that are to be compared.

    Attributes:
        threshold: the least score of a match.
        save: keep the call, its pictures and its answer as a request.
        external_id: of the request; your own reference.
        metadata: of the request; any JSON object.
    """

    source: Image
    target: Image
    threshold: Points = DEFAULT_THRESHOLD
    save: bool = False
    external_id: ExternalId | None = None
    metadata: Metadata | None = None


class Detected(msgspec.Struct, frozen=True):
    """Faces of both pictures; the first of each are compared."""

    source: tuple[FoundFace, ...]
    target: tuple[FoundFace, ...]


class Compared(msgspec.Struct, frozen=True):
    """What the comparison came to.

    Attributes:
        score: 0 to 100.
        match_level: 0 to 5; level n is score >= 10 (n + 1).
        cosine: of the two embeddings.
        request_id: of the saved call.
    """

    match: bool
    score: float
    threshold: float
    match_level: int
    cosine: float
    detected: Detected
    warnings: Warnings
    request_id: UUID | None


@post(
    "/verify",
    operation_id="nativeVerify",
    summary="Compare two faces",
    responses=post_refusals(422),
    operation_class=takes(Comparison, images=("source", "target")),
    status_code=200,
    permissions=(Permission.MATCH,),
    computes=True,
)
async def verify_faces(
    request: Request[Any, Any, Any], caller: NamedDependency[Caller]
) -> Compared:
    """Compare the largest faces of two pictures.

    A saved call is approved when they match, else declined.
    """
    asked = await read_body(request, Comparison, images=("source", "target"))
    metadata = kept_metadata(asked.metadata)
    outcomes = await caller.verbs.verify.outcomes(
        caller.tenant, picture(asked.source), picture(asked.target)
    )
    found = outcomes.verification
    if found is None:
        both = {"source": outcomes.source, "target": outcomes.target}
        raise PictureError(
            {name: each for name, each in both.items() if isinstance(each, ProbeError)}
        )
    request_id = new_request_id(caller, save=asked.save)
    answer = _answer(found, asked.threshold, request_id)
    if request_id is not None:
        call = Call(
            request_id=request_id,
            kind="verify",
            state=RequestState.APPROVED if answer.match else RequestState.DECLINED,
            score=found.score,
            external_id=asked.external_id,
            metadata=metadata,
            asked=as_raw({"threshold": asked.threshold}),
            result=as_raw(answer),
        )
        pictures = [
            NewPicture("source", asked.source, found.source.content_type),
            NewPicture("target", asked.target, found.target.content_type),
        ]
        await save_call(caller, call, pictures)
    return answer


def _answer(found: Verification, threshold: float, request_id: UUID | None) -> Compared:
    source, target = found.source.faces, found.target.faces
    return Compared(
        match=found.score >= threshold,
        score=found.score,
        threshold=threshold,
        match_level=found.match_level,
        cosine=found.cosine,
        detected=Detected(found_faces(source), found_faces(target)),
        warnings=warnings_of(source, target),
        request_id=request_id,
    )
