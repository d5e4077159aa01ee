"""Who acts: set once where a call comes in, read where it is written down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class Actor(msgspec.Struct, frozen=True):
    """Who does something, and from where.

    Attributes:
        name: `key <id>`, `operator <login>`, or the part of oneton that acts by itself.
        address: the caller's, without a port; None when nobody called.
        request_id: of the call, as in its log line and its X-Request-ID.
    """

    name: str
    address: str | None = None
    request_id: str | None = None


SYSTEM = Actor("system")
_actor: ContextVar[Actor] = ContextVar("actor", default=SYSTEM)


def actor() -> Actor:
    """Who acts in this call; `SYSTEM` outside of any."""
    return _actor.get()


def act_as(who: Actor) -> None:
    """From here on, in this task and what it starts."""
    _actor.set(who)


@contextmanager
def acting_as(who: Actor) -> Iterator[None]:
    """The same, for a block."""
    token = _actor.set(who)
    try:
        yield
    finally:
        _actor.reset(token)
