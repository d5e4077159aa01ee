"""Whether what a thread computes gives way to what other threads do."""

from __future__ import annotations

import threading


class _Thread(threading.local):
    gives_way = False


_thread = _Thread()


def give_way() -> None:
    """From here on, the calling thread does."""
    _thread.gives_way = True


def gives_way() -> bool:
    """Whether the calling thread does."""
    return _thread.gives_way
