"""The documents name only what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from _dialects import PAGE, Result, Row, make_page, read_page, read_results, rows_of

from oneton.settings import CLIENT_NAMES, SETTING_NAMES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]
# Made when oneton runs, not in git.
MADE = {"index_snapshots/"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_in_a_document_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(re.findall(r"`((?:src|scripts|tests|docs|\.ci)/[\w./-]+)`", text))
    beside = (ROOT / name).parent
    missing_links = [
        link
        for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)
        if not (beside / link).exists()
    ]
    named |= set(re.findall(r"^(scripts/\w+)", text, re.MULTILINE))
    missing = sorted(each for each in named - MADE if not (ROOT / each).exists())
    assert missing + missing_links == []


def test_the_page_of_settings_names_every_one_and_no_other() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    named = set(re.findall(r"ONETON_[A-Z0-9_]+", text))
    for row in re.findall(r"^\| (`ONETON_.*?) \|", text, re.MULTILINE):
        first, *rest = re.findall(r"`(\w+)`", row)
        prefix = first.rsplit("_", first.count("_") - 1)[0]
        named |= {each if each.startswith("ONETON_") else prefix + each for each in rest}
    assert named == {*SETTING_NAMES, *CLIENT_NAMES}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_page_of_the_dialects_lists_what_the_tests_say(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    collect = ["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "conforms", "tests"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *collect, f"--write-conformance={results}"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    written = read_page(PAGE.read_text())
    assert sorted(written) == sorted(rows_of(read_results(results))), "run scripts/dialects"
    assert "failed" not in written.values()


def test_a_page_of_dialects_reads_back_with_the_worst_outcome_of_each_line() -> None:
    results = [
        Result("native", "GET /v1/a", "of | and \\", "exact", "passed", "one"),
        Result("native", "GET /v1/a", "of | and \\", "exact", "failed", "other"),
        Result("uqudo", "POST /b/{id}", "a body", "501", "passed", "third"),
    ]
    rows = rows_of(results)
    assert rows == {
        Row("native", "GET /v1/a", "of | and \\", "exact"): "failed",
        Row("uqudo", "POST /b/{id}", "a body", "501"): "passed",
    }
    page = make_page(rows, "2026-01-01", "scripts/dialects")
    assert read_page(page) == rows
    assert "| native | 1 | 1 | 0 | 0 | 0 | 1 |" in page
