"""Is the process alive, and can it do its work?"""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from oneton.verbs.check_health import CheckHealth, Health


@get("/livez", operation_id="livez", summary="Is the process alive?", tags=["health"])
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/readyz", operation_id="readyz", summary="Can it do its work?", tags=["health"])
async def readyz(check_health: NamedDependency[CheckHealth]) -> Response[Health]:
    """Postgres and the object store answer too; 503 when one does not."""
    health = await check_health()
    return Response(health, status_code=200 if health.ready else 503)
