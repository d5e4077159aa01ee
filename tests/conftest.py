"""Fixtures for all tests; those of one kind are in `tests/fixtures`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest_plugins = [
    "tests.fixtures.conformance",
    "tests.fixtures.desks",
    "tests.fixtures.faces",
    "tests.fixtures.objects",
    "tests.fixtures.packs",
    "tests.fixtures.postgres",
    "tests.fixtures.receivers",
    "tests.fixtures.servers",
    "tests.fixtures.native",
    "tests.fixtures.callers",
    "tests.fixtures.didit",
    "tests.fixtures.didit_clients",
    "tests.fixtures.veriflow",
]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The app runs on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def lfw_if_there() -> Path | None:
    """As `lfw`, for tests that have other photos to go on with."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "lfw"
    return folder if folder.is_dir() else None


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers; the seed is the test's name, so that a failure can be repeated."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
