"""`oneton tenant` and `oneton key`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import rich_click as click
from rich.table import Table

from oneton.cli.common import (
    as_json,
    chosen_tenant,
    example,
    of_tenant,
    run,
    stdout,
    write_json,
)
from oneton.cli.key_options import AddressOrNetwork, Expiry, Permissions
from oneton.domain.model import (
    DEFAULT_THRESHOLD,
    Key,
    NewGallery,
    Permission,
    QualityFloor,
    Score,
    Tenant,
)
from oneton.settings import Settings

if TYPE_CHECKING:
    from oneton.verbs.rotate_signing import RotatedKey


@click.group()
def tenant() -> None:
    """Create and list tenants."""


@tenant.command("create", epilog=example("oneton tenant create acme --threshold 50"))
@click.argument("name")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 100),
    default=DEFAULT_THRESHOLD,
    show_default=True,
    help="Score from which a 1:N search says match.",
)
@click.option(
    "--target-fpir",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Instead: share of searches for strangers that may match; the threshold follows the size.",
)
@click.option(
    "--least-size-px",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Enroll no face whose box is narrower.",
)
@click.option(
    "--least-sharpness",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Enroll no face more blurred (variance of the Laplacian; sharp faces have hundreds).",
)
@click.option(
    "--least-exposure",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Enroll no face of which a smaller share is neither black nor white.",
)
@as_json
def create_tenant(
    name: str,
    threshold: float,
    target_fpir: float | None,
    least_size_px: float,
    least_sharpness: float,
    least_exposure: float,
    as_json: bool,
) -> None:
    """Create a tenant and its default gallery."""
    floor = QualityFloor(least_size_px, least_sharpness, least_exposure)
    new = NewGallery(Score(threshold), target_fpir, floor=floor)
    from oneton.parts import make_tenant_maker, open_parts

    async def work(settings: Settings) -> Tenant:
        async with open_parts(settings) as parts:
            create = await make_tenant_maker(settings, parts)
            return await create(name, new)

    made = run(work)
    if as_json:
        write_json(made)
    else:
        stdout.print(f"tenant {made.name} created; next: oneton key create --tenant {made.name}")


@tenant.command("list", epilog=example("oneton tenant list --json"))
@as_json
def list_tenants(as_json: bool) -> None:
    """List all tenants, oldest first."""
    from oneton.parts import open_parts

    async def work(settings: Settings) -> list[Tenant]:
        async with open_parts(settings) as parts:
            return await parts.tenants.list()

    found = run(work)
    if as_json:
        write_json(found)
        return
    table = Table("tenant", "id", "created", "state")
    for each in found:
        created = f"{each.created_at:%Y-%m-%d %H:%M}"
        table.add_row(each.name, str(each.tenant_id), created, state_of(each))
    stdout.print(table)


def state_of(shown: Tenant) -> str:
    """A tenant's state in words."""
    if shown.deleted_at is not None:
        return "being deleted"
    if shown.suspended_at is not None:
        return f"suspended since {shown.suspended_at:%Y-%m-%d %H:%M}"
    return "in force"


@click.group()
def key() -> None:
    """Create, revoke and list a tenant's API keys; rotate the key that results are signed with."""


