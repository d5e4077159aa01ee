"""Run the conformance tests; write docs/dialects.md of their results."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dialects.md"
DIALECTS = ("uqudo", "didit", "veriflow", "face_verify", "cypherface", "native")
HOW = {
    "exact": "as the contract documents it",
    "chosen": "the contract is silent, and this is what oneton does",
    "501": "a product that oneton does not have; it says so",
}
_WORST_FIRST = ("failed", "skipped", "collected", "passed")
_ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| (exact|chosen|501) \| (\w+) \|$")


class Result(msgspec.Struct, frozen=True):
    """What one test says of one call of a dialect.

    Attributes:
        how: a key of `HOW`.
        outcome: passed, failed, skipped, or collected where it did not run.
        test: its name.
    """

    dialect: str
    call: str
    what: str
    how: str
    outcome: str
    test: str


class Row(msgspec.Struct, frozen=True, order=True):
    """A line of the page; several tests may stand behind it."""

    dialect: str
    call: str
    what: str
    how: str


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write a line of JSON for each."""
    path.write_bytes(msgspec.json.Encoder().encode_lines(list(results)))


def read_results(path: Path) -> list[Result]:
    """What `write_results` wrote."""
    return msgspec.json.Decoder(Result).decode_lines(path.read_bytes())


def rows_of(results: Iterable[Result]) -> dict[Row, str]:
    """The worst outcome behind each line."""
    found: dict[Row, str] = {}
    for each in results:
        row = Row(each.dialect, each.call, each.what, each.how)
        outcomes = (each.outcome, found.get(row, "passed"))
        found[row] = min(outcomes, key=_WORST_FIRST.index)
    return found


def make_page(rows: dict[Row, str], date: str, command: str) -> str:
    """The page, in Markdown."""
    lines = [
        "# How the dialects conform",
        "",
        f"Made by `{command}` on {date}; do not edit.",
        "Behind each line are tests marked `conforms`, which drive the running server over HTTP,",
        "or the part that they name.",
        "",
        *(f"- **{how}**: {meaning}." for how, meaning in HOW.items()),
        "",
        "| dialect | calls | exact | chosen | 501 | passed | not passed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    dialects = sorted({row.dialect for row in rows}, key=_place)
    for dialect in dialects:
        ours = {row: outcome for row, outcome in rows.items() if row.dialect == dialect}
        how = Counter(row.how for row in ours)
        passed = sum(outcome == "passed" for outcome in ours.values())
        numbers = (
            len({row.call for row in ours}),
            *(how[each] for each in HOW),
            passed,
            len(ours) - passed,
        )
        lines.append(f"| {dialect} | {' | '.join(map(str, numbers))} |")
    for dialect in dialects:
        lines += [
            "",
            f"## {dialect}",
            "",
            "| call | what | how | result |",
            "| --- | --- | --- | --- |",
        ]
        for row in sorted((row for row in rows if row.dialect == dialect), key=_order):
            cells = (f"`{_cell(row.call)}`", _cell(row.what), row.how, rows[row])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def read_page(text: str) -> dict[Row, str]:
    """The lines of a page, with their outcomes."""
    found: dict[Row, str] = {}
    dialect = ""
    for line in text.splitlines():
        if line.startswith("## "):
            dialect = line.removeprefix("## ")
        elif match := _ROW.match(line):
            call, what, how, outcome = match.groups()
            found[Row(dialect, _text(call), _text(what), how)] = outcome
    return found


def _place(dialect: str) -> tuple[int, str]:
    return (DIALECTS.index(dialect) if dialect in DIALECTS else len(DIALECTS), dialect)


def _order(row: Row) -> tuple[str, str, str, str]:
    method, _, path = row.call.partition(" ")
    return path, method, row.what, row.how


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _text(cell: str) -> str:
    return cell.replace("\\|", "|").replace("\\\\", "\\")


def main(arguments: list[str]) -> int:
    """Run the tests, write the page; the exit code is pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.jsonl")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "conforms", "tests"]
        code = subprocess.call([*command, f"--write-conformance={results}", *arguments], cwd=ROOT)
        rows = rows_of(read_results(results)) if results.exists() else {}
    if not rows:
        print("no results; the page is as it was", file=sys.stderr)
        return code or 1
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    PAGE.write_text(make_page(rows, date, " ".join(["scripts/dialects", *arguments])))
    print(f"{PAGE.relative_to(ROOT)}: {len(rows)} lines")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
