"""Keys that expire, that are good from some addresses only, and of tenants that are suspended."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from oneton.domain.acting import Actor, acting_as
from oneton.domain.errors import (
    ConflictError,
    ElsewhereError,
    ExpiredKeyError,
    OnetonError,
    SuspendedError,
    UnauthenticatedError,
)
from oneton.domain.model import Key, Permission
from oneton.records.audit import Audit
from oneton.records.database import Database
from oneton.records.tenant_deletions import TenantDeletions
from oneton.records.tenants import Keys, Tenants
from oneton.verbs import authenticate as authenticate_module
from oneton.verbs.authenticate import Authenticate, CreateKey
from tests.records.conftest import House

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32
HERE = Actor("caller", "203.0.113.9")
THERE = Actor("caller", "198.51.100.1")


async def refused(authenticate: Authenticate, key: Key, secret: str, token: str) -> list[type]:
    """What each way to come with a key is refused with."""
    ways: list[Callable[[], object]] = [
        lambda: authenticate.issue(str(key.key_id), secret),
        lambda: authenticate.check(token),
        lambda: authenticate.check_secret(secret),
        lambda: authenticate.check_key(key.key_id),
        lambda: authenticate.check_pair(str(key.key_id), secret),
    ]
    found: list[type] = []
    for way in ways:
        try:
            await way()  # type: ignore[misc]
        except OnetonError as error:
            found.append(type(error))
        else:
            found.append(type(None))
    return found


async def test_an_expired_key_is_refused_whatever_is_remembered_of_it(
    house: House, database: Database
) -> None:
    keys, now_s = Keys(database), [time.time()]
    key, secret = await CreateKey(keys)(
        house.tenant.tenant_id,
        label="",
        permissions=[Permission.SEARCH],
        expires_at=datetime.fromtimestamp(now_s[0], UTC) + timedelta(seconds=100),
    )
    authenticate = Authenticate(keys, SECRET, clock=lambda: now_s[0])
    token = (await authenticate.issue(str(key.key_id), secret)).text
    assert set(await refused(authenticate, key, secret, token)) == {type(None)}
    now_s[0] += 101
    assert set(await refused(authenticate, key, secret, token)) == {ExpiredKeyError}
    with pytest.raises(UnauthenticatedError):
        await authenticate.issue(str(key.key_id), "wrong")


async def test_a_key_is_refused_from_another_address(house: House, database: Database) -> None:
    keys = Keys(database)
    key, secret = await CreateKey(keys)(
        house.tenant.tenant_id,
        label="",
        permissions=[Permission.SEARCH],
        addresses=["203.0.113.0/24", "2001:db8::1"],
    )
    assert key.addresses == ("203.0.113.0/24", "2001:db8::1/128")
    assert (await keys.list(house.tenant.tenant_id))[0] == key
    authenticate = Authenticate(keys, SECRET)
    with acting_as(HERE):
        token = (await authenticate.issue(str(key.key_id), secret)).text
        assert set(await refused(authenticate, key, secret, token)) == {type(None)}
    for who in (THERE, Actor("caller")):
        with acting_as(who):
            assert set(await refused(authenticate, key, secret, token)) == {ElsewhereError}
            assert await authenticate.check_key(key.key_id, from_anywhere=True)


async def test_a_suspended_tenants_keys_are_refused_until_it_is_resumed(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticate_module, "KEY_HOLDS_S", 0.0)
    keys, tenants, tenant = Keys(database), Tenants(database), house.tenant.tenant_id
    key, secret = await CreateKey(keys)(tenant, label="", permissions=[])
    authenticate = Authenticate(keys, SECRET)
    token = (await authenticate.issue(str(key.key_id), secret)).text
    assert await tenants.suspend(tenant, suspended=True)
    assert not await tenants.suspend(tenant, suspended=True)
    assert (await tenants.read(tenant)).suspended_at is not None
    assert set(await refused(authenticate, key, secret, token)) == {SuspendedError}
    assert await tenants.suspend(tenant, suspended=False)
    assert set(await refused(authenticate, key, secret, token)) == {type(None)}
    assert (await tenants.read(house.other.tenant_id)).suspended_at is None
    await TenantDeletions(database).begin(tenant, "operator test")
    assert set(await refused(authenticate, key, secret, token)) == {SuspendedError}
    with pytest.raises(ConflictError):
        await tenants.suspend(tenant, suspended=False)


async def test_what_is_done_to_keys_and_tenants_is_noted(house: House, database: Database) -> None:
    keys, tenant = Keys(database), house.tenant.tenant_id
    with acting_as(Actor("operator ada")):
        key, secret = await CreateKey(keys)(tenant, label="x", permissions=[Permission.READ])
        await keys.revoke(tenant, key.key_id)
        await keys.revoke(tenant, key.key_id)
        await Tenants(database).suspend(tenant, suspended=True)
    events = (await Audit(database).page(tenant, limit=10))[:3]
    assert [each.action for each in events] == ["tenant suspended", "key revoked", "key created"]
    assert {each.actor for each in events} == {"operator ada"}
    assert str(key.key_id) in bytes(events[2].details).decode()
    assert secret not in bytes(events[2].details).decode()
