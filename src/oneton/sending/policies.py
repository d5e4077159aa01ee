"""How long each dialect waits for a receiver, and when it tries again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oneton.domain.webhooks import WebhookDialect


@dataclass(frozen=True)
class Policy:
    """Of one dialect.

    Attributes:
        timeout_s: for an attempt from end to end.
        delays_s: before each further attempt, from the end of the one before.
        is_retried: after this status; None is none at all, for nobody answered in time.
    """

    timeout_s: float
    delays_s: tuple[float, ...]
    is_retried: Callable[[int | None], bool]

    def delay_s(self, attempts: int, status: int | None) -> float | None:
        """How long to wait after a failure; None gives up.

        Args:
            attempts: made so far, at least 1.
        """
        if attempts > len(self.delays_s) or not self.is_retried(status):
            return None
        return self.delays_s[attempts - 1]


def is_success(status: int | None) -> bool:
    """Any 2xx, in every dialect."""
    return status is not None and 200 <= status < 300


def _if_it_may_pass(status: int | None) -> bool:
    return status is None or status == 404 or status >= 500


def _always(_: int | None) -> bool:
    return True


POLICIES: dict[WebhookDialect, Policy] = {
    "didit": Policy(5.0, (60.0, 240.0), _if_it_may_pass),
    "veriflow": Policy(10.0, (60.0, 300.0, 1800.0), _always),
    "native": Policy(10.0, (60.0, 300.0, 1800.0, 7200.0, 43200.0), _always),
}
