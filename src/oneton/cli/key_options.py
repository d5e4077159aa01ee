"""What a key is made with, as the command line has it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import rich_click as click

from oneton.domain.addresses import read_network
from oneton.domain.model import Permission

_AFTER = re.compile(r"(?P<number>[1-9]\d{0,5})(?P<unit>[dh])")


class Permissions(click.ParamType[tuple[Permission, ...]]):
    """Permissions, with commas between them."""

    name = "permissions"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Permission, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(Permission(each.strip()) for each in str(value).split(","))
        except ValueError as error:
            self.fail(f"{error}; there are {', '.join(Permission)}", param, ctx)


class Expiry(click.ParamType[datetime]):
    """A time to come: after so many days or hours, or a date."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        now, text = datetime.now(UTC), str(value)
        if after := _AFTER.fullmatch(text):
            number = int(after["number"])
            return now + (
                timedelta(days=number) if after["unit"] == "d" else timedelta(hours=number)
            )
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither like 90d or 12h, nor a date", param, ctx)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        if at <= now:
            self.fail(f"{text!r} is over already", param, ctx)
        return at


class AddressOrNetwork(click.ParamType[str]):
    """An IP address, or a network."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        try:
            return str(read_network(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)
