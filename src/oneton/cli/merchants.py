"""`oneton merchant-user` and `oneton tenant payment-threshold`, for CypherFace's dialect."""

from __future__ import annotations

import getpass

import rich_click as click

from oneton.cli.common import as_json, chosen_tenant, example, of_tenant, run, stdout, write_json
from oneton.domain.model import Score, Tenant
from oneton.settings import Settings


@click.group("merchant-user")
def merchant_user() -> None:
    """Delete users that merchants registered."""


@merchant_user.command(
    "delete", epilog=example("oneton merchant-user delete 6789fb11e94adea011383478 --tenant acme")
)
@click.argument("user_id")
@of_tenant
@as_json
def delete_user(user_id: str, tenant_name: str | None, as_json: bool) -> None:
    """Delete a user with all pictures; its links and liveness sessions end."""
    from oneton.parts import make_forget_merchant_user, open_parts

    async def work(settings: Settings) -> None:
        async with open_parts(settings) as parts:
            owner = await chosen_tenant(parts.tenants, tenant_name)
            forget = make_forget_merchant_user(parts)
            await forget(owner.tenant_id, user_id, actor=getpass.getuser())

    run(work)
    if as_json:
        write_json({"userId": user_id, "deleted": True})
    else:
        stdout.print(f"user {user_id} deleted")


@click.command("payment-threshold", epilog=example("oneton tenant payment-threshold acme 85"))
@click.argument("name")
@click.argument("score", type=click.FloatRange(0, 100))
@as_json
def set_payment_threshold(name: str, score: float, as_json: bool) -> None:
    """Set the score from which CypherFace's face match says yes."""
    from oneton.parts import make_change_tenant, open_parts

    async def work(settings: Settings) -> Tenant:
        async with open_parts(settings) as parts:
            owner = await parts.tenants.named(name)
            return await make_change_tenant(parts).set_payment_threshold(
                owner.tenant_id, Score(score), actor=getpass.getuser()
            )

    changed = run(work)
    if as_json:
        write_json(changed)
    else:
        stdout.print(
            f"{changed.name}: a payment matches from {changed.options.payment_threshold:g}"
        )
