"""Copies of snapshots in plain, each for as long as it is being sealed anew.

What is there while nobody seals was left by a process that ended half-way.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from oneton.domain.model import TenantId

FOLDER = ".sealing"
"""Within the folder of snapshots."""


def scratch_file(scratch: Path, tenant: TenantId) -> Path:
    """A name for a new file."""
    return scratch / f"{tenant}.{secrets.token_hex(16)}"


def has_scratch(scratch: Path) -> bool:
    """Whether anything is there."""
    return any(scratch.glob("*"))


def delete_scratch(scratch: Path, tenant: TenantId | None = None) -> None:
    """Delete a tenant's files, or all; what is written beside them goes with them."""
    for each in scratch.glob("*" if tenant is None else f"{tenant}.*"):
        each.unlink(missing_ok=True)
