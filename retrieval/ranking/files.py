"""The files of a ranking: Parquet parts in long form, and their manifest, _ranking.json.

The manifest is written last and names the parts, so a folder without it is no ranking and a part
that it does not name is none of its own. Replacing a ranking writes new parts first, then the
manifest, then removes the old parts: a reader sees the old ranking or the new one. Parts of a run
that was killed stay until the next finished one; the same run goes on after them.

Its name begins with "_" so that others read the folder as one of Parquet alone. The first releases
wrote ranking.json, which is read where no _ranking.json is, and goes when the ranking is replaced.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.errors import IndexFormatError, StorageError
from retrieval.ranking.manifest import MANIFEST, MANIFESTS, RANKING_FORMAT, read_manifest
from retrieval.ranking.parts import RANKING_SCHEMA, check_rows, read_part
from retrieval.storage import (
    absolute_uri,
    check_writable,
    entries,
    entry_at,
    file_exists,
    first_line,
    join,
    none_there,
    remove_written,
    write_bytes,
    written_as,
)

__all__ = [
    "RANKING_FORMAT",
    "RANKING_SCHEMA",
    "Ranking",
    "RankingWriter",
    "check_ranking_place",
    "is_ranking",
    "open_ranking",
    "read_parts",
    "read_tables",
    "remove_ranking",
]

# Parts as write_part names them: other tools' part-00000-….parquet must never be removed.
_PART = re.compile(r"part-\d{5,}-[0-9a-f]{12}\.parquet")

_PIECE_BYTES = 2**26  # of ids that are written out at a time


@dataclass(frozen=True)
class Ranking:
    """A finished ranking.

    Attributes:
        uri: Its folder.
        parts: Names of its Parquet files, in the order of the queries.
        facts: The rest of its manifest: format version, inputs, metric, k, counts, settings,
            timings. Read from a file, it is a `JsonObject`.
        manifest: The file that they are from.
    """

    uri: str
    parts: tuple[str, ...]
    facts: Mapping[str, Any]
    manifest: str = MANIFEST

    @property
    def score_rule(self) -> int:
        """The rule that its scores are by; see `retrieval.search.score_rule`.

        Raises:
            IndexFormatError: it is no number of a rule.
        """
        rule = self.facts.get("score_rule", 1)
        if type(rule) is not int or rule < 1:
            raise IndexFormatError(
                f"{self.manifest}: score_rule is {rule!r}; a number from 1 on is needed. Rank "
                f"again."
            )
        return rule


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
        self._before = _own_files(self.uri)
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


def check_ranking_place(uri: str) -> None:
    """Refuse a folder that a ranking would be mixed up with; hidden files of others stay there.

    Raises:
        StorageError: it holds something that is no part of a ranking, or a link, or is a file.
    """
    uri = absolute_uri(uri)
    advice = "Choose a new folder, or one that holds a ranking to replace."
    entry = entry_at(uri)
    if entry and entry.kind in ("file", "other"):
        raise StorageError(f"{uri}: is a file. {advice}")
    for entry in entries(uri):
        is_hidden = any(name.startswith((".", "_")) for name in entry.path.split("/"))
        is_hidden &= not _is_own(entry.path)
        is_fit = {"file": _is_own(entry.path), "folder": not _is_own(entry.path)}
        if not (is_hidden or is_fit.get(entry.kind, False)):
            raise StorageError(
                f"{uri}: holds {entry.path}, which is no part of a ranking. {advice}"
            )
    if name := _foreign_manifest(uri):
        raise StorageError(f"{uri}: holds {name}, which is no part of a ranking. {advice}")


def _foreign_manifest(uri: str) -> str | None:
    """A file with a manifest's name that is none by its content, or if damaged by the parts."""
    has_parts = any(_PART.fullmatch(name) for name in _own_files(uri))
    for name in MANIFESTS:
        try:
            read_manifest(uri, (name,))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, IndexFormatError):
            if not has_parts:
                return name
        has_parts = False  # they are those of the newer manifest
    return None


def _own_files(uri: str) -> list[str]:
    """The files of a ranking, and what a killed run has left of some."""
    files = (entry.path for entry in entries(uri) if entry.kind == "file")
    return [name for name in files if _is_own(written_as(name))]


def _is_own(name: str) -> bool:
    return name in MANIFESTS or _PART.fullmatch(name) is not None


def remove_ranking(uri: str) -> None:
    """Remove the files of a ranking, its manifest first; what else lies there stays.

    Raises:
        StorageError: a file cannot be removed.
    """
    uri = absolute_uri(uri)
    names = _own_files(uri)
    remove_written(uri, reversed(MANIFESTS))  # never the older one alone, if both lie there
    remove_written(uri, names)


def is_ranking(uri: str) -> bool:
    """Whether a finished ranking is there; StorageError if the store does not say."""
    return any(file_exists(join(absolute_uri(uri), name)) for name in MANIFESTS)


def open_ranking(uri: str) -> Ranking:
    """Open a finished ranking.

    Raises:
        StorageError: there is none, or its job has not finished, or it cannot be read.
        IndexFormatError: its manifest is damaged, or written by a newer release.
    """
    uri = absolute_uri(uri)
    try:
        facts, manifest = read_manifest(uri)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"finished ranking there (no {MANIFEST})"
        line = none_there(uri, what, "rank QUERIES GALLERY", "RANKING")
        raise StorageError(line) from error
    except OSError as error:
        raise StorageError(
            f"{uri}: its ranking cannot be opened ({first_line(error)}). Allow reading it, or "
            f"try again."
        ) from error
    parts = tuple(facts.pop("parts"))
    if strange := [name for name in parts if not _PART.fullmatch(name)]:
        raise IndexFormatError(
            f"{manifest}: names {strange[0]!r}, which is no part of a ranking. Rank again."
        )
    return Ranking(uri, parts, facts, manifest)


def read_parts(
    ranking: Ranking, columns: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The parts of a ranking, one table at a time, sorted by query and rank.

    Args:
        ranking: The ranking.
        columns: Columns to read; all by default.
        names: Parts to read, some of `ranking.parts`; all by default.

    Raises:
        IndexFormatError: a part is missing or damaged, the ranks of a query are not 1, 2, ..., a
            score is NaN, or all parts hold more or fewer rows than the manifest says. The message
            names the part.

    Cost: reads each part once; the checks take some 20 ns a row.
    """
    num_rows = num_queries = 0
    for name in ranking.parts if names is None else names:
        table = read_part(join(ranking.uri, name), columns, ranking.facts.get("num_rows"))
        num_queries += check_rows(table, join(ranking.uri, name))
        num_rows += table.num_rows
        yield table
    if names is None:
        said = ranking.facts.get("num_rows", num_rows)
        if num_rows != said or num_queries > ranking.facts.get("num_queries", num_queries):
            raise IndexFormatError(
                f"{ranking.manifest}: says {said} rows of {ranking.facts.get('num_queries')} "
                f"queries, but its parts hold {num_rows} of {num_queries}. Rank again."
            )


def read_tables(ranking: Ranking) -> Iterator[pa.Table]:
    """The parts of a ranking as `read_parts`, but whatever their rows are, for who checks these.

    Raises:
        IndexFormatError: a part is missing or damaged, or of other columns.
    """
    for name in ranking.parts:
        yield read_part(join(ranking.uri, name), None, ranking.facts.get("num_rows"))
