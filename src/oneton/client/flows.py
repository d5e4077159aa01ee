"""Calls as generators that ask for what they need and know no network themselves.

A flow yields steps and is sent what became of them; errors of a step are thrown into it. So there
is one implementation of every call, and two small ways to drive it: `oneton.client.runners`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send a request; a `Reply` comes back, or an `httpx.RequestError`.

    Headers and bodies hold keys and pictures, and are never shown.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Wait:
    """Wait so long."""

    seconds: float


@dataclass(frozen=True)
class Do:
    """Do something that may block, such as to read a file; its result comes back."""

    work: Callable[[], Any] = field(repr=False)


Step: TypeAlias = Send | Wait | Do
Flow: TypeAlias = Generator[Step, Any, T]
