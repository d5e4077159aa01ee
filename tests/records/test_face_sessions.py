"""Face sessions and signing keys in a real Postgres: attempts, results, time and tenants."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import jwt
import msgspec
import pytest

from oneton.domain.errors import NotFoundError
from oneton.domain.face_sessions import (
    SESSION_LIFE,
    FaceSession,
    SessionId,
    SessionImage,
    SigningKey,
)
from oneton.domain.model import TenantId
from oneton.domain.requests import PictureId
from oneton.images.files import FileStore
from oneton.records.database import Database
from oneton.records.face_sessions import FaceSessions
from oneton.records.requests import Pictures
from oneton.records.signing_keys import SigningKeys
from oneton.verbs.expire_face_sessions import ExpireFaceSessions
from oneton.verbs.keep_picture import KeepPicture
from oneton.verbs.rotate_signing import RotateSigning
from oneton.verbs.sign_results import PUBLISHED, SignResults
from tests.records.conftest import House

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
JPEG = b"\xff\xd8\xff picture"
SECOND = timedelta(seconds=1)


class Bench(msgspec.Struct):
    """The parts, and a session of the first tenant's."""

    sessions: FaceSessions
    keep_picture: KeepPicture
    store: FileStore
    tenant: TenantId
    other: TenantId
    key_id: UUID
    session: FaceSession

    async def add(self, tenant: TenantId, key_id: UUID, now: datetime = NOW) -> FaceSession:
        photo = await self.keep_picture(tenant, JPEG, "image/jpeg", keep=SESSION_LIFE)
        made = FaceSession(
            session_id=SessionId(uuid4()),
            tenant_id=tenant,
            key_id=key_id,
            picture_id=photo.picture_id,
            attempts=0,
            max_attempts=None,
            result=None,
            expires_at=now + SESSION_LIFE,
        )
        await self.sessions.add(tenant, made, now)
        return made

    async def claim(self, most: int = 3, now: datetime = NOW) -> FaceSession | None:
        return await self.sessions.claim(
            self.tenant, self.key_id, self.session.session_id, most, now
        )

    async def finish(self, result: str, *, matched: bool, now: datetime = NOW) -> bool:
        selfie = await self.keep_picture(self.tenant, JPEG, "image/jpeg", keep=None)
        image = SessionImage(
            picture_id=selfie.picture_id,
            tenant_id=self.tenant,
            key_id=self.key_id,
            session_id=self.session.session_id,
            jti=uuid4(),
            expires_at=now + timedelta(minutes=30),
        )
        return await self.sessions.finish(image, result, now, matched=matched)

    async def keys(self) -> list[str]:
        return [each.key async for each in self.store.list()]


@pytest.fixture
async def bench(house: House, database: Database, tmp_path: Path) -> Bench:
    store = FileStore(tmp_path / "images")
    made = Bench(
        FaceSessions(database),
        KeepPicture(Pictures(database), store),
        store,
        house.tenant.tenant_id,
        house.other.tenant_id,
        uuid4(),
        None,  # type: ignore[arg-type]
    )
    made.session = await made.add(made.tenant, made.key_id)
    # The other tenant's rows are always there.
    await made.add(made.other, uuid4())
    return made


async def test_claims_at_once_are_counted_one_by_one(bench: Bench) -> None:
    claimed = await asyncio.gather(*(bench.claim(3) for _ in range(8)))
    assert sorted(each.attempts for each in claimed if each is not None) == [1, 2, 3]


async def test_the_first_claim_says_how_many_there_are(bench: Bench) -> None:
    first = await bench.claim(1)
    assert first is not None
    assert first.max_attempts == 1
    assert await bench.claim(3) is None


async def test_an_attempt_that_is_given_back_can_be_claimed_again(bench: Bench) -> None:
    assert await bench.claim(1)
    await bench.sessions.give_back(bench.tenant, bench.session.session_id)
    assert await bench.claim(1)
    assert await bench.claim(1) is None


