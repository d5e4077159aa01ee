"""Everything that a dialect may translate to."""

from __future__ import annotations

from dataclasses import dataclass

from oneton.settings import Settings
from oneton.verbs.answer_once import AnswerOnce
from oneton.verbs.authenticate import Authenticate
from oneton.verbs.browse_faces import BrowseFaces
from oneton.verbs.check_health import CheckHealth
from oneton.verbs.check_open import CheckOpen
from oneton.verbs.count_usage import CountUsage
from oneton.verbs.cpu import Cpu
from oneton.verbs.enroll import Enroll
from oneton.verbs.enroll_request import EnrollRequest
from oneton.verbs.erase import Erase
from oneton.verbs.follow_jobs import FollowJobs
from oneton.verbs.follow_reindex import FollowReindex
from oneton.verbs.forget_request import ForgetRequest
from oneton.verbs.identify import Identify
from oneton.verbs.keep_lists import KeepLists
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.keep_users import KeepUsers
from oneton.verbs.limit_rate import LimitRate
from oneton.verbs.make_links import MakeLinks
from oneton.verbs.manage_galleries import ManageGalleries
from oneton.verbs.manage_webhooks import ManageWebhooks
from oneton.verbs.merchants import Merchants
from oneton.verbs.purge import Purge
from oneton.verbs.read_audit import ReadAudit
from oneton.verbs.run_face_sessions import RunFaceSessions
from oneton.verbs.saved_requests import SavedRequests
from oneton.verbs.screen import Screen
from oneton.verbs.show_usage import ShowUsage
from oneton.verbs.sign_results import SignResults
from oneton.verbs.spend_credit import SpendCredit
from oneton.verbs.verify import Verify


@dataclass(frozen=True)
class Platform:
    """The verbs, and the settings that a dialect reads its own switches from."""

    settings: Settings
    cpu: Cpu
    count_usage: CountUsage
    show_usage: ShowUsage
    authenticate: Authenticate
    check_health: CheckHealth
    check_open: CheckOpen
    identify: Identify
    screen: Screen
    enroll: Enroll
    enroll_request: EnrollRequest
    erase: Erase
    purge: Purge
    verify: Verify
    browse_faces: BrowseFaces
    manage_galleries: ManageGalleries
    saved_requests: SavedRequests
    forget_request: ForgetRequest
    keep_picture: KeepPicture
    keep_lists: KeepLists
    keep_users: KeepUsers
    make_links: MakeLinks
    answer_once: AnswerOnce
    limit_rate: LimitRate
    spend_credit: SpendCredit
    merchants: Merchants
    run_face_sessions: RunFaceSessions
    sign_results: SignResults
    follow_reindex: FollowReindex
    manage_webhooks: ManageWebhooks
    follow_jobs: FollowJobs
    audit: ReadAudit
