"""Writes a ranking: its parts one by one, then the manifest that makes them visible."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.errors import IndexFormatError
from retrieval.ranking.folder import check_ranking_place, own_files
from retrieval.ranking.manifest import MANIFEST
from retrieval.ranking.parts import RANKING_SCHEMA, check_rows, read_part
from retrieval.storage import absolute_uri, check_writable, join, remove_written, write_bytes

__all__ = ["RankingWriter"]

_PIECE_BYTES = 2**26  # of ids that are written out at a time


class RankingWriter:
    """Writes the parts of a ranking, then makes them visible at once.

    Attributes:
        uri: The folder.
        num_parts, num_rows: Parts that are there, and their rows.
        num_resumed: How many of the parts an earlier run has written.
    """

    def __init__(self, uri: str, run_key: str | None = None) -> None:
        """Prepare a folder.

        Args:
            uri: The folder.
            run_key: 12 hexadecimal digits that stand for all that decides the parts: a run
                with the same key may go on after the parts of one that was killed.

        Raises:
            StorageError: it holds something that is no ranking, or cannot be written.
        """
        self.uri = absolute_uri(uri)
        self.num_parts = self.num_rows = self.num_resumed = 0
        self._run = run_key or uuid.uuid4().hex[:12]
        check_ranking_place(self.uri)
        self._before = own_files(self.uri)
        check_writable(self.uri)

    def resume(self) -> bool:
        """Keep the next part if an earlier run has written it; it is read to be sure."""
        name = self._name(self.num_parts)
        if name not in self._before:
            return False
        try:
            table = read_part(join(self.uri, name), None, None)
            check_rows(table, join(self.uri, name))
        except IndexFormatError:
            return False
        self._count(table)
        self.num_resumed += 1
        return True

    def write_part(self, table: pa.Table) -> None:
        """Write the next part: rows of RANKING_SCHEMA, sorted by query and rank.

        Ids may come as dictionaries, which hold each long one once: then no more than some
        64 MiB of them are written out at a time.
        """
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink,
            RANKING_SCHEMA,
            compression="zstd",
            use_dictionary=["query_id", "gallery_id"],
            write_page_checksum=True,
        ) as writer:
            for rows in _written_out(table):
                writer.write_table(rows.cast(RANKING_SCHEMA))
        write_bytes(join(self.uri, self._name(self.num_parts)), sink.getvalue())
        self._count(table)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Publish: write the manifest, then remove what the folder held before.

        Facts of the form of RANKING_FORMAT say so, as `format_version`.
        """
        parts = [self._name(number) for number in range(self.num_parts)]
        manifest = {**facts, "parts": parts}
        write_bytes(join(self.uri, MANIFEST), (json.dumps(manifest, indent=2) + "\n").encode())
        old = [name for name in self._before if name != MANIFEST and name not in parts]
        remove_written(self.uri, old)

    def _name(self, number: int) -> str:
        return f"part-{number:05d}-{self._run}.parquet"

    def _count(self, table: pa.Table) -> None:
        self.num_parts += 1
        self.num_rows += table.num_rows


def _written_out(table: pa.Table) -> Iterator[pa.Table]:
    """A table, or where it has dictionaries, slices of it without them."""
    table = table.unify_dictionaries().combine_chunks()
    num_bytes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            for chunk in column.chunks:  # one at most
                num_bytes += np.asarray(pc.binary_length(chunk.dictionary))[chunk.indices]
    number = np.cumsum(num_bytes) // _PIECE_BYTES
    starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), table.num_rows]
    for start, stop in pairwise(starts):
        rows = table.slice(start, stop - start)
        plain = [
            chunk.dictionary.take(chunk.indices) if pa.types.is_dictionary(chunk.type) else chunk
            for chunk in (column.combine_chunks() for column in rows.columns)
        ]
        yield pa.table(plain, table.column_names)
