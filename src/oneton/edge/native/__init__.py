"""The native API under /v1, for what no other dialect has."""

from __future__ import annotations

from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.guards import by_token_or_secret, make_guard
from oneton.edge.native.problems import reply_problem
from oneton.edge.native.reindex_runs import Caller, list_reindex_runs, show_reindex_run
from oneton.edge.platform import Platform

__all__ = ["make_router", "reply_problem"]


def make_router(verbs: Platform) -> Router:
    """The API's routes."""

    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return Caller(request.state.principal, verbs.follow_reindex)

    return Router(
        "/v1",
        route_handlers=[list_reindex_runs, show_reindex_run],
        guards=[make_guard(by_token_or_secret(verbs.authenticate), verbs.cpu)],
        dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
        exception_handlers={Exception: reply_problem},
        security=[{"token": list[str]()}],
        tags=["native"],
    )
