"""Wire the verbs, make the HTTP application."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import structlog
from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.static_files import create_static_files_router

from oneton import __version__
from oneton.biometrics.analyse import Analyser
from oneton.biometrics.packs import PackFiles
from oneton.domain.errors import OnetonError
from oneton.edge import health, native, uqudo
from oneton.edge.requests import RequestLog
from oneton.indexing import Indexes, open_indexes
from oneton.models import make_analyser
from oneton.parts import Parts, make_sweep
from oneton.records.news import HeadNews
from oneton.records.reindexing import Reindexing
from oneton.settings import Settings
from oneton.verbs.authenticate import Authenticate
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.check_health import CheckHealth
from oneton.verbs.cpu import Cpu
from oneton.verbs.enroll import Enroll
from oneton.verbs.erase import Erase
from oneton.verbs.follow_reindex import FollowReindex
from oneton.verbs.identify import Find, Identify
from oneton.verbs.load_model import LoadModel
from oneton.verbs.sweep import Sweep
from oneton.verbs.verify import Verify

log = structlog.get_logger()

SWEEP_AFTER_S = 5.0
"""First the indexes are to load: a sweep reads every face record."""
SWEEP_AT_MOST = 100
"""Leftovers that a server deletes unasked, unless they are under a tenth of all objects."""


MakeAnalyser = Callable[[PackFiles], Analyser]


@dataclass(frozen=True)
class Verbs:
    """Everything that an edge or a command may ask for."""

    cpu: Cpu
    authenticate: Authenticate
    catch_up: CatchUp
    check_health: CheckHealth
    indexes: Indexes
    load_model: LoadModel
    identify: Identify
    enroll: Enroll
    erase: Erase
    sweep: Sweep
    verify: Verify
    follow_reindex: FollowReindex


@asynccontextmanager
async def open_verbs(
    settings: Settings,
    parts: Parts,
    *,
    load_within_s: float | None = None,
    make: MakeAnalyser | None = None,
) -> AsyncIterator[Verbs]:
    """Wire the verbs, and follow the heads of the galleries in use; models load at first use.

    Args:
        load_within_s: how long a question waits for a gallery's index; None is for ever.
        make: loads a pack's networks; None does as settings ask.
    """
    async with open_indexes(settings, parts, load_within_s=load_within_s) as indexes:
        load = make or partial(make_analyser, settings)
        load_model = LoadModel(indexes.packs, load, indexes.cpu)
        secret = await parts.keys.signing_secret("token", secrets.token_bytes(32))
        news = HeadNews(parts.database.dsn, indexes.catch_up.hear, indexes.keep_up.ask)
        following = asyncio.create_task(news.run())
        try:
            yield _wire(settings, parts, load_model, indexes, secret)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def _wire(
    settings: Settings,
    parts: Parts,
    load_model: LoadModel,
    indexes: Indexes,
    secret: bytes,
) -> Verbs:
    cpu, catch_up = indexes.cpu, indexes.catch_up
    find = Find(catch_up, cpu, parts.faces)
    return Verbs(
        cpu=cpu,
        authenticate=Authenticate(parts.keys, secret),
        catch_up=catch_up,
        check_health=CheckHealth(parts.database, parts.images),
        indexes=indexes,
        load_model=load_model,
        identify=Identify(load_model, catch_up, find),
        enroll=Enroll(
            load_model, catch_up, find, parts.faces, parts.images, settings.sweep_grace_s / 2
        ),
        erase=Erase(parts.faces, parts.images),
        sweep=make_sweep(parts),
        verify=Verify(load_model),
        follow_reindex=FollowReindex(Reindexing(parts.database), parts.model_packs),
    )


async def sweep_forever(verbs: Verbs, settings: Settings) -> None:
    """Sweep soon, then again and again, until cancelled."""
    await asyncio.sleep(min(SWEEP_AFTER_S, settings.sweep_interval_s))
    while True:
        try:
            report = await verbs.sweep(
                timedelta(seconds=settings.sweep_grace_s), at_most=SWEEP_AT_MOST
            )
            log.info(
                "swept",
                objects=report.objects,
                rows=report.rows,
                deleted=report.deleted,
                missing=len(report.missing),
            )
        except OnetonError as error:
            log.warning("sweeping failed", error=str(error))
        await asyncio.sleep(settings.sweep_interval_s)


def make_app(verbs: Verbs) -> Litestar:
    """The HTTP application over wired verbs."""
    dialect = uqudo.Uqudo(
        verbs.authenticate, verbs.cpu, verbs.identify, verbs.enroll, verbs.erase, verbs.verify
    )

    def provide_check_health() -> CheckHealth:
        return verbs.check_health

    return Litestar(
        route_handlers=[
            health.livez,
            health.readyz,
            uqudo.make_router(dialect),
            native.make_router(native.Native(verbs.authenticate, verbs.cpu, verbs.follow_reindex)),
            create_static_files_router(
                path="/schema/assets",
                directories=[_swagger_ui_files()],
                include_in_schema=False,
            ),
        ],
        dependencies={"check_health": Provide(provide_check_health, sync_to_thread=False)},
        exception_handlers={Exception: uqudo.reply_error},
        middleware=[RequestLog],
        openapi_config=_openapi_config(),
        logging_config=None,
    )


def _swagger_ui_files() -> Path:
    """The static files of flask-swagger-ui, found without importing it, for it imports Flask."""
    found = find_spec("flask_swagger_ui")
    assert found is not None and found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0], "dist")


def _openapi_config() -> OpenAPIConfig:
    page = SwaggerRenderPlugin(
        js_url="/schema/assets/swagger-ui-bundle.js",
        css_url="/schema/assets/swagger-ui.css",
        standalone_preset_js_url="/schema/assets/swagger-ui-standalone-preset.js",
        favicon="<link rel='icon' href='data:,'>",
        path=["/", "/swagger"],
    )
    return OpenAPIConfig(
        title="oneton",
        version=__version__,
        path="/schema",
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")
            }
        ),
        render_plugins=[page, JsonRenderPlugin(), YamlRenderPlugin()],
    )
