"""Traces, as a collector gets them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fixtures.receivers import Receiver
from tests.fixtures.servers import MakeClient, MakePlace, Server, new_tenant, run_server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def spans_of(receiver: Receiver) -> list[Any]:
    """Every span that came."""
    found = []
    for call in list(receiver.calls):
        assert call.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(call.body)
        for resource in sent.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert named["service.name"] == "oneton"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def wait_for(found: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + 20
    while not (seen := found()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return seen


def log_lines(server: Server) -> list[dict[str, Any]]:
    lines = server.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_request_is_a_trace_of_its_stages_within_that_of_its_caller(
    make_place: MakePlace, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    place = make_place()
    photo = next(iter(people.values()))
    receiver = Receiver()
    with run_server(place, ONETON_OTLP_ENDPOINT=receiver.url.removesuffix("/hook")) as server:
        client = make_client(server.url, new_tenant(place))
        client.http.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
        client.search(photo, insert=True)
        # One that the caller does not want traced.
        client.http.headers["traceparent"] = f"00-{'a' * 32}-{PARENT}-00"
        client.search(photo)
        spans = wait_for(lambda: [s for s in spans_of(receiver) if s.trace_id.hex() == TRACE])
        lines = [line for line in log_lines(server) if line.get("trace_id")]
    root = next(span for span in spans if span.parent_span_id.hex() == PARENT)
    assert root.name == "uqudo oneToNSearch"
    said = {each.key: each.value for each in root.attributes}
    assert said["http.response.status_code"].int_value == 200
    assert [line["trace_id"] for line in lines if line["trace_id"] == TRACE] == [TRACE]
    names = {span.span_id: span.name for span in spans}
    within = {(span.name, names.get(span.parent_span_id)) for span in spans}
    assert {(each, root.name) for each in ("decode", "detect", "embed", "queue", "store")} <= within
    assert {("sql", "head"), ("sql", "commit")} <= within
    for span in spans:
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    assert "a" * 32 not in {span.trace_id.hex() for span in spans_of(receiver)}
    receiver.stop()


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_collector_that_is_away_is_said_once_and_keeps_nobody_waiting(
    make_place: MakePlace,
) -> None:
    with run_server(make_place(), ONETON_OTLP_ENDPOINT="http://127.0.0.1:9") as server:
        for _ in range(20):
            assert httpx.post(f"{server.url}/api/oauth/token").status_code < 500
        told = wait_for(lambda: [x for x in log_lines(server) if "traces are lost" in x["event"]])
        for _ in range(20):
            assert httpx.post(f"{server.url}/api/oauth/token").status_code < 500
        took = [line["took_ms"] for line in log_lines(server) if line["event"] == "request"]
        started_s = time.monotonic()
        server.process.terminate()
        server.process.wait(timeout=15)
        stopped_s = time.monotonic() - started_s
    assert len(told) == 1
    assert sorted(took)[len(took) // 2] < 100
    assert stopped_s < 12
    assert len([x for x in log_lines(server) if "traces are lost" in x["event"]]) == 1
    assert not [x for x in log_lines(server) if "opentelemetry" in str(x.get("logger"))]
