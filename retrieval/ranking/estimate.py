"""What a ranking would read and write, and about how long it would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from retrieval.ranking.executor import Executor, ThreadExecutor
from retrieval.ranking.plan import Plan, make_plan
from retrieval.ranking.queries import Queries
from retrieval.ranking.rank_report import RankedSides, sides_of
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.sides import Side, open_side
from retrieval.search import Choice
from retrieval.vectors import LongIdError, VectorSource

__all__ = ["RankEstimate", "estimate_ranking"]


@dataclass(frozen=True, kw_only=True)
class RankEstimate(RankedSides):
    """What a run would do.

    Attributes:
        num_rows: Rows of the ranking, at most.
        plan: How the work is cut.
        read_bytes: Of the vectors alone.
        first_product_dims: Dimensions of a short first product; None for the whole one.
        expected_core_seconds: Of arithmetic, for one core of this machine.
        expected_seconds: The same on all threads.
        reads: The addresses of the two sides.
    """

    num_rows: int
    plan: Mapping[str, int]
    read_bytes: Mapping[str, int]
    first_product_dims: int | None
    expected_core_seconds: float
    expected_seconds: float
    reads: Mapping[str, str]


def estimate_ranking(
    queries: Side, gallery: Side, config: RankConfig, *, executor: Executor | None = None
) -> RankEstimate:
    """What `write_ranking` would do, with the same arguments; writes nothing.

    The time is that of the arithmetic, from a sample of the gallery, on the CPUs of this
    machine; reading from a slow store comes on top.

    Raises:
        RetrievalError: as `write_ranking` does before it ranks.
    """
    executor = executor or ThreadExecutor(config.num_threads)
    sides = open_side(queries, config.columns), open_side(gallery, config.columns)
    try:
        plan, choice = _measured(*sides, config, executor.num_threads, has_long_ids=False)
    except LongIdError:
        plan, choice = _measured(*sides, config, executor.num_threads, has_long_ids=True)
    gallery_bytes = _vector_bytes(plan.gallery)
    core_s = choice.ns_a_row * 1e-9 * plan.gallery.num_rows * plan.num_blocks
    return RankEstimate(
        **sides_of(plan),
        num_rows=plan.queries.num_rows * plan.k,
        plan={**asdict(plan.blocks), "num_blocks": plan.num_blocks, "parts": len(plan.parts)},
        read_bytes={
            "queries": _vector_bytes(plan.queries),
            "gallery_once": gallery_bytes,
            "gallery_all_passes": gallery_bytes * plan.num_blocks,
        },
        first_product_dims=None if choice.basis is None else choice.basis.shape[1],
        expected_core_seconds=round(core_s, 1),
        expected_seconds=round(core_s / plan.num_threads, 1),
        reads={"queries": plan.queries.uri, "gallery": plan.gallery.uri},
    )


def _measured(
    queries: VectorSource,
    gallery: VectorSource,
    config: RankConfig,
    num_threads: int,
    *,
    has_long_ids: bool,
) -> tuple[Plan, Choice]:
    plan = make_plan(queries, gallery, config, num_threads, has_long_ids=has_long_ids)
    loaded = Queries(plan.queries, config.memory_for(plan.num_threads) // 4)
    first = loaded.block(0, plan.blocks.query_rows)
    return plan, plan.choose_basis(plan.sample(), first.vectors)


def _vector_bytes(source: VectorSource) -> int:
    return source.num_rows * source.dim * np.dtype(source.dtype).itemsize
