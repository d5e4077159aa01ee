"""The demo's story: what is asked over HTTP, and what is right."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import cv2
import httpx
import numpy as np
from _demo_page import (
    Cast,
    Kind,
    Person,
    Photo,
    Step,
    varied,
)

TOKEN = "/api/oauth/token"
SEARCH = "/api/v1/face/one-to-n/search"
INSERT = "/api/v1/face/one-to-n/insert"
MATCH = "/api/v1/face/match"
LEVELS = {True: (3, 4, 5), False: (0, 1, 2)}


@dataclass(frozen=True)
class Answer:
    """A reply; status 0 is that none came."""

    status: int
    body: Mapping[str, Any]
    took_ms: float

    @property
    def face_id(self) -> str | None:
        """The face record that it names."""
        return self.body.get("oneToNVerificationId")

    @property
    def found(self) -> bool:
        """It names a face record that was there before."""
        return self.status == 200 and self.body.get("oneToNVerificationMatch") is True

    @property
    def added(self) -> bool:
        """It names a new face record."""
        return self.status == 200 and not self.found and self.face_id is not None


class Caller:
    """A tenant's client."""

    def __init__(self, url: str, credentials: Mapping[str, str], *, proxies: bool = True) -> None:
        """Get a token, by the environment's proxies or past them."""
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=proxies)
        form = {"grant_type": "client_credentials", **credentials}
        reply = self._http.post(TOKEN, data=form).raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {reply.json()['access_token']}"

    def ask(self, method: str, path: str, body: object = None, token: str = "") -> Answer:
        """Send JSON, timed; `token` is instead of the right one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        start = time.perf_counter()
        try:
            reply = self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            return Answer(0, {"message": repr(error)}, (time.perf_counter() - start) * 1000)
        took_ms = (time.perf_counter() - start) * 1000
        return Answer(reply.status_code, reply.json() if reply.content else {}, took_ms)

    def search(self, photo: Photo, *, insert: bool = False) -> Answer:
        """1:N, with `insert` adding who is missing."""
        return self.ask("POST", SEARCH, {"idPhoto": as_base64(photo.data), "insert": insert})


def as_base64(data: bytes) -> str:
    """As the dialect wants a picture."""
    return base64.b64encode(data).decode()


class Story:
    """Asks everything in turn and notes each answer as a step."""

    def __init__(self, caller: Caller, cast: Cast) -> None:
        self.steps: list[Step] = []
        self.enrolled: list[Photo] = []
        self._caller, self._cast = caller, cast
        self._places: dict[str, int] = {}

    def play(self) -> None:
        """From the empty gallery to refusals."""
        first = self._cast.people[0].photo
        self._search("an empty gallery", f"photo of {first.name}", first, None)
        known = self._find(self._enroll())
        self._insert_if_missing(self._meet_strangers())
        self._erase(*known)
        self._match(known[0])
        self._be_refused(first)

    def _said(self, answer: Answer) -> str:
        if answer.status != 200:
            message = str(answer.body.get("message") or answer.body.get("error", ""))
            return f"{answer.status} {message.partition(':')[0]}".strip()
        if "matchLevel" in answer.body:
            word = "match" if answer.body.get("match") else "no match"
            return f"{word}, level {answer.body['matchLevel']}"
        if answer.added:
            return f"added, id …{str(answer.face_id)[-8:]}"
        found = self._known(answer)
        return f"{found.name if found else answer.face_id}, match" if answer.found else "nobody"

    def _known(self, answer: Answer) -> Photo | None:
        """The photo enrolled here of the id that is answered."""
        place = self._places.get(answer.face_id or "")
        return None if place is None else self.enrolled[place]

    def _remember(self, answer: Answer, photo: Photo) -> None:
        self._places[str(answer.face_id)] = len(self.enrolled)
        self.enrolled.append(photo)

    def _note(self, part: str, asked: str, status: int, answer: Answer) -> None:
        """A step whose answer is its status."""
        right = answer.status == status
        said = self._said(answer)
        self.steps.append(Step(part, asked, str(status), said, answer.took_ms, right))

    def _search(
        self, part: str, asked: str, probe: Photo, face_id: str | None, kind: Kind = "exact"
    ) -> bool:
        """Search for one of this id, or for nobody; whether it was answered so."""
        answer, count = self._caller.search(probe), len(self.enrolled)
        right = answer.status == 200 and answer.face_id == face_id
        right = right and answer.found == (face_id is not None)
        # A photo of one's own without a face finds nobody either.
        faceless = self._said(answer) == "400 FACE_NOT_FOUND" and self._cast.accepted_rate > 0
        accepted = right or (faceless and face_id is None)
        expected = f"{probe.name}, match" if face_id else "nobody"
        said, beside = self._said(answer), self._known(answer)
        self.steps.append(
            Step(part, asked, expected, said, answer.took_ms, accepted, kind, probe, beside, count)
        )
        return right

    def _enroll(self) -> list[tuple[Person, str]]:
        """Whoever the server took, with their ids."""
        taken = []
        for person in self._cast.people:
            photo = person.photo
            answer = self._caller.ask("POST", INSERT, {"idPhoto": as_base64(photo.data)})
            right = answer.added and self._known(answer) is None
            asked, said = f"insert {photo.name}", self._said(answer)
            self.steps.append(
                Step("enroll", asked, "a new id", said, answer.took_ms, right, "enrolment", photo)
            )
            if right:
                self._remember(answer, photo)
                taken.append((person, str(answer.face_id)))
        if not taken:
            raise ValueError("the server took nobody's photo: " + self.steps[-1].answered)
        return taken

    def _find(self, people: Sequence[tuple[Person, str]]) -> tuple[Person, str]:
        """One whom all searches found; if there is none, the first."""
        known = []
        for person, face_id in people:
            found = [
                self._search("find again", f"photo {no} of {other.name}", other, face_id, "mated")
                for no, other in enumerate(person.others, 2)
            ]
            if all(found):
                known.append((person, face_id))
        return (known or people)[0]

    def _meet_strangers(self) -> Photo:
        """One whom no search found; if there is none, the first."""
        unknown = [
            stranger
            for stranger in self._cast.strangers
            if self._search("strangers", f"photo of {stranger.name}", stranger, None, "stranger")
        ]
        return (unknown or self._cast.strangers)[0]

    def _insert_if_missing(self, stranger: Photo) -> None:
        part, name, again = "insert if missing", stranger.name, varied(stranger)[0]
        first = self._caller.search(stranger, insert=True)
        right, said, beside = first.added, self._said(first), self._known(first)
        step = Step(part, f"photo of {name}", "a new id", said, first.took_ms, right)
        self.steps.append(replace(step, probe=stranger, beside=beside, enrolled=len(self.enrolled)))
        if first.added:
            self._remember(first, stranger)
        second = self._caller.search(again, insert=True)
        right = second.found and second.face_id == first.face_id
        said, beside = self._said(second), self._known(second)
        step = Step(part, f"another of {name}", f"{name}, match", said, second.took_ms, right)
        self.steps.append(replace(step, probe=again, beside=beside, enrolled=len(self.enrolled)))

    def _erase(self, person: Person, face_id: str) -> None:
        part, name = "erase", person.photo.name
        for asked in (f"delete {name}'s photo", "delete it again"):
            self._note(part, asked, 204, self._caller.ask("DELETE", f"{SEARCH}/{face_id}"))
        self._search(part, f"photo 2 of {name} again", person.others[0], face_id)
        unknown = self._caller.ask("DELETE", f"{SEARCH}/{uuid4()}")
        self._note(part, "delete an unknown id", 404, unknown)

    def _match(self, known: Person) -> None:
        photo, stranger = known.photo, self._cast.strangers[0]
        other = next((each for each in self.enrolled if each.name != photo.name), stranger)
        for beside, match in ((known.others[0], True), (other, False)):
            pictures = {"sourceImage": photo.data, "targetImage": beside.data}
            body = {name: as_base64(data) for name, data in pictures.items()}
            answer = self._caller.ask("POST", MATCH, body)
            level, said = answer.body.get("matchLevel", -1), self._said(answer)
            right = answer.body.get("match") is match and level in LEVELS[match]
            asked = f"{photo.name} and {'another photo' if match else beside.name}"
            expected = "match, level 3 to 5" if match else "no match, level 0 to 2"
            step = Step("1:1 match", asked, expected, said, answer.took_ms, right)
            self.steps.append(replace(step, probe=photo, beside=beside))

    def _be_refused(self, photo: Photo) -> None:
        picture = as_base64(photo.data)
        for asked, status, body, token in (
            ("a wrong token", 401, picture, "wrong"),
            ("a text, not a picture", 415, as_base64(b"no picture at all"), ""),
            ("a picture of 6 MB", 413, as_base64(photo.data.ljust(6_000_000, b"\0")), ""),
            ("a picture without a face", 400, as_base64(_grey()), ""),
            ("no picture", 400, "", ""),
        ):
            answer = self._caller.ask("POST", SEARCH, {"idPhoto": body}, token)
            self._note("refusals", asked, status, answer)


def _grey() -> bytes:
    return cv2.imencode(".jpg", np.full((250, 250, 3), 128, np.uint8))[1].tobytes()
