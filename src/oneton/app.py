"""Build the engines, wire the verbs, make the HTTP application."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import anyio.to_thread
import structlog
from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin
from litestar.static_files import create_static_files_router

from oneton import __version__
from oneton.biometrics.analyse import Analyser
from oneton.biometrics.calibration import Calibration, load_calibration
from oneton.biometrics.packs import PackFiles, assemble_buffalo_sc, file_sha256, open_pack
from oneton.domain.errors import OnetonError
from oneton.edge import health, uqudo
from oneton.edge.requests import RequestLog
from oneton.images import ImageStore
from oneton.images.files import FileStore
from oneton.images.s3 import S3Store
from oneton.index.exact import ExactIndex
from oneton.records.database import Database
from oneton.records.embedded import EmbeddedPostgres
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries, ModelPacks
from oneton.records.migrate import migrate
from oneton.records.news import HeadNews
from oneton.records.tenants import Keys, Tenants
from oneton.settings import Settings
from oneton.verbs.analyse import Analyse
from oneton.verbs.authenticate import Authenticate, CreateKey
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.check_health import CheckHealth
from oneton.verbs.cpu import Cpu
from oneton.verbs.create_tenant import CreateTenant
from oneton.verbs.enroll import Enroll
from oneton.verbs.erase import Erase
from oneton.verbs.examine_database import DatabaseFindings, ExamineDatabase
from oneton.verbs.identify import Find, Identify
from oneton.verbs.purge import Purge
from oneton.verbs.sweep import Sweep
from oneton.verbs.verify import Verify

log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """The parts that settings choose, started."""

    database: Database
    images: ImageStore
    tenants: Tenants
    keys: Keys
    galleries: Galleries
    faces: Faces
    model_packs: ModelPacks


@dataclass(frozen=True)
class Verbs:
    """Everything that an edge or a command may ask for."""

    cpu: Cpu
    authenticate: Authenticate
    catch_up: CatchUp
    check_health: CheckHealth
    identify: Identify
    enroll: Enroll
    erase: Erase
    sweep: Sweep
    verify: Verify


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database that settings name, migrated; without one, our own server."""
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            server = await stack.enter_async_context(_own_server(settings))
            app_dsn, owner_dsn = server.app_dsn, server.owner_dsn
        else:
            app_dsn = settings.database_url
            owner_dsn = settings.database_owner_url or app_dsn
        await migrate(owner_dsn)
        database = await Database.connect(app_dsn, size=settings.database_pool_size)
        stack.push_async_callback(database.close)
        yield database


@asynccontextmanager
async def _own_server(settings: Settings) -> AsyncIterator[EmbeddedPostgres]:
    server = await anyio.to_thread.run_sync(EmbeddedPostgres, settings.data_dir / "postgres")
    try:
        await server.create_database()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.stop)


def make_image_store(settings: Settings) -> ImageStore:
    """Files, or the S3 store that settings name."""
    if settings.s3_endpoint is None:
        return FileStore(settings.data_dir / "images")
    assert settings.s3_access_key is not None and settings.s3_secret_key is not None
    return S3Store(
        settings.s3_endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )


def find_pack(settings: Settings) -> PackFiles:
    """The model pack that settings name, its files checked."""
    root = settings.data_dir / "models"
    if settings.model_pack == "buffalo_sc":
        assemble_buffalo_sc(root)
    return open_pack(settings.model_pack, root)


@asynccontextmanager
async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Start what keeps records and images; stop on leaving what was started."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        images = make_image_store(settings)
        stack.push_async_callback(images.close)
        await images.check()
        yield Parts(
            database,
            images,
            Tenants(database),
            Keys(database),
            Galleries(database),
            Faces(database),
            ModelPacks(database),
        )


