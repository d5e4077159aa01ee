"""`/metrics` of real processes, and what is drawn and told from it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.servers import (
    ONETON,
    MakeClient,
    MakePlace,
    Place,
    Server,
    new_tenant,
    run_server,
)

OPERATING = Path(__file__).parents[2] / "docs" / "operating"
TOKEN = "a-token-of-the-test"
ADDED = {"instance", "job", "le", "__name__"}
"""Labels that Prometheus adds, or that every histogram has."""

Labels = dict[str, set[str]]
Metrics = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Metrics:
    """Every sample's value, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    wanted = set(labels.items())
    return sum(each for (of, has), each in metrics.items() if of == name and wanted <= has)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def fetch(url: str, **headers: str) -> Metrics:
    reply = httpx.get(f"{url}/metrics", headers=headers)
    assert reply.status_code == 200, reply.text
    return read(reply.text)


@contextmanager
def run_worker(place: Place, **environ: str) -> Iterator[None]:
    process = subprocess.Popen(
        [*ONETON, "worker"],
        cwd=place.folder,
        env={**place.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.kill()
        process.wait()


def test_metrics_are_refused_to_whoever_passes_a_request_on(shared_server: Server) -> None:
    assert httpx.get(f"{shared_server.url}/metrics").status_code == 200
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        reply = httpx.get(f"{shared_server.url}/metrics", headers={header: "127.0.0.1"})
        assert reply.status_code == 403, header
        assert "oneton_" not in reply.text


def test_metrics_count_a_request_with_its_stages_and_outcome(
    shared_server: Server, shared_place: Place, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    client = make_client(shared_server.url, new_tenant(shared_place))
    before = fetch(shared_server.url)
    client.search(next(iter(people.values())), insert=True)
    assert client.http.post("/api/v1/face/one-to-n/search", json={}).status_code == 400
    assert client.http.get("/nowhere/at/all").status_code == 404
    after = fetch(shared_server.url)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    searched = {"dialect": "uqudo", "operation": "oneToNSearch"}
    called = [dict(has) for (of, has) in after if of == "oneton_requests_total"]
    assert searched in [{k: v for k, v in each.items() if k != "outcome"} for each in called], (
        called
    )
    assert more("oneton_requests_total", **searched, outcome="ok") == 1
    assert more("oneton_requests_total", **searched, outcome="refused") == 1
    assert more("oneton_requests_total", dialect="none", outcome="refused") == 1
    assert more("oneton_request_seconds_count", **searched) == 2
    for stage in ("queue", "decode", "detect", "embed", "search", "head", "sql", "store", "commit"):
        assert more("oneton_stage_seconds_count", work="request", stage=stage) == 1, stage
    assert more("oneton_store_seconds_count", operation="put") == 1
    assert value(after, "oneton_requests_in_flight") == 0
    assert value(after, "oneton_galleries_loaded") >= 1
    assert value(after, "oneton_index_faces") >= 1


def test_metrics_never_name_a_tenant_a_gallery_or_a_caller(
    shared_server: Server, shared_place: Place, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    credentials = new_tenant(shared_place, "a-very-secret-customer")
    make_client(shared_server.url, credentials).search(next(iter(people.values())))
    text = httpx.get(f"{shared_server.url}/metrics").text
    assert "a-very-secret-customer" not in text
    assert credentials["client_id"] not in text
    assert 'gallery="default"' not in text


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_every_metric_that_is_drawn_told_of_or_described_is_there(
    make_place: MakePlace, make_client: MakeClient, people: dict[str, bytes]
) -> None:
    place = make_place(ONETON_METRICS_TOKEN=TOKEN, ONETON_INDEX_SEAL_FACES="64")
    own, of_worker = free_port(), free_port()
    with (
        run_server(place, ONETON_METRICS_PORT=str(own)) as server,
        run_worker(place, ONETON_METRICS_PORT=str(of_worker)),
    ):
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        wrong = httpx.get(f"{server.url}/metrics", headers={"Authorization": "Bearer not-it"})
        assert wrong.status_code == 401
        make_client(server.url, new_tenant(place)).search(next(iter(people.values())), insert=True)
        there = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        texts = [there.text, httpx.get(f"http://127.0.0.1:{own}/metrics").text]
        texts.append(_wait_for(f"http://127.0.0.1:{of_worker}/metrics"))
        assert httpx.get(f"http://127.0.0.1:{own}/v1/galleries").status_code == 404
    assert value(read(texts[1]), "oneton_cpu_threads", budget="cpu") >= 1
    assert value(read(texts[2]), "oneton_cpu_threads", budget="work") >= 1
    shown, labels = _shown(texts)
    described = _described()
    ours = {name for name in shown if name.startswith("oneton_")}
    assert ours == {name for name in described if name.startswith("oneton_")}
    for name, seen in labels.items():
        if name.startswith("oneton_"):
            assert seen - ADDED == described[name], name
    for name in ours - set(labels):
        labels[name] = described[name]
    for where, expression in _expressions():
        _check(where, expression, shown, labels)


def _wait_for(url: str) -> str:
    deadline_s = time.monotonic() + 30
    while True:
        with suppress(httpx.TransportError):
            reply = httpx.get(url)
            if reply.status_code == 200:
                return reply.text
        assert time.monotonic() < deadline_s, f"nothing answers at {url}"
        time.sleep(0.1)


def _shown(texts: list[str]) -> tuple[set[str], Labels]:
    """The families of some pages, and the labels of those that have samples."""
    names: set[str] = set()
    labels: Labels = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            names.add(name)
            for sample in family.samples:
                labels.setdefault(name, set()).update(sample.labels)
    return names, labels


def _described() -> Labels:
    """Name and labels of every line of the table in `docs/operating/metrics.md`."""
    lines = re.findall(
        r"^\| `(\w+)` \|([^|]*)\|", (OPERATING / "metrics.md").read_text(), re.MULTILINE
    )
    assert len({name for name, _ in lines}) == len(lines)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in lines}


def _expressions() -> Iterator[tuple[str, str]]:
    rules = yaml.safe_load((OPERATING / "alerts.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert set(rule["annotations"]) == {"summary", "description"}
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
            yield rule["alert"], rule["expr"]
    board = json.loads((OPERATING / "grafana-dashboard.json").read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


WORDS = {
    *("sum", "max", "min", "rate", "increase", "deriv", "changes", "absent", "topk", "time"),
    *("histogram_quantile", "by", "on", "ignoring", "group_left", "and", "unless"),
}


def _check(where: str, expression: str, shown: set[str], labels: Labels) -> None:
    """Every metric is there; every label is one of theirs."""
    used: set[str] = set()
    for name, matchers in re.findall(r"\b([a-z]\w+)(?:\{([^}]*)\})?", _without_groups(expression)):
        if name in WORDS:
            continue
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        family = name if name in shown else family
        assert name == "up" or family in shown, f"{where}: {name} is no metric"
        allowed = labels.get(family, set()) | ADDED
        used |= allowed
        for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers):
            assert label in allowed, f"{where}: {name} has no label {label}"
    for group in re.findall(r"(?:by|on|ignoring) \(([^)]*)\)", expression):
        for label in re.findall(r"\w+", group):
            assert label in used, f"{where}: no metric of it has the label {label}"


def _without_groups(expression: str) -> str:
    """Without label lists, ranges and texts, of which the words are no metrics."""
    bare = re.sub(r"(by|on|ignoring) \([^)]*\)", r"\1", expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    return re.sub(r'"[^"]*"', '""', bare)
