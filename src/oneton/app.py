"""Wire the verbs, make the HTTP application."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.static_files import create_static_files_router

from oneton import __version__
from oneton.biometrics.analyse import Analyser
from oneton.biometrics.packs import PackFiles
from oneton.domain.acting import Actor, act_as
from oneton.domain.addresses import read_networks
from oneton.domain.errors import OnetonError
from oneton.domain.watching import NO_WATCH, Watch
from oneton.edge import (
    cypherface,
    didit,
    face_verify,
    health,
    media,
    native,
    uqudo,
    veriflow,
)
from oneton.edge.origins import Origins
from oneton.edge.platform import Platform
from oneton.edge.requests import RequestLog, outcome_of
from oneton.indexing import Indexes, open_indexes
from oneton.models import make_analyser
from oneton.parts import (
    Parts,
    make_check_open,
    make_forget_merchant_user,
    make_forget_request,
    make_manage_webhooks,
    make_purge,
    make_read_audit,
    make_sweep,
    make_tidy,
)
from oneton.records.face_sessions import FaceSessions
from oneton.records.idempotency import Idempotency
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.lists import Lists
from oneton.records.liveness_sessions import LivenessSessions
from oneton.records.merchants import MerchantUsers as MerchantRecords
from oneton.records.merchants import Uploads
from oneton.records.news import HeadNews
from oneton.records.rates import Rates
from oneton.records.reindexing import Reindexing
from oneton.records.requests import Pictures
from oneton.records.signing_keys import SigningKeys
from oneton.records.usage import Usage
from oneton.records.vendor_users import RetainedTemplates, VendorUsers
from oneton.settings import Settings
from oneton.verbs.answer_once import AnswerOnce
from oneton.verbs.authenticate import Authenticate, CreateKey
from oneton.verbs.browse_faces import BrowseFaces
from oneton.verbs.catch_up import CatchUp
from oneton.verbs.check_health import CheckHealth
from oneton.verbs.count_usage import CountUsage
from oneton.verbs.enroll import Enroll
from oneton.verbs.enroll_request import EnrollRequest
from oneton.verbs.erase import Erase
from oneton.verbs.follow_jobs import FollowJobs
from oneton.verbs.follow_reindex import FollowReindex
from oneton.verbs.identify import Find, Identify
from oneton.verbs.keep_lists import KeepLists
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.keep_users import KeepUsers
from oneton.verbs.limit_rate import LimitRate
from oneton.verbs.load_model import LoadModel
from oneton.verbs.make_links import MakeLinks
from oneton.verbs.manage_galleries import ManageGalleries
from oneton.verbs.merchant_liveness import MerchantLiveness
from oneton.verbs.merchant_tokens import MerchantTokens
from oneton.verbs.merchant_uploads import MerchantUploads
from oneton.verbs.merchant_users import MerchantUsers
from oneton.verbs.merchants import Merchants
from oneton.verbs.run_face_sessions import RunFaceSessions
from oneton.verbs.saved_requests import SavedRequests
from oneton.verbs.screen import Screen
from oneton.verbs.show_usage import ShowUsage
from oneton.verbs.sign_results import SignResults
from oneton.verbs.spend_credit import SpendCredit
from oneton.verbs.sweep import Sweep
from oneton.verbs.tidy import Tidy
from oneton.verbs.verify import Verify

log = structlog.get_logger()

SWEEP_AFTER_S = 5.0
"""First the indexes are to load: a sweep reads every face record."""
SWEEP_AT_MOST = 100
"""Leftovers that a server deletes unasked, unless they are under a tenth of all objects."""
TIDY_EVERY_S = 60.0
"""What is due is erased so soon."""


DIALECTS = (uqudo, native, didit, veriflow, face_verify, cypherface)
Reply = Callable[[Request[Any, Any, Any], Exception], Response[Any]]
REPLIES: dict[str, Reply] = {
    "/v1/": native.reply_problem,
    "/v2/": veriflow.reply_error,
    "/v3/": didit.reply_error,
    **dict.fromkeys(face_verify.PREFIXES, face_verify.reply_error),
    **dict.fromkeys(cypherface.PREFIXES, cypherface.reply_error),
}
"""Whose an unknown path, or a wrong method, is; all others are uqudo's."""

