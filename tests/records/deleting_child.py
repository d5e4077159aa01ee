"""A process that does jobs slowly, a few rows at a time, until it is killed.

Run by `test_delete_gallery.py` as `python -m tests.records.deleting_child DSN FOLDER`; it writes a
line before each step.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from oneton.images.files import FileStore
from oneton.records.database import Database
from oneton.records.deletion import Deletion
from oneton.records.jobs_of_tenants import JobsOfTenants
from oneton.records.locks import Locks
from oneton.records.tenant_deletions import TenantDeletions
from oneton.verbs import delete_tenant, do_jobs

PAGE = 5


class SlowStore(FileStore):
    """Says what it deletes, and takes its time."""

    async def delete(self, key: str) -> None:
        os.write(sys.stdout.fileno(), b"object\n")
        await asyncio.sleep(0.002)
        await super().delete(key)


async def main(dsn: str, folder: str) -> None:
    do_jobs.PAGE = PAGE
    delete_tenant.ROWS, delete_tenant.OBJECTS, delete_tenant.SETTLE_S = PAGE, PAGE, 0.0
    database = await Database.connect(dsn, size=2)
    jobs, store = JobsOfTenants(database), SlowStore(Path(folder))
    erase = delete_tenant.EraseTenant(TenantDeletions(database), store)
    await do_jobs.DoJobs(jobs, Deletion(database, jobs), store, Locks(database), erase).run()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
