"""Start the parts that keep records and images; wire the verbs that need no model in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from oneton.biometrics.calibration import Calibration, load_calibration
from oneton.biometrics.packs import PackFiles
from oneton.domain.watching import NO_WATCH, Watch
from oneton.images import ObjectStore
from oneton.images.files import FileStore
from oneton.images.watched import WatchedStore
from oneton.models import read_pack
from oneton.records.audit import Audit
from oneton.records.clock import PostgresClock
from oneton.records.database import Database
from oneton.records.deletion import Deletion
from oneton.records.duplicates import EnrolledFaces
from oneton.records.embedded import EmbeddedPostgres
from oneton.records.exports import Exports
from oneton.records.face_expiries import FaceExpiries
from oneton.records.face_sessions import FaceSessions
from oneton.records.faces import Faces
from oneton.records.galleries import Galleries
from oneton.records.idempotency import Idempotency
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.locks import Locks
from oneton.records.merchants import MerchantUsers
from oneton.records.migrate import migrate
from oneton.records.model_packs import ModelPacks
from oneton.records.outbox import Outbox, WebhookEndpoints
from oneton.records.reindexing import Reindexing
from oneton.records.requests import Pictures
from oneton.records.retention import Retention
from oneton.records.template_seals import TemplateSeals, refuse_keys
from oneton.records.tenant_deletions import TenantDeletions
from oneton.records.tenants import Keys, Tenants
from oneton.records.trail import Trail
from oneton.records.usage import Usage
from oneton.sending.address import Addresses
from oneton.settings import Settings
from oneton.verbs.authenticate import CreateKey
from oneton.verbs.change_tenant import ChangeTenant
from oneton.verbs.check_open import CheckOpen
from oneton.verbs.create_tenant import CreateTenant
from oneton.verbs.delete_tenant import DeleteTenant, EraseTenant, ForgetTenants
from oneton.verbs.do_jobs import DoJobs
from oneton.verbs.erase import Erase
from oneton.verbs.erase_due import EraseDue
from oneton.verbs.examine_database import DatabaseFindings, ExamineDatabase
from oneton.verbs.expire_face_sessions import ExpireFaceSessions
from oneton.verbs.forget_deliveries import ForgetDeliveries
from oneton.verbs.forget_merchant_user import ForgetMerchantUser
from oneton.verbs.forget_request import ForgetRequest
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.limit_tenant import LimitTenant
from oneton.verbs.load_model import FindPack
from oneton.verbs.manage_webhooks import ManageWebhooks
from oneton.verbs.purge import Purge
from oneton.verbs.purge_expired import PurgeExpired
from oneton.verbs.read_audit import ReadAudit
from oneton.verbs.reindex import Reindex
from oneton.verbs.saved_requests import SavedRequests
from oneton.verbs.searches_first import SearchesFirst
from oneton.verbs.show_usage import ShowUsage
from oneton.verbs.sweep import Sweep
from oneton.verbs.tidy import Tidy
from oneton.verbs.watch_clock import WatchClock

if TYPE_CHECKING:
    from oneton.images.encrypted import EncryptedStore
    from oneton.records.encryption import Encryption
    from oneton.records.tenant_keys import TenantKeys
    from oneton.verbs.add_pack import AddPack, RemovePack
    from oneton.verbs.deliver_webhooks import DeliverWebhooks
    from oneton.verbs.export_gallery import ExportGallery
    from oneton.verbs.export_subject import ExportSubject
    from oneton.verbs.find_subject import FindSubject
    from oneton.verbs.manage_encryption import ManageEncryption
    from oneton.verbs.purge_subject import PurgeSubject
    from oneton.verbs.rotate_signing import RotateSigning
    from oneton.verbs.seal_anew import SealAnew


@dataclass(frozen=True)
class Sealing:
    """What there is more when encryption is on."""

    keys: TenantKeys
    encryption: Encryption
    store: EncryptedStore


@dataclass(frozen=True)
class Parts:
    """The parts that settings choose, started.

    Attributes:
        images: what everybody reads and writes through.
        objects: the store below it, whose bytes are as they lie there.
        watch: told of what is done.
        sealing: None where encryption is off.
        searches_first: what the searches and the changes of this process have in common.
    """

    watch: Watch = field(default=NO_WATCH, kw_only=True)
    sealing: Sealing | None = field(default=None, kw_only=True)
    searches_first: SearchesFirst = field(kw_only=True)
    database: Database
    images: ObjectStore
    objects: ObjectStore
    tenants: Tenants
    keys: Keys
    galleries: Galleries
    faces: Faces
    model_packs: ModelPacks
    trail: Trail


@asynccontextmanager
async def open_database(settings: Settings, watch: Watch = NO_WATCH) -> AsyncIterator[Database]:
    """The database that settings name, migrated; without one, our own server."""
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            server = await stack.enter_async_context(_own_server(settings))
            app_dsn, owner_dsn = server.app_dsn, server.owner_dsn
        else:
            app_dsn = settings.database_url
            owner_dsn = settings.database_owner_url or app_dsn
        await migrate(owner_dsn)
        database = await Database.connect(app_dsn, size=settings.database_pool_size, watch=watch)
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


@asynccontextmanager
async def open_owner_dsn(settings: Settings) -> AsyncIterator[str]:
    """Where the role that owns the schema logs in; nothing is migrated."""
    if settings.database_url is not None:
        yield settings.database_owner_url or settings.database_url
        return
    async with _own_server(settings) as server:
        yield server.owner_dsn


@asynccontextmanager
async def find_owner(settings: Settings) -> AsyncIterator[str]:
    """The URL of the login that owns the tables, migrated; our own server runs meanwhile."""
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            owner_dsn = (await stack.enter_async_context(_own_server(settings))).owner_dsn
        else:
            owner_dsn = settings.database_owner_url or settings.database_url
        await migrate(owner_dsn)
        yield owner_dsn


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
async def open_parts(settings: Settings, watch: Watch = NO_WATCH) -> AsyncIterator[Parts]:
    """Start what keeps records and images; stop on leaving what was started."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings, watch))
        images = WatchedStore(make_image_store(settings), watch)
        stack.push_async_callback(images.close)
        await images.check()
        sealing = await _open_sealing(settings, database, images)
        trail = Trail(database, searches=settings.audit_searches)
        trail.start()
        stack.push_async_callback(trail.close)
        yield Parts(
            database,
            images if sealing is None else sealing.store,
            images,
            Tenants(database),
            Keys(database),
            Galleries(database),
            Faces(database),
            ModelPacks(database),
            trail,
            watch=watch,
            sealing=sealing,
            searches_first=SearchesFirst(settings.cpu_threads),
        )