async def test_a_match_outdoes_a_mismatch_and_nothing_outdoes_a_match(bench: Bench) -> None:
    assert await bench.finish("mismatch", matched=False)
    assert not await bench.finish("mismatch again", matched=False)
    assert await bench.claim() is None
    assert await bench.finish("match", matched=True)
    assert not await bench.finish("another match", matched=True)
    assert not await bench.finish("mismatch", matched=False)
    found = await bench.sessions.find(bench.tenant, bench.key_id, bench.session.session_id, NOW)
    assert found.result == "match"


async def test_of_matches_at_once_one_is_the_result(bench: Bench) -> None:
    done = await asyncio.gather(*(bench.finish(str(n), matched=True) for n in range(6)))
    assert sorted(done) == [False] * 5 + [True]


@pytest.mark.parametrize("whose", ["other tenant", "other key", "nobody", "expired"])
async def test_a_session_that_is_not_ones_own_is_unknown(bench: Bench, whose: str) -> None:
    tenant = bench.other if whose == "other tenant" else bench.tenant
    key_id = uuid4() if whose == "other key" else bench.key_id
    name = SessionId(uuid4()) if whose == "nobody" else bench.session.session_id
    now = NOW + SESSION_LIFE if whose == "expired" else NOW
    with pytest.raises(NotFoundError):
        await bench.sessions.find(tenant, key_id, name, now)
    with pytest.raises(NotFoundError):
        await bench.sessions.claim(tenant, key_id, name, 3, now)
    with pytest.raises(NotFoundError):
        await bench.sessions.remove(tenant, key_id, name, now)
    found = await bench.sessions.find(bench.tenant, bench.key_id, bench.session.session_id, NOW)
    assert found.attempts == 0


async def test_an_expired_session_takes_no_result(bench: Bench) -> None:
    assert not await bench.finish("late", matched=True, now=NOW + SESSION_LIFE)


async def test_an_image_is_of_its_key_for_half_an_hour(bench: Bench) -> None:
    await bench.finish("match", matched=True)
    found = await bench.sessions.remove(bench.tenant, bench.key_id, bench.session.session_id, NOW)
    assert found[0] == bench.session.picture_id
    bench.session = await bench.add(bench.tenant, bench.key_id)
    await bench.finish("match", matched=True)
    image = PictureId(await _only_image(bench))
    sessions = bench.sessions
    assert (await sessions.image(bench.tenant, bench.key_id, image, NOW)).picture_id == image
    for tenant, key_id, picture_id, now in (
        (bench.other, bench.key_id, image, NOW),
        (bench.tenant, uuid4(), image, NOW),
        (bench.tenant, bench.key_id, bench.session.picture_id, NOW),
        (bench.tenant, bench.key_id, image, NOW + timedelta(minutes=30)),
    ):
        with pytest.raises(NotFoundError):
            await sessions.image(tenant, key_id, picture_id, now)
    await bench.keep_picture.erase(bench.tenant, image)
    with pytest.raises(NotFoundError):
        await sessions.image(bench.tenant, bench.key_id, image, NOW)


async def _only_image(bench: Bench) -> UUID:
    async with bench.sessions._database.transaction(bench.tenant) as connection:
        (row,) = await connection.fetch("select picture_id from session_image")
    return UUID(str(row["picture_id"]))


async def test_sessions_of_every_tenant_expire_with_their_photos(bench: Bench) -> None:
    time = {"now": NOW + SESSION_LIFE - SECOND}
    expire = ExpireFaceSessions(bench.sessions, bench.keep_picture, lambda: time["now"])
    later = await bench.add(bench.tenant, bench.key_id, NOW + timedelta(minutes=5))
    assert await expire() == 0
    assert len(await bench.keys()) == 3
    time["now"] += SECOND
    assert await expire() == 2
    assert await bench.keys() == [f"{bench.tenant}/_pictures/{later.picture_id}"]
    with pytest.raises(NotFoundError):
        await bench.keep_picture.read(bench.tenant, bench.session.picture_id)
    found = await bench.sessions.find(bench.tenant, bench.key_id, later.session_id, NOW)
    assert found.picture_id == later.picture_id


