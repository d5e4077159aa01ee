"""The bodies and headers that each dialect's receivers verify."""

from __future__ import annotations

import binascii
import hmac
import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec

from oneton.domain.webhooks import Delivery

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
JSON = "application/json"


class Message(msgspec.Struct, frozen=True):
    """What is sent at one attempt."""

    body: bytes
    headers: dict[str, str]


def make_message(delivery: Delivery, now_s: float, *, sign_veriflow: bool = False) -> Message:
    """Write and sign a delivery.

    Args:
        now_s: Unix time of the attempt.
        sign_veriflow: VeriFlow's deliveries, which have no signature, get one.

    Raises:
        ValueError: the body is no JSON object that can be written again.
    """
    body = read_object(bytes(delivery.body))
    match delivery.dialect:
        case "didit":
            body |= {"event_id": str(delivery.event_id), "timestamp": int(now_s)}
            return _didit(body, delivery.secret, test=delivery.test)
        case "veriflow":
            return _veriflow(body, delivery.secret if sign_veriflow else None)
        case "native":
            return _native(body, delivery, now_s)


def read_object(text: bytes) -> dict[str, Any]:
    """Read a JSON object; ValueError when it is none."""
    read = json.loads(text)
    if not isinstance(read, dict):
        raise ValueError("a webhook's body is a JSON object")
    return read


def write_canonical(value: object) -> bytes:
    """JSON in one way only: keys sorted at all depths, whole floats as integers, compact, UTF-8."""
    plain = _whole(value)
    text = json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def _whole(value: object) -> object:
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _didit(body: dict[str, Any], secret: str, *, test: bool) -> Message:
    """The body is in its canonical form already, so that both of its signatures are one.

    Source: the contract of Didit's dialect, section 10.
    """
    written = write_canonical(body)
    signature = _hex(secret.encode(), written)
    simple = ":".join(
        str(body.get(name) or "") for name in ("timestamp", "session_id", "status", "webhook_type")
    )
    headers = {
        "Content-Type": JSON,
        "User-Agent": "DiditWebhook/2.0 +https://didit.me",
        "X-Timestamp": str(body["timestamp"]),
        "X-Signature": signature,
        "X-Signature-V2": signature,
        "X-Signature-Simple": _hex(secret.encode(), simple.encode()),
    }
    if test:
        headers["X-Didit-Test-Webhook"] = "true"
    return Message(written, headers)


def _veriflow(body: dict[str, Any], secret: str | None) -> Message:
    """The id and the status, and nothing else. Source: the contract of VeriFlow's dialect."""
    written = msgspec.json.encode({"id": body["id"], "status": body["status"]})
    headers = {"Content-Type": JSON, "User-Agent": "oneton"}
    if secret is not None:
        headers["X-Signature"] = _hex(secret.encode(), written)
    return Message(written, headers)


def _native(body: dict[str, Any], delivery: Delivery, now_s: float) -> Message:
    """Source: the Standard Webhooks specification."""
    event_id, timestamp = str(delivery.event_id), str(int(now_s))
    at = datetime.fromtimestamp(int(now_s), UTC).isoformat().replace("+00:00", "Z")
    written = write_canonical(
        body | {"type": delivery.event_type, "event_id": event_id, "timestamp": at}
    )
    signed = f"{event_id}.{timestamp}.".encode() + written
    digest = hmac.digest(_key(delivery.secret), signed, "sha256")
    return Message(
        written,
        {
            "Content-Type": JSON,
            "User-Agent": "oneton",
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{b64encode(digest).decode()}",
        },
    )


def _key(secret: str) -> bytes:
    """What a secret of the Standard Webhooks form stands for."""
    try:
        return b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        return secret.encode()


def _hex(key: bytes, data: bytes) -> str:
    return hmac.new(key, data, "sha256").hexdigest()
