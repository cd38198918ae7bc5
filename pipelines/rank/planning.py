"""How the work is cut, and what it will take."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from retrieval.ranking.settings import RankConfig

from pipelines.rank.config import choose_k
from pipelines.rank.folding import PRODUCTS, Task, choose_device, this_machine_has_gpu
from pipelines.rank.previous import old_ids
from pipelines.ray_runtime.address import check_port
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import IndexFormatError, UsageError
from retrieval.ranking.sides import content_sha256
from retrieval.search import (
    BlockPlan,
    Choice,
    available_cpus,
    choose_basis,
    plan_blocks,
    score_rule,
    whole_product_ns,
)
from retrieval.storage import file_stamp, is_local
from retrieval.vectors import (
    LongIds,
    Sample,
    VectorPart,
    VectorSource,
    find_duplicate,
    open_source,
    read_id_text,
    sample_vectors,
    split,
)

__all__ = ["Plan", "make_plan"]

_PART_ROWS = 64 * 1024  # of the gallery, read by one worker
_PARTS_PER_WORKER = 8  # cut finer where there is less
# Connecting to a cluster and starting actors takes some five seconds. Work that this machine
# does in so many by the whole product, and mostly several times faster, is not sent there.
_SMALL_S = 10.0


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        queries, gallery: The two sides.
        k: Neighbours of each query.
        config: Settings.
        blocks: Queries that are ranked at a time, and rows that are read at a time.
        parts: Of the gallery, in the order in which they are read.
        uses_ray: Whether actors rank, or this process.
        num_threads: Threads of a process that ranks.
        stamps: Size and time of each foreign file when it was opened.
        run_key: Hash of all that decides the result: the same key, the same parts.
        site: Where actors are.
    """

    queries: VectorSource
    gallery: VectorSource
    k: int
    config: RankConfig
    blocks: BlockPlan
    parts: tuple[VectorPart, ...]
    uses_ray: bool
    num_threads: int
    stamps: Mapping[str, tuple[int, int]]
    run_key: str
    site: Site

    @property
    def num_blocks(self) -> int:
        """Blocks of queries, and so parts of the ranking."""
        return -(-self.queries.num_rows // self.blocks.query_rows)

    def sample(self) -> Sample:
        """Some rows of the gallery; reads them."""
        return sample_vectors(self.gallery, self.parts)

    def choose_basis(self, sample: Sample, queries: NDArray[np.floating]) -> Choice:
        """Measure on a sample how to rank a block of queries."""
        return choose_basis(sample.vectors, queries, self.k, self.gallery.num_rows)

    def task(self, *, has_gpu: bool | None) -> Task:
        """What each part of the job needs; `has_gpu` of a cluster, None to look here."""
        config = self.config
        if has_gpu is None:
            has_gpu = config.device != "cpu" and this_machine_has_gpu()
        device = choose_device(config.device, config.metric, has_gpu=has_gpu)
        return Task(
            self.gallery,
            self.k,
            config.metric,
            config.exclude_self,
            self.blocks.gallery_rows,
            device,
        )

    def check_unchanged(self) -> None:
        """Refuse a result of files of which some were read before a change, others after.

        Raises:
            IndexFormatError: a foreign file is not what it was; an index's shards never change.
        """
        for uri, stamp in self.stamps.items():
            if file_stamp(uri) != stamp:
                raise IndexFormatError(
                    f"{uri}: changed while it was ranked. Files must stay as they are meanwhile: "
                    f"run the job again."
                )


def make_plan(
    queries: str, gallery: str, config: RankConfig, site: Site, *, has_long_ids: bool = False
) -> Plan:
    """Open the two sides and cut the work.

    Args:
        queries: Index or vectors of the queries.
        gallery: Index or vectors of the gallery.
        config: Settings.
        site: Where it runs.
        has_long_ids: Whether an id is too long for an array of one width; reading would raise
            LongIdError.

    Raises:
        RetrievalError: a side cannot be opened, the two do not belong together, an id occurs
            twice in the gallery, or one query needs more memory than is allowed.

    Cost: reads the footers of foreign files; and their ids, to find duplicates.
    """
    query_source = open_source(queries, config.columns)
    gallery_source = open_source(gallery, config.columns)
    k = choose_k(query_source, gallery_source, config)
    stamps = {**_stamps(query_source), **_stamps(gallery_source)}
    if config.num_threads and (site.address or site.asks_for_nodes):
        other = "`min_cpus`, `min_gpus` or `site.labels`"
        other = f"`address` {site.address}" if site.address else other
        raise UsageError(
            f"`num_threads` {config.num_threads}: asks for this machine alone, but {other} "
            f"for a cluster. Leave one of them out."
        )
    uses_ray = _uses_ray(query_source, gallery_source, config, site)
    num_threads = 1 if uses_ray else config.num_threads or available_cpus()
    memory_bytes = config.memory_for(num_threads)
    if not config.allow_duplicates:
        _refuse_duplicates(gallery_source, memory_bytes)
    if has_long_ids:
        long_ids = _find_long_ids(query_source, gallery_source, config, memory_bytes // 3)
        query_source = replace(query_source, long_ids=long_ids)
        gallery_source = replace(gallery_source, long_ids=long_ids)
    blocks = plan_blocks(query_source.num_rows, gallery_source, k, memory_bytes, num_threads)
    rule = score_rule(config.metric)
    settings = [k, config.metric, rule, config.exclude_self, blocks.query_rows]
    return Plan(
        queries=query_source,
        gallery=gallery_source,
        k=k,
        config=config,
        blocks=blocks,
        parts=_parts(gallery_source, num_threads),
        uses_ray=uses_ray,
        num_threads=num_threads,
        stamps=stamps,
        run_key=_run_key(query_source, gallery_source, [*stamps.items()], settings),
        site=site,
    )


def _find_long_ids(
    queries: VectorSource, gallery: VectorSource, config: RankConfig, memory_bytes: int
) -> LongIds:
    """The long ids of both sides, and of what a previous ranking was made of."""
    blocks = (
        text
        for source in ([gallery] if queries.files == gallery.files else [queries, gallery])
        for file in source.files
        for text in read_id_text(source, file, _PART_ROWS)
    )
    earlier = old_ids(config.previous, queries, gallery) if config.previous else ()
    return LongIds.collect(chain(blocks, earlier), memory_bytes)


def _uses_ray(queries: VectorSource, gallery: VectorSource, config: RankConfig, site: Site) -> bool:
    """Whether actors rank: where they are asked for, or on a cluster what is not small."""
    if config.num_actors or site.asks_for_nodes:
        return True
    on_cluster = site.address or os.environ.get("RAY_ADDRESS") or _is_ray_running()
    if config.num_threads or not on_cluster:
        return False
    if not _is_small(queries, gallery, config):
        return True
    if site.address:
        check_port(site.address)  # a wrong address is an error, used or not
    return False


def _is_small(queries: VectorSource, gallery: VectorSource, config: RankConfig) -> bool:
    """Whether it is done here before a cluster has begun; all else is reason to ask that."""
    if config.metric not in PRODUCTS or config.device != "cpu":
        return False
    if not (is_local(queries.uri) and is_local(gallery.uri)):
        return False
    core_ns = gallery.num_rows * whole_product_ns(queries.num_rows, gallery.dim)
    return core_ns * 1e-9 <= _SMALL_S * available_cpus()


def _is_ray_running() -> bool:
    # Not imported for this: it takes as long as ranking a small gallery.
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _refuse_duplicates(gallery: VectorSource, memory_bytes: int) -> None:
    if gallery.spec is not None:  # an index has each id once: `embed` sees to it
        return
    found = find_duplicate(gallery, memory_bytes)
    if found:
        raise IndexFormatError(
            f"{gallery.uri}: the id {found.row_id!r} occurs more than once, in {found.first[0]}, "
            f"row {found.first[1]}, and {found.second[0]}, row {found.second[1]}. Give each image "
            f"its own id, or allow it: `allow_duplicates`."
        )


def _parts(gallery: VectorSource, num_threads: int) -> tuple[VectorPart, ...]:
    """Parts in an order that jumps through the gallery.

    Rows of one class stand together in most galleries; met in turn, they would all be news.
    """
    rows = max(4096, min(_PART_ROWS, gallery.num_rows // (_PARTS_PER_WORKER * num_threads)))
    parts = split(gallery, rows)
    step = max(1, round(len(parts) * 0.618))
    while np.gcd(step, len(parts)) != 1:
        step += 1
    return tuple(parts[number * step % len(parts)] for number in range(len(parts)))


def _stamps(source: VectorSource) -> dict[str, tuple[int, int]]:
    if source.spec is not None:
        return {}
    uris = [uri for file in source.files for uri in (file.uri, file.ids_uri) if uri]
    return {uri: file_stamp(uri) for uri in uris}


def _run_key(
    queries: VectorSource, gallery: VectorSource, stamps: list[Any], settings: list[Any]
) -> str:
    sides = [
        # An index by what it holds, by whatever spelling it was named; other files by their places.
        [side.version, content_sha256(side)]
        + [side.id_column, side.vector_column, side.dim, side.dtype]
        + [[file.uri, file.num_rows] for file in side.files if side.spec is None]
        for side in (queries, gallery)
    ]
    return hashlib.sha256(json.dumps([sides, stamps, settings]).encode()).hexdigest()[:12]
