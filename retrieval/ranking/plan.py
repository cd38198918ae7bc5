"""How the work of a ranking is cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.ranking.incremental import old_ids
from retrieval.ranking.search_parts import SearchTask
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.sides import content_sha256
from retrieval.search import (
    METRICS,
    BlockPlan,
    Choice,
    choose_basis,
    minkowski_power,
    plan_blocks,
    score_rule,
)
from retrieval.storage import file_stamp
from retrieval.vectors import (
    ArrayFile,
    LongIds,
    Sample,
    VectorPart,
    VectorSource,
    find_duplicate,
    read_id_text,
    sample_vectors,
    split,
)

__all__ = ["Plan", "choose_k", "make_plan"]

_PART_ROWS = 64 * 1024  # of the gallery, read by one worker
_PARTS_PER_WORKER = 8  # cut finer where there is less


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        queries, gallery: The two sides.
        k: Neighbours of each query.
        config: Settings.
        blocks: Queries that are ranked at a time, and rows that are read at a time.
        parts: Of the gallery, in the order in which they are read.
        num_threads: Threads of a process that ranks.
        stamps: Size and time of each foreign file when it was opened.
    """

    queries: VectorSource
    gallery: VectorSource
    k: int
    config: RankConfig
    blocks: BlockPlan
    parts: tuple[VectorPart, ...]
    num_threads: int
    stamps: Mapping[str, tuple[int, int]]

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

    def task(self) -> SearchTask:
        """What each part of the gallery is searched for."""
        config = self.config
        return SearchTask(
            self.gallery,
            self.k,
            config.metric,
            config.exclude_self,
            self.blocks.gallery_rows,
            config.device,
        )

    @property
    def run_key(self) -> str:
        """Hash of all that decides the result: the same key, the same parts."""
        config = self.config
        rule = score_rule(config.metric)
        settings = [self.k, config.metric, rule, config.exclude_self, self.blocks.query_rows]
        return _run_key(self.queries, self.gallery, [*self.stamps.items()], settings)

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
    queries: VectorSource,
    gallery: VectorSource,
    config: RankConfig,
    num_threads: int,
    *,
    has_long_ids: bool = False,
) -> Plan:
    """Check that two sides can be ranked, and cut the work.

    Args:
        queries: The queries.
        gallery: The gallery.
        config: Settings.
        num_threads: Threads of a process that ranks.
        has_long_ids: Whether an id is too long for an array of one width; reading would raise
            LongIdError.

    Raises:
        RetrievalError: the two sides do not belong together, an id occurs twice in the gallery,
            or one query needs more memory than is allowed.

    Cost: reads the ids of foreign files, to find duplicates.
    """
    k = choose_k(queries, gallery, config)
    stamps = {**_stamps(queries), **_stamps(gallery)}
    memory_bytes = config.memory_for(num_threads)
    if not config.allow_duplicates:
        _refuse_duplicates(gallery, memory_bytes)
    if has_long_ids:
        long_ids = _find_long_ids(queries, gallery, config, memory_bytes // 3)
        queries = replace(queries, long_ids=long_ids)
        gallery = replace(gallery, long_ids=long_ids)
    return Plan(
        queries=queries,
        gallery=gallery,
        k=k,
        config=config,
        blocks=plan_blocks(queries.num_rows, gallery, k, memory_bytes, num_threads),
        parts=_parts(gallery, num_threads),
        num_threads=num_threads,
        stamps=stamps,
    )


def choose_k(
    queries: VectorSource, gallery: VectorSource, config: RankConfig, name: str = "`top_k`"
) -> int:
    """The k to rank; refuses sides that do not belong together.

    Args:
        queries: The queries.
        gallery: The gallery.
        config: Settings.
        name: What k is called, for the error.

    Raises:
        UsageError: no such metric, or k is outside the gallery.
        MismatchError: the sides are of different dimensions or models.
    """
    if config.metric not in METRICS and minkowski_power(config.metric) is None:
        raise UsageError(
            f"`metric` {config.metric}: unknown. Use one of {', '.join(METRICS)}, or minkowski:P "
            f"with P ≥ 1, as in minkowski:3."
        )
    if queries.dim != gallery.dim:
        raise MismatchError(
            f"{gallery.uri}: embeddings of {gallery.dim} dimensions, but those of {queries.uri} "
            f"have {queries.dim}. Embed both with the same model."
        )
    ours, theirs = queries.spec, gallery.spec
    if ours and theirs and ours.fingerprint != theirs.fingerprint:
        raise MismatchError(
            f"{gallery.uri}: made by {theirs.backbone} with fingerprint "
            f"{theirs.fingerprint[:12]}, but {queries.uri} by {ours.backbone} with "
            f"{ours.fingerprint[:12]}. Embed both with the same model, weights and preprocessing."
        )
    most = gallery.num_rows - config.exclude_self
    k = gallery.num_rows if config.top_k is None else config.top_k
    if config.top_k is not None and not 1 <= k <= most:
        without = " other than the query itself" if config.exclude_self else ""
        raise UsageError(
            f"{name} {k}: {gallery.uri} has {most} images{without}. Use 1 to {most}, or all."
        )
    return k


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
    files = [file for file in source.files if not isinstance(file, ArrayFile)]
    uris = [uri for file in files for uri in (file.uri, file.ids_uri) if uri]
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
