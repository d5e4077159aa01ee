"""What a key may be made with on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import rich_click as click

from oneton.cli.key_options import AddressOrNetwork, Expiry, Permissions
from oneton.domain.model import Permission


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Expiry(), "2001-01-01"),
        (Expiry(), "soon"),
        (Expiry(), "0d"),
        (Expiry(), "-1d"),
        (AddressOrNetwork(), "10.0.0.1/8"),
        (AddressOrNetwork(), "example.org"),
        (Permissions(), "fly"),
        (Permissions(), ""),
        (Permissions(), "search,"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    kind: click.ParamType[object], value: str
) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(value, None, None)


@pytest.mark.parametrize(
    ("text", "left"), [("90d", timedelta(days=90)), ("12h", timedelta(hours=12))]
)
def test_an_expiry_is_after_so_many_days_or_hours(text: str, left: timedelta) -> None:
    at = Expiry().convert(text, None, None)
    assert abs(at - datetime.now(UTC) - left) < timedelta(minutes=1)


def test_an_expiry_is_a_date_of_utc() -> None:
    assert Expiry().convert("2999-01-01", None, None) == datetime(2999, 1, 1, tzinfo=UTC)


def test_permissions_and_networks_are_read() -> None:
    assert Permissions().convert("search, read", None, None) == (
        Permission.SEARCH,
        Permission.READ,
    )
    assert AddressOrNetwork().convert("2001:db8::1", None, None) == "2001:db8::1/128"
