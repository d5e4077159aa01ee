"""The native API under /v1, for what no other dialect has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import Request, Router
from litestar.di import Provide

from oneton.edge.native.problems import reply_problem
from oneton.edge.native.reindex_runs import Caller, list_reindex_runs, show_reindex_run
from oneton.edge.tokens import make_guard
from oneton.verbs.authenticate import Authenticate
from oneton.verbs.cpu import Cpu
from oneton.verbs.follow_reindex import FollowReindex

__all__ = ["Native", "make_router"]


@dataclass(frozen=True)
class Native:
    """The verbs that this API translates to."""

    authenticate: Authenticate
    cpu: Cpu
    follow_reindex: FollowReindex


def make_router(verbs: Native) -> Router:
    """The API's routes."""

    def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return Caller(request.state.principal, verbs.follow_reindex)

    return Router(
        "/v1",
        route_handlers=[list_reindex_runs, show_reindex_run],
        guards=[make_guard(verbs.authenticate, verbs.cpu)],
        dependencies={"caller": Provide(provide_caller, sync_to_thread=False)},
        exception_handlers={Exception: reply_problem},
        security=[{"token": list[str]()}],
        tags=["native"],
    )
