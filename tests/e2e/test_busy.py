"""Past the CPU budget's queue the answer is 503 with Retry-After, at once, and work goes on."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.fixtures.servers import SEARCH, MakeClient, MakePlace, as_base64, new_tenant, run_server

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(60)]


def test_a_full_queue_is_503_with_retry_after_and_the_rest_is_answered(
    make_place: MakePlace, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    place = make_place(ONETON_CPU_THREADS="1", ONETON_QUEUE_LIMIT="2")
    with run_server(place) as server:
        client = make_client(server.url, new_tenant(place))
        body = {"idPhoto": as_base64(people["ada"])}

        async def storm() -> list[httpx.Response]:
            headers = {"Authorization": client.http.headers["Authorization"]}
            async with httpx.AsyncClient(timeout=30, headers=headers) as http:
                calls = [http.post(server.url + SEARCH, json=body) for _ in range(40)]
                return list(await asyncio.gather(*calls))

        replies = asyncio.run(storm())
        refused = [reply for reply in replies if reply.status_code == 503]
        assert {reply.status_code for reply in replies} == {200, 503}
        for reply in refused:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["message"].startswith("BUSY: ")
        assert client.http.post(SEARCH, json=body).status_code == 200
