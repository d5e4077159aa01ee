"""Whom the load is about, and whether an answer about them is right."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from random import Random

import msgspec
from _bench_load_client import Http, Operation, Reply, photo_text
from _photos import package_people, variations

GALLERY = "/v1/galleries/default/faces"
COMING = "coming"
STAYING, STRANGERS, MATCHES = 60, 60, 40
LOADING_S = 180


class Cast(msgspec.Struct, frozen=True):
    """Photos, by person.

    Attributes:
        staying: enrolled beforehand by the first photo, searched for with the others.
        coming: inserted while the load is on; one photo each.
        strangers: never enrolled; one photo each.
    """

    staying: list[list[bytes]]
    coming: list[bytes]
    strangers: list[bytes]


def cast_of_packages() -> Cast:
    """Ten people: few to insert, so most inserts find somebody."""
    people = list(package_people().values())
    staying = [[each, *variations(each, 5, seed)] for seed, each in enumerate(people[:4])]
    return Cast(staying, people[4:7], people[7:])


def cast_of_folder(folder: Path) -> Cast:
    """One folder a person: those of several photos stay, of the others some come."""
    staying: list[list[bytes]] = []
    single: list[bytes] = []
    for each in sorted(folder.iterdir()):
        photos = [path.read_bytes() for path in sorted(each.glob("*.jpg"))[:5]]
        if len(photos) > 1 and len(staying) < STAYING:
            staying.append(photos)
        elif photos:
            single.append(photos[0])
    return Cast(staying, single[STRANGERS:], single[:STRANGERS])


class People:
    """Prepared calls about a cast, over one key, and what is known of the gallery.

    Calls that the model answers otherwise before the load begins are left out, and so are searches
    that it would answer with somebody who is to be inserted, so that an answer that is wrong under
    load is the load's fault.
    """

    def __init__(self, http: Http, secret: str, cast: Cast) -> None:
        self._http, self._secret = http, secret
        self._random = Random(3)
        self._cast = cast
        self._searches: list[tuple[bytes, str, str | None]] = []
        self._matches: list[tuple[bytes, bool]] = []
        self._new = deque(cast.coming)
        self._known: list[tuple[bytes, str]] = []
        self._expendable: list[str] = []
        self.added = self.erased = 0

    @property
    def operations(self) -> Mapping[str, Operation]:
        """By their names in a mix."""
        return {
            "search": self._search,
            "insert": self._insert,
            "match": self._match,
            "erase": self._erase,
        }

    async def prepare(self) -> None:
        """Enroll who stays, and keep the calls that are answered as expected.

        Raises:
            RuntimeError: the server refuses.
        """
        ids = [await self._enroll(photos[0]) for photos in self._cast.staying]
        for photos, face_id in zip(self._cast.staying, ids, strict=True):
            for photo in photos[1:] or photos:
                await self._keep_search(photo, face_id)
        for photo in self._cast.strangers:
            await self._keep_search(photo, None)
        await self._drop_lookalikes()
        await self._keep_matches()
        found = sum(face_id is not None for *_, face_id in self._searches)
        print(
            f"{found} photos of {len(ids)} people who are found,"
            f" {len(self._searches) - found} of strangers, {len(self._matches)} pairs,"
            f" {len(self._new)} people to insert",
            file=sys.stderr,
        )
        if not found or found == len(self._searches):
            raise RuntimeError("nobody to search for")

    async def _enroll(self, photo: bytes) -> str:
        for _ in range(LOADING_S):
            reply = await self._http(self._post(GALLERY, {"image": photo_text(photo)}))
            if reply.status == 201:
                return str(json.loads(reply.body)["face_id"])
            if reply.status != 503:
                break
            await asyncio.sleep(1)  # the index is being loaded
        raise RuntimeError(f"the server answered {reply.status} {reply.body[:300]!r}")

    async def _keep_search(self, photo: bytes, face_id: str | None) -> None:
        request = self._post("/v1/identify", {"image": photo_text(photo), "limit": 1})
        if not judge_search(await self._http(request), face_id):
            self._searches.append((request, photo_text(photo), face_id))

    async def _drop_lookalikes(self) -> None:
        """Leave out the searches that somebody who is to be inserted would answer."""
        await self._http(self._post("/v1/galleries", {"name": COMING}))
        left = deque(self._cast.coming)

        async def enroll() -> None:
            while left:
                body = {"image": photo_text(left.popleft())}
                await self._http(self._post(f"/v1/galleries/{COMING}/faces", body))

        await asyncio.gather(*(enroll() for _ in range(4)))
        kept = []
        for request, photo, face_id in self._searches:
            body = {"image": photo, "limit": 1, "galleries": [COMING]}
            if not judge_search(await self._http(self._post("/v1/identify", body)), None):
                kept.append((request, photo, face_id))
        self._searches = kept
        path = f"/v1/galleries/{COMING}?confirm={COMING}"
        reply = await self._http(self._http.request("DELETE", path, self._secret))
        job = f"/v1/jobs/{json.loads(reply.body)['job_id']}"
        for _ in range(LOADING_S):
            reply = await self._http(self._http.request("GET", job, self._secret))
            if json.loads(reply.body)["state"] == "done":
                return
            await asyncio.sleep(1)
        raise RuntimeError("the gallery of those to come was not deleted")

    async def _keep_matches(self) -> None:
        others = cycle([each[0] for each in self._cast.staying[1:]])
        pairs = [
            pair
            for photos in self._cast.staying[: MATCHES // 2]
            for pair in ((photos[0], photos[-1], True), (photos[0], next(others), False))
        ]
        for source, target, same in pairs:
            body = {"source": photo_text(source), "target": photo_text(target)}
            request = self._post("/v1/verify", body)
            if not judge_match(await self._http(request), same=same):
                self._matches.append((request, same))

    def _post(self, path: str, body: object) -> bytes:
        return self._http.request("POST", path, self._secret, body)

    async def _search(self) -> tuple[Reply, str]:
        request, _, face_id = self._random.choice(self._searches)
        reply = await self._http(request)
        return reply, judge_search(reply, face_id)

    async def _match(self) -> tuple[Reply, str]:
        request, same = self._random.choice(self._matches)
        reply = await self._http(request)
        return reply, judge_match(reply, same=same)

    async def _insert(self) -> tuple[Reply, str]:
        """Of somebody new, as long as there are any, and again of somebody known in turn."""
        known = self._random.choice(self._known) if self._known else None
        if self._new and (known is None or self._random.random() < 0.5):
            return await self._insert_new(self._new.popleft())
        if known is None:
            return await self._search()
        request, face_id = known
        reply = await self._http(request)
        if reply.status not in (200, 201):
            return reply, refused(reply)
        said = json.loads(reply.body)
        return reply, "" if (said["added"], said["face_id"]) == (False, face_id) else str(said)

    async def _insert_new(self, photo: bytes) -> tuple[Reply, str]:
        request = self._post(GALLERY, {"image": photo_text(photo), "if_missing": True})
        reply = await self._http(request)
        if reply.status not in (200, 201):
            if reply.status in (0, 503):
                self._new.append(photo)
            # A photo that the model cannot use is right to be refused.
            return reply, "" if reply.status == 422 else refused(reply)
        said = json.loads(reply.body)
        if said["added"]:
            self.added += 1
            self._known.append((request, said["face_id"]))
            self._expendable.append(said["face_id"])
        return reply, "" if (reply.status == 201) == said["added"] else str(said)

    async def _erase(self) -> tuple[Reply, str]:
        """An image that is there, as long as there are any; then again one that is not."""
        if not self._known:
            return await self._search()
        if self._expendable:
            face_id = self._expendable.pop()
            self.erased += 1
        else:
            _, face_id = self._random.choice(self._known)
        path = f"/v1/faces/{face_id}/image"
        reply = await self._http(self._http.request("DELETE", path, self._secret))
        return reply, "" if reply.status == 204 else refused(reply)


def judge_search(reply: Reply, face_id: str | None) -> str:
    """What is wrong: another than the person is found, or a stranger is."""
    if reply.status != 200:
        return refused(reply)
    said = json.loads(reply.body)
    found = [each["face_id"] for each in said["candidates"] if each["match"]]
    return "" if found == ([] if face_id is None else [face_id]) else f"{found}, not {face_id}"


def judge_match(reply: Reply, *, same: bool) -> str:
    """What is wrong with a comparison."""
    if reply.status != 200:
        return refused(reply)
    return "" if json.loads(reply.body)["match"] is same else f"not {same}"


def refused(reply: Reply) -> str:
    """An error that is in the table of errors is not also a wrong answer, unless it is odd."""
    return "" if reply.status in (0, 429, 503) else f"{reply.status} {reply.body[:200]!r}"
