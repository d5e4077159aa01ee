"""Which failures are tried again, and when."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from oneton.client.errors import ApiError, ConnectionFailedError, OnetonClientError

RETRIED = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often and how long failed calls are tried again.

    Between two tries is a time drawn from 0 to `first_wait_s`, which doubles each time up to
    `longest_wait_s`; never less than what the server asks for in Retry-After. A server that asks
    for more than `longest_wait_s` is not waited for.

    Attributes:
        tries: in all; 1 tries nothing again.
        draw: a number from 0 to 1.
    """

    tries: int = 5
    first_wait_s: float = 0.25
    longest_wait_s: float = 30.0
    draw: Callable[[], float] = random.SystemRandom().random

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError("tries must be at least 1")
        if self.first_wait_s < 0 or self.longest_wait_s < 0:
            raise ValueError("waits must not be negative")

    def wait_s(self, tried: int, error: OnetonClientError) -> float | None:
        """How long to wait after so many tries; None when it is not tried again."""
        asked_s = 0.0
        if isinstance(error, ApiError):
            if error.status not in RETRIED:
                return None
            asked_s = error.retry_after_s or 0.0
        elif not isinstance(error, ConnectionFailedError):
            return None
        if tried >= self.tries or asked_s > self.longest_wait_s:
            return None
        most_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(tried - 1, 30))
        # Callers who were all told the same second must not all come back in it.
        return asked_s + self.draw() * most_s


def read_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds until a server wants to be asked again; None where it does not say.

    Source: RFC 9110, 10.2.3: seconds, or a date.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal() and len(text) <= 9:
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
