"""Upload links, and the pictures that come by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from litestar import MediaType, Request, Response, post, put
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, JSONBody

from oneton.domain.merchants import Purpose, Refusal
from oneton.domain.model import Permission
from oneton.edge.cypherface.calls import TOKEN, Caller
from oneton.edge.cypherface.refusals import RefusedError, refusals, refused
from oneton.edge.cypherface.wire import LinkReply, LinkRequest
from oneton.edge.platform import Platform

_CONTENT = {"image/jpeg": "image/jpeg", "image/jpg": "image/jpeg", "image/png": "image/png"}
"""What a picture of a stated type has to be."""


@dataclass
class UploadOperation(Operation):
    """Documents the picture that the call reads by itself."""

    def __post_init__(self) -> None:
        media = OpenAPIMediaType(
            schema=Schema(type=OpenAPIType.STRING, content_media_type="application/octet-stream")
        )
        self.request_body = RequestBody(required=True, content=dict.fromkeys(_CONTENT, media))


@post(
    "/api/upload/generate-url",
    operation_id="cypherfaceUploadLink",
    summary="Get an upload link",
    security=TOKEN,
    responses=refusals(400, 401, 403, 404, 409),
    status_code=200,
    permissions=(),
)
async def make_upload_link(
    data: JSONBody[LinkRequest], caller: NamedDependency[Caller]
) -> LinkReply:
    """Get a link that takes one picture of this name and type; 409 where a source is there."""
    is_source = data.type is Purpose.SOURCE
    caller.principal.require(Permission.INSERT if is_source else Permission.MATCH)
    uploads = caller.merchants.uploads
    asked = await uploads.ask(
        caller.principal, data.user_id, data.type, data.image_name, data.content_type
    )
    if isinstance(asked, Refusal):
        raise refused(asked)
    upload, token = asked
    url = f"{caller.origin}/upload/{token}/{quote(upload.image_name, safe='')}"
    return LinkReply(url, url, upload.upload_id, uploads.life_s)


@put(
    "/upload/{link:path}",
    operation_id="cypherfaceUpload",
    operation_class=UploadOperation,
    summary="Send a picture",
    responses=refusals(400, 403, 413, 422),
    status_code=200,
    media_type=MediaType.TEXT,
)
async def put_picture(
    request: Request[Any, Any, Any], link: FromPath[str], platform: NamedDependency[Platform]
) -> Response[str]:
    """Send the picture that a link was asked for; a refused one leaves the link good."""
    return await _receive(request, link, platform)


@post(
    "/upload/{link:path}",
    operation_id="cypherfaceUploadPost",
    operation_class=UploadOperation,
    summary="Send a picture",
    responses=refusals(400, 403, 413, 422),
    status_code=200,
    media_type=MediaType.TEXT,
)
async def post_picture(
    request: Request[Any, Any, Any], link: FromPath[str], platform: NamedDependency[Platform]
) -> Response[str]:
    """The same, for clients that cannot send PUT."""
    return await _receive(request, link, platform)


async def _receive(request: Request[Any, Any, Any], link: str, platform: Platform) -> Response[str]:
    """The link is checked first, so that a stranger's body is never read."""
    token, _, image_name = link.lstrip("/").partition("/")
    uploads = platform.merchants.uploads
    upload = await uploads.open(token, image_name)
    if isinstance(upload, Refusal):
        raise refused(upload)
    if request.content_type[0].lower() != upload.content_type:
        said = f"the link is for {upload.content_type}"
        raise RefusedError(400, "CONTENT_TYPE_MISMATCH", said)
    platform.cpu.check_room()
    body = await request.body()
    refusal = await uploads.receive(upload, body, (_CONTENT[upload.content_type],))
    if refusal is not None:
        raise refused(refusal)
    return Response("", status_code=200)
