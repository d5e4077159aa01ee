"""Pictures by short-lived links."""

from __future__ import annotations

import structlog
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath

from oneton.domain.acting import Actor, act_as, actor
from oneton.verbs.make_links import MakeLinks


@get(
    "/media/{token:str}",
    operation_id="media",
    summary="A picture by its link",
    tags=["media"],
    responses={
        404: ResponseSpec(None, description="Its time is over, or it never was."),
        503: ResponseSpec(None, description="Try again."),
    },
)
async def show_picture(
    token: FromPath[str], make_links: NamedDependency[MakeLinks]
) -> Response[bytes]:
    """Show the picture that a link is of; 404 once its time is over."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    act_as(Actor("link", actor().address, request_id))
    data, content_type = await make_links.read(token)
    return Response(
        data,
        media_type=content_type,
        headers={"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"},
    )
