"""One pair of photos through every 1:1 call: the verdicts follow from one score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from _photos import variations

from tests.fixtures.merchants import Merchant, new_merchant
from tests.fixtures.pictures import blended
from tests.fixtures.servers import MATCH, Client, Place, Server, as_base64

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

UQUDO_LEVEL, DIDIT_ABOVE, VERIFLOW_ABOVE, TRUSTMATIC_FROM, CYPHERFACE_FROM = 3, 30, 30, 27, 80
NATIVE_FROM = 40


class Callers:
    """One key of one tenant, as each dialect sends it."""

    def __init__(self, stack: ExitStack, place: Place, url: str) -> None:
        new = new_merchant(place)
        pair = {"client_id": str(new.key_id), "client_secret": new.api_key}

        def client(**given: Any) -> httpx.Client:
            return stack.enter_context(httpx.Client(base_url=url, timeout=60, **given))

        self.uqudo = Client(url, pair).http
        stack.callback(self.uqudo.close)
        self.didit = client(headers={"x-api-key": new.api_key})
        self.bearer = client(headers={"Authorization": f"Bearer {new.api_key}"})
        self.trustmatic = client(auth=(pair["client_id"], pair["client_secret"]))
        self.merchant = stack.enter_context(Merchant(url, new))

    def match_level(self, one: bytes, other: bytes) -> tuple[int, bool]:
        pair = {"sourceImage": as_base64(one), "targetImage": as_base64(other)}
        said = good(self.uqudo.post(MATCH, json={**pair, "minimumMatchLevel": UQUDO_LEVEL}))
        return said["matchLevel"], said["match"]

    def didit_match(self, one: bytes, other: bytes) -> tuple[float, bool]:
        files = {"user_image": ("a.jpg", one), "ref_image": ("b.jpg", other)}
        said = good(self.didit.post("/v3/face-match/", files=files))["face_match"]
        return said["score"], said["status"] == "Approved"

    def veriflow_match(self, one: bytes, other: bytes) -> tuple[float, bool]:
        pair = {"userImage": as_base64(one), "refImage": as_base64(other)}
        threshold = {"faceMatchScoreDeclineThreshold": VERIFLOW_ABOVE}
        said = good(self.bearer.post("/v2/face-match", json={**pair, **threshold}))
        response = said["payload"]["request"]["info"]["response"]
        return response["score"], response["status"] == "Approved"

    def trustmatic_match(self, one: bytes, other: bytes) -> tuple[int, bool]:
        pair = {"probe": one, "reference": other}
        asked = {name: {"imageBase64": as_base64(photo)} for name, photo in pair.items()}
        said = good(self.trustmatic.post("/api/v1/face/verify", json=asked))
        assert said["hasError"] is False
        return said["score"], said["score"] >= TRUSTMATIC_FROM

    def cypherface_match(self, one: bytes, other: bytes) -> tuple[float, bool]:
        user = self.merchant.register()
        self.merchant.send(user, "upload", other)
        self.merchant.send(user, "match", one)
        reply = self.merchant.match(user)
        return reply.json()["similarity"], reply.status_code == 200

    def native_match(self, one: bytes, other: bytes) -> tuple[float, int, bool]:
        asked = {"source": as_base64(one), "target": as_base64(other), "threshold": NATIVE_FROM}
        said = good(self.bearer.post("/v1/verify", json=asked))
        return said["score"], said["match_level"], said["match"]


def good(reply: httpx.Response) -> Any:
    assert reply.status_code in (200, 201), reply.text
    return reply.json()


@pytest.fixture
def callers(shared_place: Place, shared_server: Server) -> Iterator[Callers]:
    with ExitStack() as stack:
        yield Callers(stack, shared_place, shared_server.url)


def pairs(people: dict[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
    """From one photo twice to two people; those between are two people's photos in one."""
    ada, bea = people["ada"], people["bea"]
    return {
        "one photo twice": (ada, ada),
        "two photos of one": (variations(ada, 1, seed=1)[0], ada),
        **{f"{share:.0%} of another": (blended(ada, bea, share), ada)
           for share in (0.3, 0.36, 0.4, 0.43, 0.45, 0.46, 0.47, 0.48)},
        "two people": (bea, ada),
    }  # fmt: skip


@pytest.mark.conforms("uqudo", "POST /api/v1/face/match", "the one score", "exact")
@pytest.mark.conforms("didit", "POST /v3/face-match/", "the one score", "exact")
@pytest.mark.conforms("veriflow", "POST /v2/face-match", "the one score", "exact")
@pytest.mark.conforms("face_verify", "POST /api/v1/face/verify", "the one score", "exact")
@pytest.mark.conforms("cypherface", "POST /api/face/match/", "the one score", "exact")
@pytest.mark.conforms("native", "POST /v1/verify", "the one score", "exact")
def test_every_verdict_follows_from_one_score(callers: Callers, people: dict[str, bytes]) -> None:
    verdicts: set[tuple[bool, ...]] = set()
    print(f"\n{'pair':18} {'score':>8}  level>=3  Didit>30  VeriFlow>30  Trustmatic>=27  "
          f"CypherFace>=80  native>=40")  # fmt: skip
    for name, (one, other) in pairs(people).items():
        score, native_level, native = callers.native_match(one, other)
        level, uqudo = callers.match_level(one, other)
        shown_didit, didit = callers.didit_match(one, other)
        shown_veriflow, veriflow = callers.veriflow_match(one, other)
        whole, trustmatic = callers.trustmatic_match(one, other)
        similarity, cypherface = callers.cypherface_match(one, other)
        said = (uqudo, didit, veriflow, trustmatic, cypherface, native)
        words = ["yes" if each else "no" for each in said]
        print(f"{name:18} {score:8.4f}  {level} {words[0]:6}  {words[1]:8}  {words[2]:11}  "
              f"{whole:3} {words[3]:10}  {words[4]:14}  {words[5]}")  # fmt: skip
        assert similarity == pytest.approx(score, abs=1e-9)
        assert shown_didit == shown_veriflow == round(score, 2)
        assert whole == math.floor(score + 0.5)
        assert level == native_level == max(0, min(5, int(score // 10) - 1))
        assert uqudo == (score >= 10 * (UQUDO_LEVEL + 1)) == native
        assert didit == (round(score, 2) > DIDIT_ABOVE)
        assert veriflow == (round(score, 2) > VERIFLOW_ABOVE)
        assert trustmatic == (whole >= TRUSTMATIC_FROM)
        assert cypherface == (score >= CYPHERFACE_FROM)
        verdicts.add(said)
    assert (True,) * 6 in verdicts
    assert (False,) * 6 in verdicts
    assert len(verdicts) >= 3, "no pair lies between the thresholds"