MakeAnalyser = Callable[[PackFiles], Analyser]


@dataclass(frozen=True)
class Verbs:
    """Everything that an edge or a command may ask for."""

    platform: Platform
    catch_up: CatchUp
    indexes: Indexes
    load_model: LoadModel
    sweep: Sweep
    tidy: Tidy


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
        signing = {
            purpose: await parts.keys.signing_secret(purpose, secrets.token_bytes(32))
            for purpose in ("token", "media", "cypherface")
        }
        news = HeadNews(
            parts.database.dsn,
            indexes.catch_up.hear,
            indexes.keep_up.ask,
            indexes.catch_up.hear_closed,
        )
        verbs = _wire(settings, parts, load_model, indexes, signing)
        count_usage = verbs.platform.count_usage
        following = [asyncio.create_task(each.run()) for each in (news, count_usage)]
        try:
            yield verbs
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            with suppress(OnetonError):
                await count_usage.flush()


def _wire(
    settings: Settings,
    parts: Parts,
    load_model: LoadModel,
    indexes: Indexes,
    signing: dict[str, bytes],
) -> Verbs:
    cpu, catch_up = indexes.cpu, indexes.catch_up
    find = Find(catch_up, cpu, parts.faces)
    identify = Identify(load_model, catch_up, find, parts.trail, parts.searches_first)
    verify = Verify(load_model, parts.trail)
    enroll = Enroll(
        load_model,
        catch_up,
        find,
        parts.faces,
        parts.images,
        settings.sweep_grace_s / 2,
        parts.trail,
        parts.searches_first,
    )
    keep_picture = KeepPicture(Pictures(parts.database), parts.images, parts.trail)
    sign_results = SignResults(SigningKeys(parts.database), settings.public_url or "oneton")
    face_sessions = FaceSessions(parts.database)
    authenticate = Authenticate(parts.keys, signing["token"])
    spend_credit = SpendCredit(parts.tenants)
    platform = Platform(
        settings=settings,
        cpu=cpu,
        count_usage=CountUsage(Usage(parts.database)),
        show_usage=ShowUsage(Usage(parts.database)),
        authenticate=authenticate,
        check_health=CheckHealth(parts.database, parts.images),
        check_open=make_check_open(parts),
        identify=identify,
        screen=Screen(load_model, catch_up, find, parts.trail, parts.searches_first),
        enroll=enroll,
        enroll_request=EnrollRequest(enroll, parts.images),
        erase=Erase(parts.faces, parts.images),
        purge=make_purge(parts),
        verify=verify,
        browse_faces=BrowseFaces(parts.galleries, parts.faces, parts.images),
        manage_galleries=ManageGalleries(parts.galleries, indexes.packs),
        saved_requests=SavedRequests(parts.database, parts.images),
        forget_request=make_forget_request(parts),
        keep_picture=keep_picture,
        keep_lists=_make_keep_lists(parts, enroll, indexes),
        keep_users=KeepUsers(
            VendorUsers(parts.database),
            RetainedTemplates(parts.database),
            enroll,
            make_purge(parts),
        ),
        make_links=MakeLinks(
            signing["media"],
            parts.images,
            parts.trail,
            spend_credit.recent,
            settings.public_url,
        ),
        answer_once=AnswerOnce(Idempotency(parts.database), parts.trail),
        limit_rate=LimitRate(Rates(parts.database)),
        spend_credit=spend_credit,
        merchants=_make_merchants(
            settings, parts, authenticate, keep_picture, verify, signing["cypherface"]
        ),
        run_face_sessions=RunFaceSessions(
            face_sessions, keep_picture, verify, identify, enroll, sign_results
        ),
        sign_results=sign_results,
        manage_webhooks=make_manage_webhooks(settings, parts),
        follow_reindex=FollowReindex(Reindexing(parts.database), parts.model_packs),
        follow_jobs=FollowJobs(JobsOfTenants(parts.database)),
        audit=make_read_audit(parts),
    )
    return Verbs(
        platform=platform,
        catch_up=catch_up,
        indexes=indexes,
        load_model=load_model,
        sweep=make_sweep(parts),
        tidy=make_tidy(parts),
    )