async def _open_sealing(
    settings: Settings, database: Database, objects: ObjectStore
) -> Sealing | None:
    """What encrypts, and the database told of it; None where it is off."""
    if settings.master_key is None:
        await refuse_keys(database)
        return None
    # A tenth of a second that is spared where it is off.
    from oneton.images.encrypted import EncryptedStore  # noqa: PLC0415
    from oneton.records.encryption import Encryption  # noqa: PLC0415
    from oneton.records.tenant_keys import (  # noqa: PLC0415
        TenantKeys,
        Wrapping,
        check_master_key,
    )

    wrapping = Wrapping(settings.master_key)
    await check_master_key(database, wrapping)
    keys = TenantKeys(database, wrapping)
    database.seals = TemplateSeals(keys)
    return Sealing(keys, Encryption(database, keys, wrapping), EncryptedStore(objects, keys))


async def examine_encryption(settings: Settings, database: Database) -> str:
    """What `oneton doctor` says; SettingError when the master key does not fit."""
    found = await database.fetch("select to_regprocedure('oneton_wrapped_keys(integer)') as known")
    if found[0]["known"] is None:
        return "not looked at: migrations are not applied"
    if settings.master_key is None:
        await refuse_keys(database)
        return "off: images and templates are stored as they are"
    from oneton.records.tenant_keys import Wrapping, check_master_key  # noqa: PLC0415

    await check_master_key(database, Wrapping(settings.master_key))
    return "on, and the master key opens the tenants' keys; oneton encryption status says more"


