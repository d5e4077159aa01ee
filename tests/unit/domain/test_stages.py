"""Stages: sums by name, and which stage is a part of which."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context

from oneton.domain.stages import MOST_SPANS, collected_stages, stage, waited


def test_a_stage_within_another_counts_in_both_and_knows_it() -> None:
    with collected_stages() as stages:
        with stage("commit"), stage("sql"):
            pass
        with stage("sql"):
            pass
    inner, commit, alone = stages.spans
    assert (inner.name, inner.inside) == ("sql", commit.number)
    assert (commit.name, commit.inside) == ("commit", None)
    assert (alone.name, alone.inside) == ("sql", None)
    took_ms = [(each.ended_s - each.started_s) * 1000 for each in (inner, alone)]
    assert stages["sql"] == sum(took_ms)


def test_a_stage_of_a_thread_is_a_part_of_where_the_thread_began() -> None:
    def work() -> None:
        with stage("embed"):
            pass

    with collected_stages() as stages, stage("all"):
        thread = threading.Thread(target=copy_context().run, args=(work,))
        thread.start()
        thread.join()
    embed, whole = stages.spans
    assert (embed.name, embed.inside) == ("embed", whole.number)


def test_a_wait_counts_from_when_it_began() -> None:
    started_s = time.perf_counter() - 0.5
    with collected_stages() as stages:
        waited("queue", started_s)
    assert stages["queue"] >= 500
    waited("queue", started_s)


def test_stages_past_the_most_count_in_the_sums_only() -> None:
    with collected_stages() as stages:
        for _ in range(MOST_SPANS + 5):
            with stage("sql"):
                pass
    assert len(stages.spans) == MOST_SPANS
    kept = sum(each.ended_s - each.started_s for each in stages.spans) * 1000
    assert stages["sql"] > kept


def test_nobody_collects_what_is_outside() -> None:
    with collected_stages() as stages:
        pass
    with stage("late"):
        pass
    assert stages == {}
