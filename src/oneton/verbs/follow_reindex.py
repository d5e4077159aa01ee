"""Follow a reindex: what a tenant may know of the runs that re-embed its galleries."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from oneton.domain.errors import NotFoundError
from oneton.domain.model import Reembedding, TenantId
from oneton.records.model_packs import ModelPacks
from oneton.records.reindexing import Reindexing


@dataclass(frozen=True)
class FollowReindex:
    """Another tenant's galleries in the same run are not shown."""

    reindexing: Reindexing
    packs: ModelPacks

    async def __call__(self, tenant: TenantId, run_id: UUID | None = None) -> list[Reembedding]:
        """The tenant's galleries in all runs, or in one, oldest run first.

        Raises:
            NotFoundError: no gallery of the tenant is in this run.
        """
        works = [each for each in await self.reindexing.works(run_id) if each.tenant_id == tenant]
        if run_id is not None and not works:
            raise NotFoundError("reindex run", run_id)
        numbers = {no for each in works for no in (each.from_pack_no, each.to_pack_no)}
        names = {no: (await self.packs.named(no)).name for no in numbers}
        return [
            Reembedding(
                run_id=each.run_id,
                run_state=str(each.run_state),
                gallery_id=each.gallery_id,
                from_pack=names[each.from_pack_no],
                to_pack=names[each.to_pack_no],
                state=str(each.state),
                embedded=each.embedded,
                to_embed=each.to_embed,
                failed=each.failed,
                to_drop=each.to_drop,
                dropped=each.dropped,
                started_at=each.started_at,
                filled_at=each.filled_at,
                cut_over_at=each.cut_over_at,
                ended_at=each.ended_at,
            )
            for each in works
        ]