def make_check_open(parts: Parts) -> CheckOpen:
    """What guards use."""
    return CheckOpen(None if parts.sealing is None else parts.sealing.keys)


def make_manage_encryption(settings: Settings, parts: Parts) -> ManageEncryption:
    """What `oneton encryption` uses."""
    from oneton.verbs.manage_encryption import ManageEncryption  # noqa: PLC0415

    encryption = None if parts.sealing is None else parts.sealing.encryption
    return ManageEncryption(encryption, parts.objects, settings.index_dir)


def make_seal_anew(settings: Settings, parts: Parts, locks: Locks) -> SealAnew | None:
    """What workers do where encryption is on."""
    from oneton.images.scratch import FOLDER  # noqa: PLC0415
    from oneton.verbs.seal_anew import SealAnew  # noqa: PLC0415

    if (on := parts.sealing) is None:
        return None
    return SealAnew(
        on.encryption,
        on.keys,
        on.store,
        locks,
        settings.index_dir / FOLDER,
        grace_s=settings.sweep_grace_s,
        clock=WatchClock(PostgresClock(parts.database)),
    )


def make_rotate_signing(parts: Parts) -> RotateSigning:
    """What `oneton key rotate-signing` uses."""
    from oneton.records.signing_keys import SigningKeys  # noqa: PLC0415
    from oneton.verbs.rotate_signing import RotateSigning  # noqa: PLC0415

    return RotateSigning(SigningKeys(parts.database))


def make_expire_face_sessions(parts: Parts) -> ExpireFaceSessions:
    """What servers and workers use, every minute."""
    keep_picture = KeepPicture(Pictures(parts.database), parts.images)
    return ExpireFaceSessions(FaceSessions(parts.database), keep_picture)


async def make_tenant_maker(settings: Settings, parts: Parts) -> CreateTenant:
    """What `oneton tenant create` and the first start use; needs no model in memory."""
    pack = find_pack(settings)
    return CreateTenant(parts.tenants, await parts.model_packs.number(pack.pack))


def make_change_tenant(parts: Parts) -> ChangeTenant:
    """What `oneton tenant retention` and `oneton tenant credits` use."""
    return ChangeTenant(parts.tenants, Retention(parts.database), Audit(parts.database))


def make_limit_tenant(parts: Parts) -> LimitTenant:
    """What `oneton tenant quota` uses."""
    return LimitTenant(parts.tenants, Usage(parts.database))


def make_show_usage(parts: Parts) -> ShowUsage:
    """What dialects and `oneton usage` use."""
    return ShowUsage(Usage(parts.database))


def make_forget_merchant_user(parts: Parts) -> ForgetMerchantUser:
    """What `oneton merchant-user delete` uses; needs no model in memory."""
    keep_picture = KeepPicture(Pictures(parts.database), parts.images)
    return ForgetMerchantUser(MerchantUsers(parts.database), keep_picture)


def make_do_jobs(parts: Parts, locks: Locks) -> DoJobs:
    """What workers do for tenants; needs no model in memory."""
    jobs = JobsOfTenants(parts.database)
    deletion = Deletion(parts.database, jobs)
    erase = make_erase_tenant(parts)
    return DoJobs(jobs, deletion, parts.images, locks, erase, watch=parts.watch)


def make_erase_tenant(parts: Parts) -> EraseTenant:
    """The steps that a deleted tenant is erased by."""
    return EraseTenant(TenantDeletions(parts.database), parts.images)


def make_delete_tenant(parts: Parts) -> DeleteTenant:
    """What `oneton tenant delete` uses; needs no model in memory."""
    deletions = TenantDeletions(parts.database)
    return DeleteTenant(deletions, make_erase_tenant(parts), Locks(parts.database))


def make_erase_due(parts: Parts) -> EraseDue:
    """Erases what was kept for long enough."""
    return EraseDue(Retention(parts.database), parts.images)


def make_purge_expired(parts: Parts) -> PurgeExpired:
    """Purges what outlived the call that enrolled it for long enough."""
    return PurgeExpired(FaceExpiries(parts.database), make_purge(parts), Audit(parts.database))