@asynccontextmanager
async def open_verbs(settings: Settings, parts: Parts) -> AsyncIterator[Verbs]:
    """Load the models, wire the verbs, and follow the heads of the galleries in use."""
    pack = find_pack(settings)
    calibration = load_pack_calibration(pack)
    analyser = await anyio.to_thread.run_sync(partial(_make_analyser, settings, pack))
    cpu = Cpu(settings.cpu_threads, settings.queue_limit)
    pack_no = await parts.model_packs.number(pack.pack)
    catch_up = CatchUp(parts.galleries, parts.faces, cpu, ExactIndex, (pack_no, pack.pack))
    secret = await parts.keys.signing_secret("token", secrets.token_bytes(32))
    news = HeadNews(parts.database.dsn, catch_up.hear)
    following = asyncio.create_task(news.run())
    try:
        yield _wire(settings, parts, analyser, calibration, cpu, catch_up, secret)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        cpu.close()


def _make_analyser(settings: Settings, pack: PackFiles) -> Analyser:
    return Analyser(
        pack,
        runtime=settings.inference,
        limit_bytes=settings.max_image_bytes,
        limit_pixels=settings.max_image_pixels,
    )


def _wire(
    settings: Settings,
    parts: Parts,
    analyser: Analyser,
    calibration: Calibration,
    cpu: Cpu,
    catch_up: CatchUp,
    secret: bytes,
) -> Verbs:
    analyse = Analyse(analyser, cpu)
    find = Find(catch_up, cpu, parts.faces, calibration)
    return Verbs(
        cpu=cpu,
        authenticate=Authenticate(parts.keys, secret),
        catch_up=catch_up,
        check_health=CheckHealth(parts.database, parts.images),
        identify=Identify(analyse, catch_up, find),
        enroll=Enroll(
            analyse, catch_up, find, parts.faces, parts.images, settings.sweep_grace_s / 2
        ),
        erase=Erase(parts.faces, parts.images),
        sweep=make_sweep(parts),
        verify=Verify(analyse, calibration),
    )


async def make_tenant_maker(settings: Settings, parts: Parts) -> CreateTenant:
    """What `oneton tenant create` and the first start use; needs no model in memory."""
    pack = find_pack(settings)
    return CreateTenant(parts.tenants, await parts.model_packs.number(pack.pack))


def make_key_maker(parts: Parts) -> CreateKey:
    """What `oneton key create` and the first start use."""
    return CreateKey(parts.keys)


@asynccontextmanager
async def connect_database(settings: Settings) -> AsyncIterator[Database]:
    """The database as it is, nothing migrated; our own server is started when it has to be."""
    async with AsyncExitStack() as stack:
        dsn = settings.database_url
        if dsn is None:
            server = await stack.enter_async_context(_own_server(settings))
            await migrate(server.owner_dsn)
            dsn = server.app_dsn
        database = await Database.connect(dsn, size=2)
        stack.push_async_callback(database.close)
        yield database


async def examine_database(database: Database) -> DatabaseFindings:
    """What `oneton doctor` uses."""
    return await ExamineDatabase(database)()


def load_pack_calibration(pack: PackFiles) -> Calibration:
    """The calibration of a pack's recogniser; SettingError when there is none."""
    return load_calibration(file_sha256(pack.recogniser))


def make_purge(parts: Parts) -> Purge:
    """What `oneton purge` uses; needs no model in memory."""
    return Purge(parts.galleries, parts.faces, parts.images)


def make_sweep(parts: Parts) -> Sweep:
    """What `oneton sweep` uses; needs no model in memory."""
    return Sweep(parts.tenants, parts.galleries, parts.faces, parts.images)


async def sweep_forever(verbs: Verbs, settings: Settings) -> None:
    """Sweep at once, then again and again, until cancelled."""
    while True:
        try:
            report = await verbs.sweep(timedelta(seconds=settings.sweep_grace_s))
            log.info(
                "swept",
                objects=report.objects,
                rows=report.rows,
                deleted=len(report.deleted),
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
        render_plugins=[page, JsonRenderPlugin(), YamlRenderPlugin()],
    )
