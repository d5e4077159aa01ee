"""What webhooks are told when a reviewer changes a saved call, in the form of its own dialect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oneton.domain.requests import NewEvent, SavedRequest
from oneton.edge.didit import calls as didit
from oneton.edge.didit import decision
from oneton.edge.platform import Platform
from oneton.edge.veriflow import calls as veriflow
from oneton.edge.veriflow import keeping


async def events_of_review(
    verbs: Platform, saved: SavedRequest, link: decision.Link
) -> Callable[[SavedRequest], Sequence[NewEvent]]:
    """What a vendor's endpoints are told of a request once it has its new state."""
    told: list[Callable[[SavedRequest], NewEvent]] = []
    if saved.dialect == didit.DIALECT:
        kept = decision.read_kept(saved)
        faces = await verbs.browse_faces.known(saved.tenant_id, decision.matched_faces(kept))
        image_keys = {face_id: face.image_key for face_id, face in faces.items()}
        told.append(lambda now: decision.make_event(now, kept, image_keys, link))
    if saved.dialect == veriflow.DIALECT:
        told.append(lambda now: keeping.updated(now.public_id, now.state))
    return lambda now: [each(now) for each in told]
