"""An open-loop client: calls start when the schedule says so, whatever became of the others."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 60.0
MOST_CONNECTIONS = 1000
WRONG_KEPT = 50
_MOST_HEAD = 1 << 16


class Reply(msgspec.Struct, frozen=True):
    """What came back; status 0 is no answer, and `body` says why."""

    status: int
    body: bytes

    @property
    def code(self) -> str:
        """The stable word of a refusal."""
        if self.status == 0:
            return self.body.decode()
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return ""


class Http:
    """Kept-alive connections, as many as there are calls at once; requests are bytes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._named = parts.netloc
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)

    def request(self, method: str, path: str, secret: str, body: object = None) -> bytes:
        """The bytes of a call."""
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._named}\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data

    async def __call__(self, request: bytes) -> Reply:
        """Send, and read the answer; never raises for what the other side does."""
        async with self._room:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._exchange(request)
            except TimeoutError:
                return Reply(0, b"timeout")
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                return Reply(0, type(error).__name__.encode())

    async def _exchange(self, request: bytes) -> Reply:
        while self._free and self._free[-1][0].at_eof():
            self._free.pop()[1].close()
        if self._free:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls, limit=_MOST_HEAD
            )
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            body = await reader.readexactly(length) if length else b""
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        return Reply(status, body)

    async def close(self) -> None:
        """Give back the connections."""
        for _, writer in self._free:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class Call(msgspec.Struct, frozen=True):
    """One call of a run.

    Attributes:
        due_s: when it should have started, since the run began.
        late_ms: how much later it did, which is the client's own fault.
        took_ms: from `due_s` to the end of the answer.
    """

    operation: str
    due_s: float
    late_ms: float
    took_ms: float
    status: int
    code: str
    wrong: bool


Judge = Callable[[Reply], str]
"""What is wrong with an answer; "" for a right one, and for one that says to come back later."""
Operation = Callable[[], Awaitable[tuple[Reply, str]]]


def photo_text(photo: bytes) -> str:
    """As the API takes it."""
    return b64encode(photo).decode()


class Run(msgspec.Struct):
    """What a run came to."""

    calls: list[Call] = msgspec.field(default_factory=list)
    wrong: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0

    @property
    def errors(self) -> Counter[tuple[str, int, str]]:
        """How many calls, by operation, status and code, were not answered as they should."""
        return Counter(
            (call.operation, call.status, call.code)
            for call in self.calls
            if not 200 <= call.status < 300
        )


def due_times(rate: float, seconds: float, *, poisson: bool, seed: int) -> list[float]:
    """When calls are to start, by a Poisson process or evenly."""
    if not poisson:
        return [number / rate for number in range(int(seconds * rate))]
    random, due, times = Random(seed), 0.0, []
    while (due := due + random.expovariate(rate)) < seconds:
        times.append(due)
    return times


async def open_loop(
    operations: Mapping[str, Operation],
    mix: Mapping[str, float],
    due: Sequence[float],
    *,
    every_s: float,
    tick: Callable[[float], None],
    seed: int = 1,
) -> Run:
    """Start a call at each due time; returns when all have ended.

    Args:
        tick: called every so often with the time since the beginning.
    """
    run, random = Run(), Random(seed)
    names, weights = list(mix), list(mix.values())
    tasks: set[asyncio.Task[None]] = set()
    began_s, cpu_s = time.perf_counter(), time.process_time()

    async def ticking() -> None:
        while True:
            tick(time.perf_counter() - began_s)
            await asyncio.sleep(every_s)

    async def call(name: str, due_s: float) -> None:
        late_s = time.perf_counter() - began_s - due_s
        reply, wrong = await operations[name]()
        took_s = time.perf_counter() - began_s - due_s
        code = reply.code if not 200 <= reply.status < 300 else ""
        run.calls.append(
            Call(name, due_s, late_s * 1000, took_s * 1000, reply.status, code, bool(wrong))
        )
        if wrong and len(run.wrong) < WRONG_KEPT:
            run.wrong.append(f"{due_s:.2f} s: {name}: {wrong}")

    beside = asyncio.create_task(ticking())
    for due_s in due:
        wait_s = began_s + due_s - time.perf_counter()
        # Also when it is late already, for the answers have to be read meanwhile.
        await asyncio.sleep(max(0.0, wait_s))
        task = asyncio.create_task(call(random.choices(names, weights)[0], due_s))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    beside.cancel()
    run.seconds = time.perf_counter() - began_s
    run.cpu_s = time.process_time() - cpu_s
    tick(run.seconds)
    return run


async def closed_loop(
    operations: Mapping[str, Operation], mix: Mapping[str, float], callers: int, seconds: float
) -> float:
    """How many calls a second so many callers get answered, each at once after the one before."""
    random = Random(2)
    names, weights = list(mix), list(mix.values())
    answered = 0
    began_s = time.perf_counter()

    async def caller() -> None:
        nonlocal answered
        while time.perf_counter() - began_s < seconds:
            reply, _ = await operations[random.choices(names, weights)[0]]()
            answered += 200 <= reply.status < 300

    await asyncio.gather(*(caller() for _ in range(callers)))
    return answered / (time.perf_counter() - began_s)
