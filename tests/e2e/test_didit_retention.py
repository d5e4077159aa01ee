"""What time takes of the Didit dialect's sessions and templates."""

from __future__ import annotations

import asyncio

import pytest

from oneton.parts import make_erase_due, make_purge_expired, open_parts
from oneton.settings import read_settings
from tests.fixtures.didit import Didit, MakeDiditOf
from tests.fixtures.servers import Place, Server

pytestmark = pytest.mark.model

DELETE_ONE = "DELETE /v3/session/{sessionId}/delete/"


def pass_time(place: Place) -> None:
    """Do what a server does every minute."""

    async def work() -> None:
        async with open_parts(read_settings(place.environ)) as parts:
            await make_erase_due(parts)()
            await make_purge_expired(parts)()

    asyncio.run(work())


@pytest.mark.conforms("didit", DELETE_ONE, "face_retention_days ends the template", "exact")
def test_a_template_ends_after_its_days(
    shared_place: Place, didit: Didit, people: dict[str, bytes]
) -> None:
    session_id = didit.live(people["ada"], vendor_data="v")["request_id"]
    didit.delete(session_id, retain_face_embeddings=True, face_retention_days=30)
    pass_time(shared_place)
    (match,) = didit.search(people["ada"])["face_search"]["matches"]
    assert match["source"] == "retained_template"
    didit.make_due("face_expiry")
    pass_time(shared_place)
    assert didit.search(people["ada"])["face_search"]["matches"] == []
    assert didit.count("face_expiry") == 0


@pytest.mark.conforms("didit", "retention", "at its end the session's face goes, too", "exact")
def test_a_session_that_is_over_takes_its_face_along(
    shared_place: Place, shared_server: Server, didit_of: MakeDiditOf, people: dict[str, bytes]
) -> None:
    didit = didit_of(shared_place, shared_server, image_days=1, result_days=30)
    session_id = didit.live(people["bea"])["request_id"]
    assert didit.decision(session_id)["expires_at"] is not None
    assert didit.search(people["bea"])["face_search"]["total_matches"] == 1
    didit.make_due("picture")
    pass_time(shared_place)
    (check,) = didit.decision(session_id)["liveness_checks"]
    assert check["reference_image"] is None
    didit.make_due("request")
    pass_time(shared_place)
    assert didit.http.get(f"/v3/session/{session_id}/decision/").status_code == 404
    assert didit.search(people["bea"], save_api_request="false")["face_search"]["matches"] == []
    assert didit.stored()["objects"] == 0