def make_tidy(parts: Parts) -> Tidy:
    """What a server does every minute."""
    chores = (
        make_erase_due(parts),
        make_purge_expired(parts),
        make_expire_face_sessions(parts),
        ForgetDeliveries(Outbox(parts.database)),
        ForgetTenants(TenantDeletions(parts.database), make_erase_tenant(parts)),
    )
    return Tidy(Locks(parts.database), chores)


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


def make_manage_webhooks(settings: Settings, parts: Parts) -> ManageWebhooks:
    """What dialects and `oneton webhook` use."""
    return ManageWebhooks(
        WebhookEndpoints(parts.database),
        Outbox(parts.database),
        Addresses(private=settings.webhook_private_addresses),
    )


@asynccontextmanager
async def open_deliver_webhooks(settings: Settings, parts: Parts) -> AsyncIterator[DeliverWebhooks]:
    """What workers and `oneton webhook test` use."""
    from oneton.sending.http import Sender  # noqa: PLC0415 - imports what only they need
    from oneton.verbs.deliver_webhooks import DeliverWebhooks  # noqa: PLC0415

    sender = Sender(Addresses(private=settings.webhook_private_addresses))
    try:
        yield DeliverWebhooks(
            Outbox(parts.database),
            sender,
            sign_veriflow=settings.veriflow_webhook_signed,
            watch=parts.watch,
        )
    finally:
        await sender.close()


def make_purge(parts: Parts) -> Purge:
    """What `oneton purge` uses; needs no model in memory."""
    return Purge(
        parts.galleries,
        parts.faces,
        parts.images,
        Reindexing(parts.database),
        Idempotency(parts.database),
        parts.searches_first,
    )


def make_forget_request(parts: Parts) -> ForgetRequest:
    """What dialects use; needs no model in memory."""
    return ForgetRequest(
        SavedRequests(parts.database, parts.images),
        parts.faces,
        Erase(parts.faces, parts.images),
        make_purge(parts),
        FaceExpiries(parts.database),
        Audit(parts.database),
    )


def make_find_subject(parts: Parts) -> FindSubject:
    """What `oneton subject` uses; needs no model in memory."""
    from oneton.records.subjects import Subjects  # noqa: PLC0415
    from oneton.verbs.find_subject import FindSubject  # noqa: PLC0415

    return FindSubject(Subjects(parts.database), Audit(parts.database), Idempotency(parts.database))


def make_export_subject(parts: Parts) -> ExportSubject:
    """What `oneton subject export` uses."""
    from oneton.verbs.export_subject import ExportSubject  # noqa: PLC0415

    return ExportSubject(parts.images, Audit(parts.database))


def make_purge_subject(parts: Parts) -> PurgeSubject:
    """What `oneton subject purge` uses."""
    from oneton.records.lists import Lists  # noqa: PLC0415
    from oneton.records.vendor_users import VendorUsers  # noqa: PLC0415
    from oneton.verbs.purge_subject import PurgeSubject  # noqa: PLC0415

    return PurgeSubject(
        make_purge(parts),
        make_forget_request(parts),
        make_forget_merchant_user(parts),
        Lists(parts.database),
        VendorUsers(parts.database),
        FaceExpiries(parts.database),
        Audit(parts.database),
        Idempotency(parts.database),
    )


def make_read_audit(parts: Parts) -> ReadAudit:
    """What `oneton audit` and the native API use."""
    return ReadAudit(Audit(parts.database))


def make_export_gallery(parts: Parts) -> ExportGallery:
    """What `oneton export` uses; needs no model in memory."""
    from oneton.verbs.export_gallery import ExportGallery  # noqa: PLC0415

    return ExportGallery(
        Exports(parts.database),
        parts.galleries,
        parts.faces,
        EnrolledFaces(parts.database),
        parts.model_packs,
        parts.images,
        Audit(parts.database),
    )


def make_sweep(parts: Parts) -> Sweep:
    """What `oneton sweep` uses; needs no model in memory."""
    return Sweep(
        parts.tenants,
        parts.galleries,
        parts.faces,
        Pictures(parts.database),
        JobsOfTenants(parts.database),
        parts.images,
        clock=WatchClock(PostgresClock(parts.database)),
        watch=parts.watch,
    )
