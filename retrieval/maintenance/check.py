"""Everything that can be told of an index's health without the photos: shards, log, rejects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, RetrievalError
from retrieval.index.columns import as_index_columns
from retrieval.index.history import read_commits, read_log, split_version
from retrieval.index.reading import DAMAGED_SHARD, vectors_of
from retrieval.index.rejects import reject_tables
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard
from retrieval.index.table import Index, open_index
from retrieval.progress import QUIET, Progress
from retrieval.storage import (
    first_line,
    is_no_answer,
    join,
    not_read,
    parquet_file,
    read_buffer,
)
from retrieval.vectors import VectorFile, VectorSource
from retrieval.vectors.checks import check_vectors
from retrieval.vectors.duplicates import find_duplicate

__all__ = ["Findings", "check_index", "length_tolerance"]

_AT_ONCE = 4  # shards in memory
_BATCH_BYTES = 2**20  # of vectors, which stay in a core's cache
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
        found = _check_shard(index, shard, rejected)
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


def _check_shard(index: Index, shard: Shard, rejected: pa.Array) -> list[str]:
    where = join(index.uri, shard.path)
    try:
        data = read_buffer(where)
    except OSError as error:
        if is_no_answer(error):
            raise not_read(where, error) from error
        return [f"{where}: cannot be read ({first_line(error)})."]
    if len(data) != shard.size_bytes:
        return [f"{where}: {len(data)} bytes, but {shard.size_bytes} were committed."]
    if shard.sha256 and hashlib.sha256(data).hexdigest() != shard.sha256:
        return [f"{where}: not the bytes that were committed: their SHA-256 is another."]
    try:
        with parquet_file(pa.BufferReader(data), page_checksum_verification=True) as file:
            _check_make(index.spec, file, where, is_ours=bool(shard.sha256))
            if file.metadata.num_rows != shard.num_rows:
                found = f"{file.metadata.num_rows} rows, but {shard.num_rows} were committed"
                raise IndexFormatError(f"{where}: {found}.")
            _check_rows(index.spec, file, shard, where, rejected)
    except IndexFormatError as error:
        return [str(error)]
    except DAMAGED_SHARD as error:
        return [f"{where}: cannot be read as Parquet ({first_line(error)})."]
    return []


def _check_make(spec: EmbeddingSpec, file: pq.ParquetFile, where: str, *, is_ours: bool) -> None:
    """The columns, and how the embeddings were made; of others' files `_check_rows` tells."""
    found, needed = file.schema_arrow, index_schema(spec)
    if is_ours and found != needed:
        strange = [field for field in needed if field not in list(found)]
        what = (
            f"no column {strange[0].name} of {strange[0].type}"
            if strange
            else f"the columns {', '.join(found.names)}"
        )
        raise IndexFormatError(f"{where}: {what}; the index's columns are needed.")
    place = found.get_field_index("embedding")
    metadata = (found.field(place).metadata if place >= 0 else None) or {}
    if not is_ours and b"fingerprint" not in metadata:
        return
    made = EmbeddingSpec.from_metadata(
        {key.decode(): value.decode() for key, value in metadata.items()}, where
    )
    if not made.makes_same(spec):
        raise IndexFormatError(
            f"{where}: made by {made.backbone} with fingerprint {made.fingerprint[:12]}, but the "
            f"index by {spec.backbone} with {spec.fingerprint[:12]}."
        )


def _check_rows(
    spec: EmbeddingSpec, file: pq.ParquetFile, shard: Shard, where: str, rejected: pa.Array
) -> None:
    row, schema = 0, index_schema(spec)
    for batch in file.iter_batches(max(1, _BATCH_BYTES // spec.row_bytes), use_threads=False):
        batch = as_index_columns(batch, schema, is_ours=bool(shard.sha256))
        vectors = vectors_of(pa.chunked_array([batch["embedding"]]), spec.dim, spec.dtype)
        check_vectors(vectors, where, row)
        if spec.normalised:
            _check_lengths(vectors, where, row)
        both = pc.is_in(batch["image_id"], value_set=rejected)
        if pc.any(both).as_py():
            name = batch["image_id"].filter(both)[0].as_py()
            raise IndexFormatError(f"{where}: the id {name!r} is among the rejects, too.")
        row += batch.num_rows


def _check_lengths(vectors: NDArray[Any], where: str, first_row: int) -> None:
    values = vectors.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values))
    dim, dtype = vectors.shape[1], vectors.dtype.name
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= length_tolerance(dim, dtype)))
    if wrong.size:
        raise IndexFormatError(
            f"{where}, row {first_row + wrong[0]}: the vector has length {lengths[wrong[0]]:.6g}, "
            f"but 1 is needed."
        )


def length_tolerance(dim: int, dtype: str) -> float:
    """How far from 1 the length of a unit vector of this type can be found.

    Rounding a component x to float16 errs by at most 2⁻¹¹ |x|, or 2⁻²⁵ where x is below the
    normal numbers; so the error of the vector is at most 2⁻¹¹ + 2⁻²⁵ √D long, and its length
    changes by no more. For float32 the same with 2⁻²⁴ and next to nothing. Measuring it in
    float32 adds a relative error of D · 2⁻²⁴ at most to the square, half of it to the length.

    Args:
        dim: Dimensions D.
        dtype: "float16" or "float32".

    Example:
        >>> round(length_tolerance(512, "float16"), 6)
        0.000504
    """
    rounding = 2**-11 + 2**-25 * dim**0.5 if dtype == "float16" else 2**-23
    return rounding + dim * 2**-25


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