async def test_sweeps_at_once_erase_each_session_once(bench: Bench) -> None:
    for _ in range(20):
        await bench.add(bench.tenant, bench.key_id)
    expire = ExpireFaceSessions(bench.sessions, bench.keep_picture, lambda: NOW + SESSION_LIFE)
    assert sum(await asyncio.gather(*(expire() for _ in range(4)))) == 22
    assert await bench.keys() == []


async def test_the_app_sees_no_session_without_its_tenant(bench: Bench, database: Database) -> None:
    for table in ("face_session", "session_image"):
        assert await database.fetch(f"select * from {table}") == []
    due = await database.fetch("select * from oneton_face_sessions_due($1, 10)", NOW + SESSION_LIFE)
    assert [set(row.keys()) for row in due] == [{"tenant_id", "session_id"}] * 2


async def test_replicas_agree_on_one_first_key(database: Database) -> None:
    signers = [SignResults(SigningKeys(database), "us") for _ in range(4)]
    results = await asyncio.gather(*(each("them", uuid4(), {}) for each in signers))
    assert len({jwt.get_unverified_header(each)["kid"] for each in results}) == 1
    assert len(await database.fetch("select * from signing_key")) == 1


async def test_a_result_is_checked_by_the_published_key_alone(database: Database) -> None:
    sign = SignResults(SigningKeys(database), "us")
    jti = uuid4()
    result = await sign("them", jti, {"one": 1})
    (key,) = await sign.published()
    public = jwt.PyJWK(msgspec.to_builtins(key))
    claims = jwt.decode(result, public, algorithms=["RS256"], audience="them", issuer="us")
    assert (claims["jti"], claims["data"]) == (str(jti), {"one": 1})
    assert claims["exp"] - claims["iat"] == 1800
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(result, public, algorithms=["RS256"], audience="others")
    head, body, mark = result.split(".")
    forged = f"{head}.{body[:-2]}{'AA' if body[-2:] != 'AA' else 'BB'}.{mark}"
    with pytest.raises(jwt.InvalidTokenError):
        jwt.decode(forged, public, algorithms=["RS256"], audience="them")


async def test_rotations_at_once_leave_one_key_in_force(database: Database) -> None:
    keys = SigningKeys(database)
    before = await SignResults(keys, "us").published()
    rotated = await asyncio.gather(*(RotateSigning(keys)() for _ in range(4)))
    in_force = await database.fetch("select kid from signing_key where retired_at is null")
    assert len(in_force) == 1
    for seen in rotated:
        assert sum(each.published_until is None for each in seen) == 1
        assert before[0].kid in [each.kid for each in seen]


async def test_a_retired_key_stays_until_what_it_signed_has_expired(database: Database) -> None:
    keys, time = SigningKeys(database), {"now": NOW}
    sign = SignResults(keys, "us", lambda: time["now"])
    rotate = RotateSigning(keys, lambda: time["now"])
    (old,) = await sign.published()
    time["now"] += timedelta(days=90)
    new = (await rotate())[0]
    assert [each.kid for each in await sign.published()] == [new.kid, old.kid]
    time["now"] += PUBLISHED - SECOND
    assert [each.kid for each in await sign.published()] == [new.kid, old.kid]
    time["now"] += SECOND
    assert [each.kid for each in await sign.published()] == [new.kid]
    time["now"] += SECOND
    await rotate()
    kept = {row["kid"] for row in await database.fetch("select kid from signing_key")}
    assert old.kid not in kept
    assert new.kid in kept


async def test_the_first_key_is_added_once(database: Database) -> None:
    keys = SigningKeys(database)
    for kid in ("a", "b"):
        await keys.add_first(SigningKey(kid, "pem", NOW, None))
    assert [each.kid for each in await keys.published(NOW)] == ["a"]
