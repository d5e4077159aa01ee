"""`oneton search` on a server."""

from __future__ import annotations

from pathlib import Path

from oneton.cli.remote import ask_server
from oneton.client.answers import FoundFace
from oneton.domain.model import Candidate, CandidateList, FaceId, Score


def search_there(
    image: Path, gallery: str, limit: int
) -> tuple[CandidateList, list[dict[str, object]]]:
    """Candidates, and the faces of the picture as the JSON shows them."""
    found = ask_server(
        lambda client: client.identify(image, galleries=(gallery,), limit=limit, explain=True)
    )
    assert found.explanation is not None
    candidates = tuple(
        Candidate(each.rank, FaceId(each.face_id), Score(each.score)) for each in found.candidates
    )
    threshold = Score(found.explanation.galleries[0].threshold)
    shown = CandidateList(found.match, threshold, candidates, faces=())
    return shown, [_face(each) for each in found.detected]


def _face(face: FoundFace) -> dict[str, object]:
    box = face.box
    return {
        "box": (box.left, box.top, box.right, box.bottom),
        "confidence": face.confidence,
        "quality": {
            "size_px": face.size_px,
            "sharpness": face.sharpness,
            "exposure": face.exposure,
        },
        "attributes": None,
    }
