"""docs/bench/index.md, from the rows of `scripts/bench index`."""

from __future__ import annotations

from collections.abc import Sequence

from _bench_index_rows import FLAT, FLAT_ONE_THREAD, KINDS, OURS, Row

HEAD = (
    *("engine", "build, s", "memory, MB", "p50, ms", "p95, ms", "p50 / FlatIP's"),
    *(
        "p50 / one thread's",
        "batch, probes/s",
        "p50 at 100 inserts/s, ms",
        "inserts/s while searching",
        "p50 meanwhile, ms",
    ),
    *("mates found", "cosine off by"),
)
INDEX_SIZE, LOCKED = "¹", "²"


def markdown(rows: Sequence[Row]) -> str:
    """The whole page."""
    first = rows[0]
    versions = list(dict.fromkeys(row.version for row in rows if row.version))
    lines = [
        "# Our index and its peers",
        "",
        f"`{first.command}`, {first.date}, {first.machine}; {', '.join(versions)}. The same faces"
        " and the same probes for all, each engine alone in a process of its own.",
    ]
    for size in sorted({row.size for row in rows}):
        lines += ["", f"## {size:,} faces", "", *_table([row for row in rows if row.size == size])]
    lines += ["", *_notes(rows)]
    lines += ["", "![Latency against mates found](index-latency-mates.svg)"]
    lines += ["", "![Latency against size](index-latency-size.svg)"]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row]) -> list[str]:
    shown = {row.engine: row for row in rows if row.shown}
    flats = [shown[name].p50_ms if name in shown else None for name in (FLAT, FLAT_ONE_THREAD)]
    return [
        f"| {' | '.join(HEAD)} |",
        f"| --- |{' ---: |' * (len(HEAD) - 1)}",
        *(_line(shown[engine], flats) for engine in KINDS if engine in shown),
    ]


def _line(row: Row, flats: Sequence[float | None]) -> str:
    kind = KINDS[row.engine]
    title = kind.title if row.effort is None else f"{kind.title}, {kind.effort} {row.effort}"
    cells = [
        f"**{title}**" if row.engine == OURS else title,
        _number(row.build_s),
        _memory(row),
        _number(row.p50_ms),
        _number(row.p95_ms),
        *(f"{row.p50_ms / flat:.2f}" if row.p50_ms and flat else "" for flat in flats),
        _number(row.batch_per_s),
        _number(row.search_ms_paced),
        _number(row.inserts_per_s) + (LOCKED if row.guarded and row.inserts_per_s else ""),
        _number(row.search_ms_inserting),
        f"{row.found:.2%}" if row.found is not None else "",
        f"{row.cosine_error:.4f}" if row.cosine_error is not None else "",
    ]
    if row.note:
        cells[-1] = f"{cells[-1]} {row.note}".strip()
    return f"| {' | '.join(cells)} |"


def _memory(row: Row) -> str:
    if row.resident_mb is None:
        return ""
    mapped = f" + {_number(row.mapped_mb)} mapped" if (row.mapped_mb or 0) >= 0.1 else ""
    return _number(row.resident_mb) + (INDEX_SIZE if row.is_index_size else "") + mapped


def _number(value: float | None) -> str:
    """Three digits that mean something, thousands with commas."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _notes(rows: Sequence[Row]) -> list[str]:
    mates = {row.size: row.mates_of for row in rows if row.mates_of}
    counts = ", ".join(f"{count:,} at {size:,}" for size, count in sorted(mates.items()))
    return [
        "**Faces** are drawn from a Gaussian with the mean and covariance of the embeddings of"
        " LFW's people, one photo each, and kept as float16; among them, at random rows, is each"
        " person's first photo. **Probes** are 2,000 other photos of them. **Mates found**: of the"
        " probes whose mate is among the full float32 product's best 5 and reaches the default"
        f" threshold ({counts}), those whose mate the engine also lists among its best 5, with a"
        " cosine of its own that reaches the threshold. **Cosine off by**: 99 % of the cosines that"
        " the engine lists are at most so far from the true ones; at the threshold, 0.005 is a"
        " point of score.",
        "",
        "**p50** and **p95** are of searches with one probe, warm, at most 20 s of them; **batch**"
        " is 250 probes in one call, on all cores. **Inserts** are single faces while another"
        " thread searches without pause: for 3 s at 100 a second, then for 3 s, or until 20,000"
        " are in, as fast as they go. **Memory** is how much the process's anonymous memory grew"
        " from before the build to after the first searches; mapped is what of the engine's own"
        " files was in memory then, which the system may drop.",
        "",
        f"{INDEX_SIZE} The size of the index in the server, `pg_relation_size`.  ",
        f"{LOCKED} Inserts and searches take turns behind a lock, for this index must not be"
        " changed while it is searched.",
        "",
        "Settings: FAISS HNSW M 32, efConstruction 40; hnswlib M 16, ef_construction 100; usearch"
        " float16, else as it comes; pgvector halfvec, m 16, ef_construction 64, shared_buffers"
        " and maintenance_work_mem 4 GB, synchronous_commit off, over a Unix socket; RaBitQ as"
        " FAISS ranks with it alone. The table shows the least search effort that finds 99 % of"
        " the mates, else the one that finds most; the plot shows all.",
    ]
