"""`/metrics`: for whoever has its token; without one, for this machine only."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers of proxies: what has one may come from anywhere."""


class Page(NamedTuple):
    """What is shown, as it goes on the wire."""

    body: bytes
    content_type: str


Render = Callable[[], Awaitable[Page]]


def make_metrics(render: Render, token: str | None) -> HTTPRouteHandler:
    """The handler of `/metrics`.

    Args:
        token: what callers have to bring; None, and only this machine may call.
    """

    @get("/metrics", include_in_schema=False)
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Metrics in Prometheus's form."""
        if token is not None:
            if not _has_token(request, token):
                return _refusal(401, "the token of ONETON_METRICS_TOKEN is needed")
        elif not _is_near(request):
            return _refusal(403, "set ONETON_METRICS_TOKEN to ask from elsewhere")
        page = await render()
        return Response(page.body, headers={"content-type": page.content_type})

    return metrics


def _has_token(request: Request[Any, Any, Any], token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode("latin-1", "replace"), token.encode()
    )


def _is_near(request: Request[Any, Any, Any]) -> bool:
    """Whether the caller is a process of this machine, and passes nobody's request on."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _refusal(status: int, why: str) -> Response[bytes]:
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    return Response(why.encode(), status_code=status, media_type="text/plain", headers=headers)
