"""Everything that can be told of an index's health without the photos: shards, log, rejects."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import IndexFormatError, RetrievalError
from retrieval.index.history import read_commits, read_log, split_version
from retrieval.index.rejects import reject_tables
from retrieval.index.shards import Shard
from retrieval.index.table import Index, open_index
from retrieval.maintenance.check_shard import check_shard
from retrieval.progress import QUIET, Progress
from retrieval.storage import (
    join,
)
from retrieval.vectors import VectorFile, VectorSource
from retrieval.vectors.duplicates import find_duplicate

__all__ = ["Findings", "check_index"]

_AT_ONCE = 4  # shards in memory
_HASH_BYTES = 2**28  # of ids: 16 million before they are read a second time


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What came of checking a version of an index.

    Attributes:
        index: The index.
        version: The version.
        rows, num_shards: What it has by its log.
        num_rejected: Rejects that were read.
        faults: Each in one line, in the order of the shards, then of the whole; [] if sound.
    """

    index: str
    version: int
    rows: int
    num_shards: int
    num_rejected: int
    faults: list[str]

    @property
    def is_sound(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """The attributes by their names, without the faults, and whether there is one."""
        values = asdict(self)
        del values["faults"]
        return {**values, "is_sound": self.is_sound}


def check_index(index: Index | str, progress: Progress = QUIET) -> Findings:
    """Check a version of an index.

    Of each shard: it is there with its size and its SHA-256, the checksums of its pages hold,
    its columns and the make of its embeddings are the index's, it has the rows that the log
    says, all text is UTF-8, each vector is finite and not zero, and of length 1 if they are
    normalised. Of the whole: no id occurs twice, none is among the rejects, too; the rejects
    can be read; the counts of the run add up; each entry of the log leads to the next.

    Args:
        index: The version, or a place: INDEX or INDEX@12.
        progress: Says how many shards have been checked.

    Cost: reads every byte once, and the ids twice. Memory holds four shards, 16 bytes an id up
        to 256 MiB, and the ids of the rejects.
    """
    if isinstance(index, str):
        index = open_index(*split_version(index))
    faults, rejected = _check_rejects(index)
    by_shard = _check_shards(index, rejected, progress)
    sound = [shard for shard, found in zip(index.shards, by_shard, strict=True) if not found]
    return Findings(
        index=index.uri,
        version=index.version,
        rows=index.num_rows,
        num_shards=len(index.shards),
        num_rejected=len(rejected),
        faults=[
            *(fault for found in by_shard for fault in found),
            *_check_ids(index, sound),
            *faults,
            *_check_counts(index, len(rejected)),
            *_check_log(index),
        ],
    )


def _check_shards(index: Index, rejected: pa.Array, progress: Progress) -> list[list[str]]:
    """The faults of each shard, in their order."""
    done: list[str] = []

    def check(shard: Shard) -> list[str]:
        found = check_shard(index, shard, rejected)
        done.append(shard.path)
        return found

    with (
        progress.line("checked", "shards", len(index.shards), lambda: len(done)),
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        try:
            return list(pool.map(check, index.shards))
        finally:
            pool.shutdown(cancel_futures=True)


def _check_ids(index: Index, shards: list[Shard]) -> Iterator[str]:
    """No id occurs twice in the shards that are sound."""
    source = VectorSource(
        uri=index.uri,
        files=tuple(VectorFile(join(index.uri, each.path), each.num_rows) for each in shards),
        dim=index.spec.dim,
        dtype=index.spec.dtype,
        id_column="image_id",
        vector_column="embedding",
        spec=index.spec,
    )
    try:
        twice = find_duplicate(source, _HASH_BYTES)
    except IndexFormatError as error:
        yield str(error)
        return
    if twice:
        yield (
            f"{index.uri}: the id {twice.row_id!r} occurs more than once, in {twice.first[0]}, row "
            f"{twice.first[1]}, and {twice.second[0]}, row {twice.second[1]}."
        )


def _check_rejects(index: Index) -> tuple[list[str], pa.Array]:
    """Faults of the rejects, and their ids."""
    ids = pa.chunked_array([], pa.string())
    try:
        tables = list(reject_tables(index, ["image_id"]))
        ids = pa.chunked_array(
            [part for table in tables for part in table["image_id"].chunks], pa.string()
        )
    except RetrievalError as error:
        return [str(error)], ids.combine_chunks()
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    faults = [
        f"{index.uri}: {row['values']!r} is rejected more than once."
        for row in twice[:1].to_pylist()
    ]
    return faults, ids.combine_chunks()


def _check_counts(index: Index, num_rejected: int) -> Iterator[str]:
    """What the run says of itself must be what is there."""
    said, run = f"{index.uri}: the run of version {index.version} says", index.run
    if run.get("num_rejected", num_rejected) != num_rejected:
        yield f"{said} {run['num_rejected']} rejects, but {num_rejected} are there."
    num_photos = index.num_rows + num_rejected
    if run.get("num_listed", num_photos) != num_photos:
        yield (
            f"{said} {run['num_listed']} photos were listed, but {index.num_rows} rows and "
            f"{num_rejected} rejects are there."
        )


def _check_log(index: Index) -> Iterator[str]:
    """From this version backwards, each entry of the log must lead to the content after it."""
    log = read_log(index.uri)
    first = log.first_entry(index.version)
    if any(version < first for version in log.entries):
        yield f"{index.uri}: the log lacks version {first - 1}."
    content = {shard.path for shard in index.shards}
    try:
        for commit in read_commits(index.uri, range(index.version, first - 1, -1)):
            strange = (commit.added - content) | ((commit.removed - commit.added) & content)
            strange |= content ^ (content if commit.shards is None else commit.shards)
            if strange:
                yield (
                    f"{index.uri}: the log's entry of version {commit.version} does not lead to "
                    f"its content: {min(strange)} is too much or missing."
                )
                return
            content = commit.before(content)
    except IndexFormatError as error:
        yield str(error)
        return
    if first == 0 and content:
        yield f"{index.uri}: the log never added {min(content)}."
