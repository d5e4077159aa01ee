"""The error table of every dialect is complete."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from http import HTTPStatus

import pytest

from oneton import edge
from oneton.domain import errors
from oneton.edge.uqudo.refusals import ERRORS, REASONS

Table = Mapping[type[errors.OnetonError], int | tuple[int, str]]
"""Statuses, or statuses and codes."""

DIALECTS = sorted(each.name for each in pkgutil.iter_modules(edge.__path__) if each.ispkg)


def every_error(kind: type[errors.OnetonError]) -> list[type[errors.OnetonError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in every_error(child))]


def table_of(dialect: str) -> Table:
    """The one table that a dialect's modules have."""
    package = importlib.import_module(f"{edge.__name__}.{dialect}")
    names = [each.name for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    modules = [importlib.import_module(name) for name in names]
    own = [vars(each)["ERRORS"] for each in modules if "ERRORS" in vars(each)]
    tables: dict[int, Table] = {id(each): each for each in own}
    (table,) = tables.values()
    return table


@pytest.mark.parametrize("kind", every_error(errors.OnetonError))
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_error_has_a_row_in_every_dialects_table(
    dialect: str, kind: type[errors.OnetonError]
) -> None:
    row = table_of(dialect)[kind]
    status, texts = (row, ()) if isinstance(row, int) else (row[0], row[1:])
    assert HTTPStatus(status).phrase
    assert all(texts)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialects_table_has_no_row_of_another_tree(dialect: str) -> None:
    assert set(table_of(dialect)) <= set(every_error(errors.OnetonError))


@pytest.mark.parametrize("kind", every_error(errors.OnetonError))
def test_uqudo_has_a_reason_for_every_status(kind: type[errors.OnetonError]) -> None:
    assert ERRORS[kind][0] in REASONS


def test_the_tree_at_the_top_of_the_module_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in every_error(errors.OnetonError):
        assert kind.__name__ in errors.__doc__
