"""The HTTP/1.1 layer's own refusals, in the form of every other error."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Wire(H11Protocol):
    """Requests that are no HTTP, or whose head is over 64 KiB, never reach the application."""

    def send_400_response(self, msg: str) -> None:
        """Answer in JSON, and close."""
        seen = self.conn.their_state is h11.ERROR and len(self.conn.trailing_data[0]) > 0
        status, reason = (431, "Request Header Fields Too Large") if seen else (400, "Bad Request")
        body = json.dumps(
            {
                "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "status": status,
                "error": reason,
                "message": f"INVALID_REQUEST: {msg}",
                "path": None,
            }
        ).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = h11.Response(status_code=status, headers=headers, reason=reason.encode())
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()
