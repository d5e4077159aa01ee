"""Keys and tokens: the calls that make one of what came before it."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import HeaderParameter

from oneton.edge.cypherface.calls import bare_token
from oneton.edge.cypherface.refusals import refusals
from oneton.edge.cypherface.wire import KeyReply, TokenReply
from oneton.verbs.merchant_tokens import TOKEN_LIFE_S
from oneton.verbs.merchants import Merchants

MerchantId = Annotated[str, HeaderParameter(name="merchantId")]
ApiKey = Annotated[str, HeaderParameter(name="x-api-key")]
Authorization = Annotated[str, HeaderParameter(name="authorization")]
NO_STORE = {"Cache-Control": "no-store"}


@post(
    "/merchant-api-key",
    operation_id="cypherfaceApiKey",
    summary="Make an API key",
    responses=refusals(401, 403, 404),
    status_code=201,
)
async def make_api_key(
    merchants: NamedDependency[Merchants],
    merchant_id: MerchantId = "",
    authorization: Authorization = "",
) -> Response[KeyReply]:
    """Make a key of a merchant; `authorization` is the operator's secret. Earlier keys stay."""
    tenant, secret = await merchants.tokens.make_key(
        merchant_id.strip().lower(), bare_token(authorization)
    )
    return Response(KeyReply(tenant.public_id, secret), status_code=201, headers=NO_STORE)


@post(
    "/api/access-token",
    operation_id="cypherfaceToken",
    summary="Get a token",
    responses=refusals(401, 403),
    status_code=200,
)
async def issue_token(
    merchants: NamedDependency[Merchants], merchant_id: MerchantId = "", api_key: ApiKey = ""
) -> Response[TokenReply]:
    """Exchange a merchant's id and API key for a token that lives two days."""
    return _reply(await merchants.tokens.issue(merchant_id.strip().lower(), api_key.strip()))


@post(
    "/api/refresh-token",
    operation_id="cypherfaceRefresh",
    summary="Renew a token",
    responses=refusals(401),
    status_code=200,
)
async def renew_token(
    merchants: NamedDependency[Merchants], authorization: Authorization = ""
) -> Response[TokenReply]:
    """Exchange a token, in force or expired at most 30 days ago, for a new one."""
    return _reply(await merchants.tokens.renew(bare_token(authorization)))


def _reply(token: str) -> Response[TokenReply]:
    return Response(TokenReply(token, token, TOKEN_LIFE_S), headers=NO_STORE)
