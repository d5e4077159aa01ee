"""What receivers verify, against the contract's test vector and receivers of our own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneton.domain.model import TenantId
from oneton.domain.webhooks import Delivery, WebhookDialect
from oneton.sending.policies import POLICIES, is_success
from oneton.sending.signatures import Message, make_message, write_canonical
from tests.fixtures.receivers import Received, check_didit, check_native

# The test vector of the contract of Didit's dialect, section 10.
VECTOR_SECRET = "whsec_example"
VECTOR = (
    '{"created_at":1774969994,"decision":{"face_matches":[{"score":80,"status":"Approved"}]},'
    '"event_id":"11111111-2222-3333-4444-555555555555","metadata":null,'
    '"session_id":"f9f5a777-8002-44c6-baaf-128bcfd6e226","status":"Approved",'
    '"timestamp":1774970000,"vendor_data":"José","webhook_type":"status.updated"}'
)
VECTOR_V2 = "94c7b8f3f8120effc4de427b90b7a832966e224cfde2810a47b3d699022fb6fe"
VECTOR_SIMPLE = "88398ea64cf9a1d55139d899e2c0f3ab4ffbd9d74307771100532d77226801b4"
EVENT_ID = UUID("11111111-2222-3333-4444-555555555555")
NOW_S = 1774970000.7


def delivery(
    dialect: WebhookDialect,
    body: dict[str, Any],
    secret: str = VECTOR_SECRET,
    *,
    test: bool = False,
) -> Delivery:
    return Delivery(
        delivery_id=UUID(int=1),
        tenant_id=TenantId(UUID(int=2)),
        endpoint_id=UUID(int=3),
        dialect=dialect,
        url="https://hooks.example/h",
        secret=secret,
        event_id=EVENT_ID,
        event_type="thing.happened",
        body=msgspec.Raw(json.dumps(body).encode()),
        test=test,
        attempts=1,
        next_at=None,
        delivered_at=None,
        dropped_at=None,
        last_status=None,
        last_error=None,
        created_at=datetime.now(UTC),
    )


def received(message: Message) -> Received:
    headers = {name.lower(): value for name, value in message.headers.items()}
    return Received("/h", headers, message.body)


def vector_body() -> dict[str, Any]:
    body = json.loads(VECTOR)
    body["decision"]["face_matches"][0]["score"] = 80.0
    del body["event_id"], body["timestamp"]
    return dict(reversed(body.items()))


@pytest.mark.conforms("didit", "webhook", "the test vector's three signatures", "exact")
def test_the_contracts_test_vector_comes_out_exactly() -> None:
    message = make_message(delivery("didit", vector_body()), NOW_S)
    assert message.body == VECTOR.encode()
    assert message.headers == {
        "Content-Type": "application/json",
        "User-Agent": "DiditWebhook/2.0 +https://didit.me",
        "X-Timestamp": "1774970000",
        "X-Signature": VECTOR_V2,
        "X-Signature-V2": VECTOR_V2,
        "X-Signature-Simple": VECTOR_SIMPLE,
    }
    check_didit(received(message), VECTOR_SECRET, NOW_S)


@pytest.mark.conforms("didit", "webhook", "X-Didit-Test-Webhook on test sends", "exact")
def test_only_a_test_says_that_it_is_one() -> None:
    message = make_message(delivery("didit", vector_body(), test=True), NOW_S)
    assert message.headers["X-Didit-Test-Webhook"] == "true"
    assert message.headers["X-Signature"] == VECTOR_V2


@pytest.mark.conforms("veriflow", "webhook", "id and status and nothing else, unsigned", "exact")
def test_veriflows_payload_is_the_id_and_the_status() -> None:
    body = {"status": "approved", "id": "req_12345abcde", "more": 1}
    message = make_message(delivery("veriflow", body), NOW_S)
    assert message.body == b'{"id":"req_12345abcde","status":"approved"}'
    assert message.headers == {"Content-Type": "application/json", "User-Agent": "oneton"}


@pytest.mark.conforms("veriflow", "webhook", "X-Signature when it is switched on", "chosen")
def test_veriflows_payload_is_signed_when_asked() -> None:
    body = {"id": "req_12345abcde", "status": "approved"}
    message = make_message(delivery("veriflow", body, "a secret"), NOW_S, sign_veriflow=True)
    # printf '{"id":"req_12345abcde","status":"approved"}' | openssl dgst -sha256 -hmac 'a secret'
    assert message.headers["X-Signature"] == (
        "860464d50f3494861b91e7b1126e8e471fbcbde12ae044814ad16c664b4d74ee"
    )


@pytest.mark.conforms("native", "webhook", "the three Standard Webhooks headers", "chosen")
def test_the_native_event_is_signed_as_standard_webhooks_are() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    message = make_message(delivery("native", {"data": {"n": 1.0}}, secret), NOW_S)
    call = received(message)
    check_native(call, secret, NOW_S)
    assert call.event == {
        "data": {"n": 1},
        "event_id": str(EVENT_ID),
        "timestamp": "2026-03-31T15:13:20Z",
        "type": "thing.happened",
    }


@pytest.mark.parametrize("text", ["[]", "1", "null", "", "{", '{"a":' + "9" * 5000 + "}"])
def test_a_body_that_is_no_object_is_a_value_error(text: str) -> None:
    made = msgspec.structs.replace(delivery("didit", {}), body=msgspec.Raw(text.encode()))
    with pytest.raises(ValueError, match=r"."):
        make_message(made, NOW_S)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["session_id", "metadata", "ü", "z"]), json_values))
def test_any_event_passes_a_receiver_of_the_contract(body: dict[str, Any]) -> None:
    body |= {"session_id": "s", "status": "Declined", "webhook_type": "status.updated"}
    message = make_message(delivery("didit", body), NOW_S)
    check_didit(received(message), VECTOR_SECRET, NOW_S)
    assert write_canonical(json.loads(message.body)) == message.body


@pytest.mark.parametrize(
    ("dialect", "status", "delays_s"),
    [
        *(("didit", status, [60, 240, None, None]) for status in (None, 404, 500, 503)),
        *(("didit", status, [None]) for status in (301, 302, 400, 401, 410, 429)),
        *(("veriflow", status, [60, 300, 1800, None]) for status in (None, 302, 400, 404, 500)),
        *(("native", status, [60, 300, 1800, 7200, 43200, None]) for status in (None, 400, 500)),
    ],
)
def test_each_dialect_tries_again_by_its_own_schedule(
    dialect: WebhookDialect, status: int | None, delays_s: list[float | None]
) -> None:
    policy = POLICIES[dialect]
    assert [policy.delay_s(made + 1, status) for made in range(len(delays_s))] == delays_s
    assert policy.timeout_s == (5 if dialect == "didit" else 10)


@pytest.mark.parametrize(
    ("status", "good"), [(200, True), (204, True), (299, True), (199, False), (302, False)]
)
def test_any_2xx_is_success(status: int, good: bool) -> None:
    assert is_success(status) is good
    assert not is_success(None)
