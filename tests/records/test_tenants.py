"""Tenants, keys, and who a token belongs to."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import jwt
import pytest

from oneton.domain.errors import ConflictError, NotFoundError, UnauthenticatedError
from oneton.domain.model import DEFAULT_GALLERY, Permission
from oneton.records.database import Database
from oneton.records.tenants import Keys, Tenants
from oneton.verbs import authenticate as authenticate_module
from oneton.verbs.authenticate import Authenticate, CreateKey
from tests.records.conftest import House

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32


async def test_a_tenants_name_is_taken_once(house: House, database: Database) -> None:
    tenants = Tenants(database)
    with pytest.raises(ConflictError):
        await tenants.create("one", DEFAULT_GALLERY, 1)
    assert [each.name for each in await tenants.list()] == ["one", "other"]
    with pytest.raises(NotFoundError):
        await tenants.named("nobody")


async def test_a_key_gives_a_token_that_names_its_tenant(house: House, database: Database) -> None:
    keys = Keys(database)
    key, secret = await CreateKey(keys)(
        house.tenant.tenant_id, label="test", permissions=[Permission.SEARCH]
    )
    authenticate = Authenticate(keys, SECRET)
    token = await authenticate.issue(str(key.key_id), secret)
    principal = await authenticate.check(token.text)
    assert principal.tenant_id == house.tenant.tenant_id
    assert principal.permissions == {Permission.SEARCH}


async def test_a_secret_is_stored_as_a_hash_only(house: House, database: Database) -> None:
    keys = Keys(database)
    key, secret = await CreateKey(keys)(house.tenant.tenant_id, label="", permissions=[])
    (row,) = await database.fetch("select * from oneton_key($1)", key.key_id)
    assert secret not in str(dict(row))
    assert secret.encode() not in bytes(row["secret_sha256"])


@pytest.mark.parametrize("client", ["wrong secret", "unknown id", "no id"])
async def test_bad_credentials_are_refused(house: House, database: Database, client: str) -> None:
    keys = Keys(database)
    key, secret = await CreateKey(keys)(house.tenant.tenant_id, label="", permissions=[])
    asked = {
        "wrong secret": (str(key.key_id), secret + "x"),
        "unknown id": (str(uuid4()), secret),
        "no id": ("", secret),
    }[client]
    with pytest.raises(UnauthenticatedError):
        await Authenticate(keys, SECRET).issue(*asked)


async def test_revoking_a_key_ends_its_tokens(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys(database)
    key, secret = await CreateKey(keys)(house.tenant.tenant_id, label="", permissions=[])
    authenticate = Authenticate(keys, SECRET)
    token = await authenticate.issue(str(key.key_id), secret)
    with pytest.raises(NotFoundError):
        await keys.revoke(house.other.tenant_id, key.key_id)
    assert await authenticate.check(token.text)
    await keys.revoke(house.tenant.tenant_id, key.key_id)
    monkeypatch.setattr(authenticate_module, "KEY_HOLDS_S", 0.0)
    with pytest.raises(UnauthenticatedError):
        await authenticate.check(token.text)
    with pytest.raises(UnauthenticatedError):
        await authenticate.issue(str(key.key_id), secret)


@pytest.mark.parametrize("forgery", ["other secret", "no signature", "expired", "text"])
async def test_a_forged_or_expired_token_is_refused(
    house: House, database: Database, forgery: str
) -> None:
    keys = Keys(database)
    key, _ = await CreateKey(keys)(house.tenant.tenant_id, label="", permissions=[])
    claims = {"iss": "oneton", "sub": str(key.key_id), "exp": 4_000_000_000}
    token = {
        "other secret": jwt.encode(claims, b"x" * 32, algorithm="HS256"),
        "no signature": jwt.encode(claims, None, algorithm="none"),  # type: ignore[arg-type]
        "expired": jwt.encode({**claims, "exp": 1}, SECRET, algorithm="HS256"),
        "text": "a.b.c",
    }[forgery]
    with pytest.raises(UnauthenticatedError):
        await Authenticate(keys, SECRET).check(token)


async def test_replicas_agree_on_one_signing_secret(database: Database) -> None:
    keys = Keys(database)
    read = await asyncio.gather(
        *(keys.signing_secret("token", bytes([number]) * 32) for number in range(8))
    )
    assert len(set(read)) == 1
