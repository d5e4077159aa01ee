"""The dialect's error table is complete."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from oneton.domain import errors
from oneton.edge.native import problems
from oneton.edge.uqudo.refusals import ERRORS, REASONS


def every_error(kind: type[errors.OnetonError]) -> list[type[errors.OnetonError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in every_error(child))]


@pytest.mark.parametrize("kind", every_error(errors.OnetonError))
def test_every_error_has_a_row_in_the_native_table(kind: type[errors.OnetonError]) -> None:
    status, code = problems.ERRORS[kind]
    assert HTTPStatus(status).phrase
    assert code


@pytest.mark.parametrize("kind", every_error(errors.OnetonError))
def test_every_error_has_a_row(kind: type[errors.OnetonError]) -> None:
    status, code = ERRORS[kind]
    assert status in REASONS
    assert code


def test_the_tree_at_the_top_of_the_module_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in every_error(errors.OnetonError):
        assert kind.__name__ in errors.__doc__
