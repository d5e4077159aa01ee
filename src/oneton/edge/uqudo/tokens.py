"""Who asks: the token call."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

from oneton.domain import errors
from oneton.edge.uqudo.wire import OAuthErrorReply, TokenReply
from oneton.verbs.authenticate import Authenticate


@dataclass
class TokenOperation(Operation):
    """Documents the form that the token call reads by itself."""

    def __post_init__(self) -> None:
        text = Schema(type=OpenAPIType.STRING)
        names = ("grant_type", "client_id", "client_secret")
        form = Schema(
            type=OpenAPIType.OBJECT,
            required=["grant_type"],
            properties=dict.fromkeys(names, text),
        )
        media = OpenAPIMediaType(schema=form)
        self.request_body = RequestBody(
            required=True, content={"application/x-www-form-urlencoded": media}
        )


@post(
    "/api/oauth/token",
    operation_id="token",
    operation_class=TokenOperation,
    summary="Get a token",
    status_code=200,
    tags=["uqudo"],
    responses={
        200: ResponseSpec(TokenReply, generate_examples=False),
        400: ResponseSpec(OAuthErrorReply, generate_examples=False),
        401: ResponseSpec(OAuthErrorReply, generate_examples=False),
    },
)
async def issue_token(
    request: Request[Any, Any, Any], authenticate: NamedDependency[Authenticate]
) -> Response[Any]:
    """Exchange client credentials for a token that lives 30 minutes.

    Form fields `grant_type=client_credentials`, `client_id` and `client_secret`; the last two may
    come as HTTP Basic authentication instead.
    """
    form = parse_qs((await request.body()).decode("latin-1"), max_num_fields=20)
    fields = {name: values[-1] for name, values in form.items()}
    client = _basic_client(request.headers.get("authorization", ""))
    client_id, secret = client or (fields.get("client_id"), fields.get("client_secret"))
    grant_type = fields.get("grant_type")
    if grant_type is None or client_id is None or secret is None:
        return _oauth_error(400, "invalid_request", "grant_type, client_id, client_secret needed")
    if grant_type != "client_credentials":
        return _oauth_error(400, "unsupported_grant_type", "only client_credentials")
    try:
        token = await authenticate.issue(client_id, secret)
    except errors.UnauthenticatedError as error:
        return _oauth_error(401, "invalid_client", str(error))
    reply = TokenReply(
        access_token=token.text,
        token_type="bearer",  # noqa: S106 - the kind of token
        expires_in=token.expires_in_s,
        scope=" ".join(token.permissions),
        jti=token.jti,
    )
    return Response(reply, headers={"Cache-Control": "no-store"})


def _basic_client(header: str) -> tuple[str, str] | None:
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(credentials).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return client_id, secret


def _oauth_error(status: int, code: str, description: str) -> Response[dict[str, str]]:
    headers = {"WWW-Authenticate": "Basic"} if status == 401 else {}
    body = {"error": code, "error_description": description}
    return Response(body, status_code=status, headers={**headers, "Cache-Control": "no-store"})
