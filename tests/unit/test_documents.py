"""The documents name only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oneton.settings import SETTING_NAMES

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
# Made when oneton runs, not in git.
MADE = {"index_snapshots/"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_in_a_document_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(re.findall(r"`((?:src|scripts|tests|docs|\.ci)/[\w./-]+)`", text))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", text))
    named |= set(re.findall(r"^(scripts/\w+)", text, re.MULTILINE))
    missing = sorted(each for each in named - MADE if not (ROOT / each).exists())
    assert missing == []


def test_the_readme_names_every_setting_and_no_other() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"ONETON_[A-Z0-9_]+", text))
    for row in re.findall(r"^\| (`ONETON_.*?) \|", text, re.MULTILINE):
        first, *rest = re.findall(r"`(\w+)`", row)
        prefix = first.rsplit("_", first.count("_") - 1)[0]
        named |= {each if each.startswith("ONETON_") else prefix + each for each in rest}
    assert named == set(SETTING_NAMES)
