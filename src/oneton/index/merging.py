"""Which segments become one, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import floor, log

import msgspec

from oneton.index.ranking import Part

DAY_S = 86_400.0


class Policy(msgspec.Struct, frozen=True):
    """When to seal and when to merge.

    Attributes:
        seal_faces: a tail of so many faces is sealed.
        seal_after_s: so is an older one, when it is worth it.
        fanout: so many segments of like size become one.
        merged_faces: no merge makes a larger segment.
        removed_share: of a segment; past it, it is written anew.
        forget_removed_s: removed templates are gone from segments after this time.
    """

    seal_faces: int = 8192
    seal_after_s: float = 900.0
    fanout: int = 4
    merged_faces: int = 524_288
    removed_share: float = 0.25
    forget_removed_s: float = DAY_S


def choose(parts: Sequence[Part], policy: Policy, now_s: float, *, may_write: bool) -> list[Part]:
    """The segments to write anew as one; none when nothing is due.

    Args:
        may_write: a segment that has no files yet can be given some.
    """
    for part in parts:
        removed_long = part.removed and now_s - part.segment.built_at_s > policy.forget_removed_s
        unwritten = may_write and part.segment.meta is None
        if removed_long or unwritten or part.removed > policy.removed_share * len(part.segment):
            return [part]
    tiers: dict[int, list[Part]] = defaultdict(list)
    for part in parts:
        size = max(len(part), policy.seal_faces // policy.fanout)
        tiers[floor(log(size / policy.seal_faces, policy.fanout) + 0.1)].append(part)
    for _, alike in sorted(tiers.items()):
        chosen = alike[: policy.fanout]
        if len(chosen) == policy.fanout and sum(map(len, chosen)) <= policy.merged_faces:
            return chosen
    return []