@key.command(
    "create",
    epilog=example(
        "oneton key create --tenant acme --permissions search --expires 90d --from 10.0.0.0/8"
    ),
)
@of_tenant
@click.option("--label", default="", help="What the key is for.")
@click.option(
    "--allow",
    "--permissions",
    "allowed",
    type=Permissions(),
    multiple=True,
    default=[",".join(each for each in Permission if each is not Permission.PURGE)],
    show_default=True,
    help="What the key may do, with commas; may be given several times. match: 1:1. search: 1:N. "
    "insert: add faces. erase: delete pictures. purge: delete face records. read: read what is "
    "kept, and its pictures. admin: galleries, lists, webhooks and reviews.",
)
@click.option(
    "--expires",
    "expires_at",
    type=Expiry(),
    help="Refuse it after so many days or hours, as 90d or 12h, or from a date on (UTC).",
)
@click.option(
    "--from",
    "addresses",
    type=AddressOrNetwork(),
    multiple=True,
    help="An address or a network that it may be used from; may be given several times. Without, "
    "from everywhere.",
)
@click.option("--sandbox", is_flag=True, help="Didit: check calls, answer alike, keep nothing.")
@click.option("--uuid", "as_uuid", is_flag=True, help="CypherFace: the secret looks like a UUID.")
@as_json
def create_key(  # noqa: PLR0913, PLR0917 - one for each option
    tenant_name: str | None,
    label: str,
    allowed: tuple[tuple[Permission, ...], ...],
    expires_at: datetime | None,
    addresses: tuple[str, ...],
    sandbox: bool,
    as_uuid: bool,
    as_json: bool,
) -> None:
    """Create a key for every dialect. Its secret is shown now and never again.

    uqudo: client_id and client_secret, to the token call.

    Didit, CypherFace: the client_secret alone, as x-api-key.

    VeriFlow, native: the client_secret alone, as bearer token.

    Trustmatic: client_id:client_secret, as Basic credentials.
    """
    from oneton.parts import make_key_maker, open_parts

    async def work(settings: Settings) -> tuple[Key, str]:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            permissions = {each for given in allowed for each in given}
            return await make_key_maker(parts)(
                owner.tenant_id,
                label=label,
                permissions=[each for each in Permission if each in permissions],
                expires_at=expires_at,
                addresses=addresses,
                sandbox=sandbox,
                as_uuid=as_uuid,
            )

    made, secret = run(work)
    if as_json:
        write_json(
            {
                "client_id": made.key_id,
                "client_secret": secret,
                "allow": made.permissions,
                "expires_at": made.expires_at,
                "addresses": made.addresses,
                "sandbox": made.sandbox,
            }
        )
        return
    stdout.print(f"client_id      {made.key_id}")
    stdout.print(f"client_secret  {secret}")
    stdout.print("The secret is not shown again.")


@key.command("list", epilog=example("oneton key list --tenant acme"))
@of_tenant
@as_json
def list_keys(tenant_name: str | None, as_json: bool) -> None:
    """List a tenant's keys, oldest first."""
    from oneton.parts import open_parts

    async def work(settings: Settings) -> list[Key]:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            return await parts.keys.list(owner.tenant_id)

    found = run(work)
    if as_json:
        write_json(found)
        return
    table = Table("client_id", "label", "may", "from", "created", "expires", "revoked")
    for each in found:
        revoked = f"{each.revoked_at:%Y-%m-%d %H:%M}" if each.revoked_at else ""
        expires = f"{each.expires_at:%Y-%m-%d %H:%M}" if each.expires_at else ""
        table.add_row(
            str(each.key_id),
            each.label,
            " ".join(each.permissions),
            " ".join(each.addresses) or "everywhere",
            f"{each.created_at:%Y-%m-%d %H:%M}",
            expires,
            revoked,
        )
    stdout.print(table)


@key.command("revoke", epilog=example("oneton key revoke 019a3c1e-... --tenant acme"))
@click.argument("client_id", type=click.UUID)
@of_tenant
@as_json
def revoke_key(client_id: UUID, tenant_name: str | None, as_json: bool) -> None:
    """Revoke a key; its tokens end at once."""
    from oneton.parts import open_parts

    async def work(settings: Settings) -> None:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            await parts.keys.revoke(owner.tenant_id, client_id)

    run(work)
    if as_json:
        write_json({"client_id": client_id, "revoked": True})
    else:
        stdout.print(f"key {client_id} revoked")


@key.command("rotate-signing", epilog=example("oneton key rotate-signing"))
@as_json
def rotate_signing(as_json: bool) -> None:
    """Sign the results of face sessions with a new RSA key from now on, on every server.

    The old key stays published until every result that it signed has expired.
    """
    from oneton.parts import make_rotate_signing, open_parts

    async def work(settings: Settings) -> list[RotatedKey]:
        async with open_parts(settings) as parts:
            return await make_rotate_signing(parts)()

    keys = run(work)
    if as_json:
        write_json(keys)
        return
    table = Table("key", "created", "published until")
    for each in keys:
        until = each.published_until
        shown = "it signs" if until is None else f"{until:%Y-%m-%d %H:%M}"
        table.add_row(each.kid, f"{each.created_at:%Y-%m-%d %H:%M}", shown)
    stdout.print(table)
