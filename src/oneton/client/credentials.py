"""What a client shows to be let in; never shown to anybody else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class Secret:
    """A text that no repr, log or error shows."""

    __slots__ = ("_text",)

    def __init__(self, name: str, text: str) -> None:
        text = text.strip()
        if not _PRINTABLE.fullmatch(text):
            raise ValueError(f"{name} is empty, or has characters that none has")
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True)
class Token:
    """What the token call gave, and until when by the client's clock it is used."""

    text: Secret
    until_s: float


@dataclass(frozen=True)
class Credentials:
    """A key's secret; or with a client id, what is exchanged for tokens."""

    secret: Secret = field(repr=False)
    client_id: str | None = None

    @property
    def has_tokens(self) -> bool:
        """The secret is exchanged for tokens."""
        return self.client_id is not None


def make_credentials(
    key: str | None, client_id: str | None, client_secret: str | None
) -> Credentials:
    """One of both kinds.

    Raises:
        ValueError: neither is given, or both, or one in part.
    """
    if key is not None and client_id is None and client_secret is None:
        return Credentials(Secret("the key", key))
    if key is None and client_id is not None and client_secret is not None:
        return Credentials(Secret("the client secret", client_secret), client_id)
    raise ValueError("give a key, or a client_id and its client_secret")
