"""`Client` and `AsyncClient`: the same calls, made at once or awaited."""

from __future__ import annotations

import httpx

from oneton.client import following, keeping, searching
from oneton.client.credentials import make_credentials
from oneton.client.retries import Retries
from oneton.client.runners import AsyncRunner, Listing, Method, SyncRunner
from oneton.client.session import Session

CONNECT_S = 5.0
TIMEOUT_S = 60.0
"""Longer than the server waits for the first of two calls with one idempotency key."""


class Calls:
    """Every call of the API."""

    identify = Method(searching.identify)
    verify = Method(searching.verify)
    enroll = Method(searching.enroll)
    enroll_if_missing = Method(searching.enroll_if_missing)

    faces = Listing(keeping.faces)
    face = Method(keeping.face)
    change_face = Method(keeping.change_face)
    image_link = Method(keeping.image_link)
    image = Method(keeping.image)
    image_at = Method(keeping.image_at)
    erase = Method(keeping.erase)
    purge = Method(keeping.purge)

    galleries = Listing(keeping.galleries)
    gallery = Method(keeping.gallery)
    create_gallery = Method(keeping.create_gallery)
    change_gallery = Method(keeping.change_gallery)
    delete_gallery = Method(keeping.delete_gallery)

    requests = Listing(following.requests)
    request = Method(following.request)
    review = Method(following.review)
    jobs = Listing(following.jobs)
    job = Method(following.job)
    wait_for_job = Method(following.wait_for_job)
    reindex_runs = Method(following.reindex_runs)
    reindex_run = Method(following.reindex_run)
    audit = Listing(following.audit)
    usage = Method(following.usage)
    health = Method(following.health)


class Client(Calls, SyncRunner):
    """Calls a server; threads may share one.

    Args:
        base_url: such as `https://faces.example.com`.
        key: a key's secret; or instead its id and secret, which are exchanged for tokens.
        timeout_s: for each try of a call.
        retries: how often and how long failed calls are tried again.
        http: a client of your own, for proxies or certificates; closed with this one.

    Raises:
        ValueError: an argument is of a bad form.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        credentials = make_credentials(key, client_id, client_secret)
        self._session = Session(base_url, credentials, retries or Retries())
        self._http = http or httpx.Client(timeout=_timeout(timeout_s))

    def __repr__(self) -> str:
        return f"Client({self._session.base_url!r})"


class AsyncClient(Calls, AsyncRunner):
    """Calls a server from asyncio; tasks may share one.

    Args:
        base_url: such as `https://faces.example.com`.
        key: a key's secret; or instead its id and secret, which are exchanged for tokens.
        timeout_s: for each try of a call.
        retries: how often and how long failed calls are tried again.
        http: a client of your own, for proxies or certificates; closed with this one.

    Raises:
        ValueError: an argument is of a bad form.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        credentials = make_credentials(key, client_id, client_secret)
        self._session = Session(base_url, credentials, retries or Retries())
        self._http = http or httpx.AsyncClient(timeout=_timeout(timeout_s))

    def __repr__(self) -> str:
        return f"AsyncClient({self._session.base_url!r})"


def _timeout(timeout_s: float) -> httpx.Timeout:
    return httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
