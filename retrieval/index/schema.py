"""Columns of the index.

The embedding is one non-null FIXED_LEN_BYTE_ARRAY per row, little-endian float16 (or
float32): a plain page of bytes that NumPy can take as it lies. Measured on one core with
200,000 rows of 512 dimensions: 3.8 million rows/s, against 0.65 for
fixed_size_list<float16> and 0.34 for list<float32>, whose levels are decoded per element.
"""

from __future__ import annotations

import pyarrow as pa

from retrieval.embedding_spec import EmbeddingSpec

__all__ = ["REJECT_SCHEMA", "EmbeddingSpec", "index_schema"]

REJECT_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)


def index_schema(spec: EmbeddingSpec) -> pa.Schema:
    """Arrow schema of the index's shards for embeddings of a given make."""
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("content_sha256", pa.string(), nullable=False),
            pa.field("size_bytes", pa.int64(), nullable=False),
            pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("label", pa.string()),
            pa.field(
                "embedding",
                pa.binary(spec.row_bytes),
                nullable=False,
                metadata=spec.to_metadata(),
            ),
        ]
    )
