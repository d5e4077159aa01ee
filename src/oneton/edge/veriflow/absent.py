"""Products of the vendor's that are not here: 501, after the token was looked at."""

from __future__ import annotations

from litestar import post
from litestar.handlers import HTTPRouteHandler

from oneton.edge.veriflow.calls import SECURITY
from oneton.edge.veriflow.refusals import AbsentError, refusals

ABSENT = (
    "/id-verification",
    "/age-estimation",
    "/proof-of-address",
    "/aml-screening",
    "/database-validation",
    "/phone-verification",
    "/phone-verification/send",
    "/phone-verification/check",
    "/email-verification",
    "/email-verification/send",
    "/email-verification/check",
)


def make_refusers() -> list[HTTPRouteHandler]:
    """A handler of each, for ids of operations are unique."""
    return [_refuser(path) for path in ABSENT]


def _refuser(path: str) -> HTTPRouteHandler:
    words = path.strip("/").replace("/", "-").split("-")

    @post(
        path,
        operation_id="veriflow" + "".join(word.capitalize() for word in words),
        summary=f"{' '.join(words).capitalize()}: not here",
        security=SECURITY,
        responses=refusals(501),
        status_code=501,
        permissions=(),
    )
    async def refuse_product() -> None:
        """Answer 501; the body is not read."""
        raise AbsentError("this server compares faces; it has no such product")

    return refuse_product