def _make_merchants(
    settings: Settings,
    parts: Parts,
    authenticate: Authenticate,
    keep_picture: KeepPicture,
    verify: Verify,
    secret: bytes,
) -> Merchants:
    users = MerchantUsers(MerchantRecords(parts.database), parts.tenants, keep_picture, verify)
    return Merchants(
        tokens=MerchantTokens(
            authenticate,
            parts.tenants,
            CreateKey(parts.keys),
            secret,
            settings.cypherface_operator_secret,
        ),
        users=users,
        forget_user=make_forget_merchant_user(parts),
        uploads=MerchantUploads(
            Uploads(parts.database),
            authenticate,
            keep_picture,
            verify,
            secret,
            settings.cypherface_upload_life_s,
        ),
        liveness=MerchantLiveness(
            LivenessSessions(parts.database),
            users,
            keep_picture,
            verify,
            has_model=settings.liveness is not None,
        ),
    )


def _make_keep_lists(parts: Parts, enroll: Enroll, indexes: Indexes) -> KeepLists:
    return KeepLists(
        lists=Lists(parts.database),
        faces=parts.faces,
        images=parts.images,
        galleries=ManageGalleries(parts.galleries, indexes.packs),
        requests=SavedRequests(parts.database, parts.images),
        enroll=enroll,
        purge=make_purge(parts),
    )


async def sweep_forever(verbs: Verbs, settings: Settings) -> None:
    """Sweep and tidy soon, then again and again, until cancelled."""
    act_as(Actor("sweeper"))
    await asyncio.gather(_sweep_again(verbs, settings), _tidy_again(verbs.tidy))


async def _tidy_again(tidy: Tidy) -> None:
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        try:
            await tidy()
        except OnetonError as error:
            log.warning("tidying failed", error=str(error))


async def _sweep_again(verbs: Verbs, settings: Settings) -> None:
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
            report.tell(verbs.sweep.watch)
        except OnetonError as error:
            verbs.sweep.watch.count("sweeps", "failed")
            log.warning("sweeping failed", error=str(error))
        await asyncio.sleep(settings.sweep_interval_s)


def make_app(
    verbs: Verbs, watch: Watch = NO_WATCH, metrics: HTTPRouteHandler | None = None
) -> Litestar:
    """The HTTP application over wired verbs.

    Args:
        watch: told of every request.
        metrics: the handler of `/metrics`; None is without.
    """
    platform = verbs.platform

    def reply(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        answer = reply_by_path(request, error)
        if request.scope.get("route_handler") is None:
            # No route, so no middleware has met it.
            watch.count("requests", "none", "unknown", outcome_of(answer.status_code or 404))
        return answer

    def provide_check_health() -> CheckHealth:
        return platform.check_health

    def provide_make_links() -> MakeLinks:
        return platform.make_links

    trusted = read_networks(platform.settings.trusted_proxies or "")

    return Litestar(
        route_handlers=[
            health.livez,
            health.readyz,
            media.show_picture,
            *(() if metrics is None else (metrics,)),
            *(dialect.make_router(platform) for dialect in DIALECTS),
            create_static_files_router(
                path="/schema/assets",
                directories=[_swagger_ui_files()],
                include_in_schema=False,
            ),
        ],
        dependencies={
            "check_health": Provide(provide_check_health, sync_to_thread=False),
            "make_links": Provide(provide_make_links, sync_to_thread=False),
        },
        exception_handlers={Exception: reply},
        middleware=[
            DefineMiddleware(Origins, trusted=trusted),
            DefineMiddleware(RequestLog, watch=watch),
        ],
        state=State({"didit_401": platform.settings.didit_401}),
        openapi_config=_openapi_config(),
        logging_config=None,
    )


def reply_by_path(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Put an error that no dialect's route met into the form of the dialect that is asked."""
    for prefix, reply in REPLIES.items():
        if request.url.path.startswith(prefix):
            return reply(request, error)
    return uqudo.reply_error(request, error)


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
                "token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
                "basic": SecurityScheme(type="http", scheme="basic"),
                "apiKey": SecurityScheme(
                    type="apiKey", name="x-api-key", security_scheme_in="header"
                ),
                "merchantToken": SecurityScheme(
                    type="apiKey", name="authorization", security_scheme_in="header"
                ),
            }
        ),
        render_plugins=[page, JsonRenderPlugin(), YamlRenderPlugin()],
    )
