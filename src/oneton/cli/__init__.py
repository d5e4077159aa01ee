"""The command `oneton`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from oneton import __version__
from oneton.cli.audit import audit
from oneton.cli.backup import backup
from oneton.cli.bulk import import_faces
from oneton.cli.doctor import doctor
from oneton.cli.duplicates import duplicates
from oneton.cli.encryption import encryption
from oneton.cli.exporting import export
from oneton.cli.faces import purge, search, sweep
from oneton.cli.galleries import gallery
from oneton.cli.merchants import merchant_user, set_payment_threshold
from oneton.cli.migrating import migrate
from oneton.cli.models import models
from oneton.cli.reindex import reindex
from oneton.cli.remote import choose_remote, remote_options
from oneton.cli.serve import serve
from oneton.cli.snapshots import snapshot
from oneton.cli.subject import subject
from oneton.cli.tenant_life import delete_tenant, resume_tenant, set_quota, suspend_tenant
from oneton.cli.tenant_options import set_credits, set_retention, show_tenant
from oneton.cli.tenants import key, tenant
from oneton.cli.usage import usage
from oneton.cli.webhooks import webhook
from oneton.cli.worker import worker

click.rich_click.TEXT_MARKUP = "rich"


@click.group(
    epilog="Exit codes: 0 done or found, 1 not found or problems reported, 2 wrong usage or "
    "setting, 3 no such thing or already there, 4 a part does not answer.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="oneton")
@remote_options
@click.pass_context
def main(context: click.Context, url: str | None, key_file: Path | None) -> None:
    """Have we seen this person before? A self-hosted 1:N face search platform.

    Settings come from ONETON_* variables; with none, everything runs under ./.oneton. With --url,
    `search`, `purge` and `gallery` work on a server.
    """
    choose_remote(context, url, key_file)


for command in (
    show_tenant,
    set_retention,
    set_credits,
    set_payment_threshold,
    suspend_tenant,
    resume_tenant,
    set_quota,
    delete_tenant,
):
    tenant.add_command(command)
for command in (
    serve,
    worker,
    migrate,
    tenant,
    key,
    usage,
    gallery,
    models,
    reindex,
    import_faces,
    export,
    search,
    duplicates,
    purge,
    sweep,
    snapshot,
    webhook,
    merchant_user,
    audit,
    subject,
    encryption,
    doctor,
    backup,
):
    main.add_command(command)
