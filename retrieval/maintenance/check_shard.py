"""Whether a shard is what was committed: its bytes, columns, make of embeddings and vectors."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import IndexFormatError
from retrieval.index.reading import DAMAGED_SHARD, vectors_of
from retrieval.index.schema import as_index_columns, index_schema
from retrieval.index.shards import Shard
from retrieval.index.table import Index
from retrieval.storage import first_line, is_no_answer, join, not_read, parquet_file, read_buffer
from retrieval.vectors.checks import check_vectors

__all__ = ["check_shard", "length_tolerance"]

_BATCH_BYTES = 2**20  # of vectors, which stay in a core's cache


def check_shard(index: Index, shard: Shard, rejected: pa.Array) -> list[str]:
    """Its first fault in one line, [] if it has none; `rejected` are the ids of the rejects.

    Raises:
        StorageError: the store does not answer.
    """
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
