"""Start the parts that keep records and images; wire the verbs that need no model in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from oneton.biometrics.calibration import Calibration, load_calibration
from oneton.biometrics.packs import PackFiles
from oneton.images import ObjectStore
from oneton.images.files import FileStore
from oneton.models import read_pack
from oneton.records.database import Database
from oneton.records.embedded import EmbeddedPostgres
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.migrate import migrate
from oneton.records.model_packs import ModelPacks
from oneton.records.reindexing import Reindexing
from oneton.records.tenants import Keys, Tenants
from oneton.settings import Settings
from oneton.verbs.authenticate import CreateKey
from oneton.verbs.create_tenant import CreateTenant
from oneton.verbs.examine_database import DatabaseFindings, ExamineDatabase
from oneton.verbs.load_model import FindPack
from oneton.verbs.purge import Purge
from oneton.verbs.reindex import Reindex
from oneton.verbs.sweep import Sweep

if TYPE_CHECKING:
    from oneton.verbs.add_pack import AddPack, RemovePack


@dataclass(frozen=True)
class Parts:
    """The parts that settings choose, started."""

    database: Database
    images: ObjectStore
    tenants: Tenants
    keys: Keys
    galleries: Galleries
    faces: Faces
    model_packs: ModelPacks


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


def make_image_store(settings: Settings) -> ObjectStore:
    """Files, or the S3 store that settings name."""
    if settings.s3_endpoint is None:
        return FileStore(settings.data_dir / "images")
    assert settings.s3_access_key is not None and settings.s3_secret_key is not None
    from oneton.images.s3 import S3Store  # noqa: PLC0415 - a fifth of a second that files spare

    return S3Store(
        settings.s3_endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )


def find_pack(settings: Settings) -> PackFiles:
    """The model pack that settings name, its files checked."""
    return read_pack(settings, settings.model_pack)


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


async def open_find_pack(settings: Settings, parts: Parts) -> FindPack:
    """The packs on this machine, that of the settings registered."""
    own = await anyio.to_thread.run_sync(find_pack, settings)
    number = await parts.model_packs.number(own.pack)
    return FindPack(parts.model_packs, partial(read_pack, settings), (number, own))


def load_pack_calibration(pack: PackFiles) -> Calibration:
    """The calibration of a pack's recogniser; SettingError when there is none."""
    return load_calibration(pack.recogniser_sha256, pack.folder)


def make_add_pack(settings: Settings, parts: Parts) -> AddPack:
    """What `oneton models add` uses."""
    from oneton.verbs.add_pack import AddPack  # noqa: PLC0415 - imports what only it needs

    return AddPack(parts.model_packs, settings.data_dir / "models")


def make_remove_pack(settings: Settings, parts: Parts) -> RemovePack:
    """What `oneton models remove` uses."""
    from oneton.verbs.add_pack import RemovePack  # noqa: PLC0415

    return RemovePack(parts.model_packs, settings.data_dir / "models")


def verify_installed(settings: Settings, name: str) -> PackFiles:
    """What `oneton models verify` uses."""
    from oneton.verbs.add_pack import verify_pack  # noqa: PLC0415

    return verify_pack(read_pack(settings, name))


async def make_reindex(settings: Settings, parts: Parts) -> Reindex:
    """What `oneton reindex` uses."""
    return Reindex(
        parts.tenants,
        parts.galleries,
        parts.model_packs,
        Reindexing(parts.database),
        await open_find_pack(settings, parts),
    )


def make_purge(parts: Parts) -> Purge:
    """What `oneton purge` uses; needs no model in memory."""
    return Purge(parts.galleries, parts.faces, parts.images, Reindexing(parts.database))


def make_sweep(parts: Parts) -> Sweep:
    """What `oneton sweep` uses; needs no model in memory."""
    return Sweep(parts.tenants, parts.galleries, parts.faces, parts.images)
