"""The files of a ranking: Parquet parts in long form, and ranking.json.

ranking.json is written last and names the parts, so a folder without it is no ranking and a
part that it does not name is none of its own. Replacing a ranking writes new parts first,
then ranking.json, then removes the old parts: a reader sees the old ranking or the new one.
Parts of a run that was killed stay until the next finished one; the same run goes on after them.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import IndexFormatError, StorageError
from retrieval.format_version import check_format_version
from retrieval.storage import (
    DAMAGED_PARQUET,
    absolute_uri,
    check_writable,
    file_exists,
    first_line,
    join,
    list_files,
    open_input,
    read_bytes,
    remove_file,
    unfinished_files,
    write_bytes,
)

__all__ = [
    "RANKING_FORMAT",
    "RANKING_SCHEMA",
    "Ranking",
    "RankingWriter",
    "open_ranking",
    "read_parts",
]

MANIFEST = "ranking.json"
# 1 knew a version of an index by the addresses of its shards (shards_sha256), and one rule of
# scores; 2 knows it by their names and rows (content_sha256), and names the rule (score_rule).
RANKING_FORMAT = 2
# Parts as write_part names them: other tools' part-00000-….parquet must never be removed.
_PART = re.compile(r"part-\d{5,}-[0-9a-f]{12}\.parquet")

RANKING_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("gallery_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Ranking:
    """A finished ranking.

    Attributes:
        uri: Its folder.
        parts: Names of its Parquet files, in the order of the queries.
        facts: The rest of ranking.json: format version, inputs, metric, k, counts, settings,
            timings.
    """

    uri: str
    parts: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def score_rule(self) -> int:
        """The rule that its scores are by; see `retrieval.search.score_rule`."""
        rule: int = self.facts.get("score_rule", 1)
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
        advice = "Choose a new folder, or one that holds a ranking to replace."
        if file_exists(self.uri):
            raise StorageError(f"{self.uri}: is a file. {advice}")
        self._before = [file[len(self.uri) + 1 :] for file in list_files(self.uri)]
        strange = [name for name in self._before if name != MANIFEST and not _PART.fullmatch(name)]
        if strange:
            raise StorageError(
                f"{self.uri}: holds {strange[0]}, which is no part of a ranking. {advice}"
            )
        self._unfinished = unfinished_files(self.uri)
        check_writable(self.uri)

    def resume(self) -> bool:
        """Keep the next part if an earlier run has written it; it is read to be sure."""
        name = self._name(self.num_parts)
        if name not in self._before:
            return False
        try:
            with open_input(join(self.uri, name)) as stream:
                table = pq.read_table(stream, page_checksum_verification=True)
        except DAMAGED_PARQUET:
            return False
        if table.schema != RANKING_SCHEMA:
            return False
        self._count(table)
        self.num_resumed += 1
        return True

    def write_part(self, table: pa.Table) -> None:
        """Write the next part: rows of RANKING_SCHEMA, sorted by query and rank."""
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.cast(RANKING_SCHEMA),
            sink,
            compression="zstd",
            use_dictionary=["query_id", "gallery_id"],
            write_page_checksum=True,
        )
        write_bytes(join(self.uri, self._name(self.num_parts)), sink.getvalue())
        self._count(table)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Publish: write ranking.json, then remove what the folder held before.

        Facts of the form of RANKING_FORMAT say so, as `format_version`.
        """
        parts = [self._name(number) for number in range(self.num_parts)]
        manifest = {**facts, "parts": parts}
        write_bytes(join(self.uri, MANIFEST), (json.dumps(manifest, indent=2) + "\n").encode())
        old = [name for name in self._before if name != MANIFEST and name not in parts]
        for uri in [*(join(self.uri, name) for name in old), *self._unfinished]:
            remove_file(uri)

    def _name(self, number: int) -> str:
        return f"part-{number:05d}-{self._run}.parquet"

    def _count(self, table: pa.Table) -> None:
        self.num_parts += 1
        self.num_rows += table.num_rows


def open_ranking(uri: str) -> Ranking:
    """Open a finished ranking.

    Raises:
        StorageError: there is none, or its job has not finished.
        IndexFormatError: ranking.json is damaged, or written by a newer release.
    """
    uri = absolute_uri(uri)
    try:
        facts = json.loads(read_bytes(join(uri, MANIFEST)))
        check_format_version(facts, RANKING_FORMAT, join(uri, MANIFEST), IndexFormatError)
        parts = tuple(str(name) for name in facts.pop("parts"))
        for side in ("queries", "gallery"):
            if not isinstance(facts.get(side) or {}, dict):
                raise ValueError(f"{side} is no object")
    except OSError as error:
        raise StorageError(
            f"{uri}: no finished ranking there (no {MANIFEST}). "
            f"Make one: retrieval-cli rank QUERIES GALLERY {uri}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexFormatError(
            f"{join(uri, MANIFEST)}: cannot be read ({first_line(error)}). Rank again."
        ) from error
    return Ranking(uri, parts, facts)


def read_parts(
    ranking: Ranking, columns: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The parts of a ranking, one table at a time, sorted by query and rank.

    Args:
        ranking: The ranking.
        columns: Columns to read; all by default.
        names: Parts to read, some of `ranking.parts`; all by default.

    Raises:
        IndexFormatError: a part is missing or damaged; the message names it.
    """
    for name in ranking.parts if names is None else names:
        uri = join(ranking.uri, name)
        try:
            with open_input(uri) as stream:
                yield pq.read_table(stream, columns=columns, page_checksum_verification=True)
        except DAMAGED_PARQUET as error:
            raise IndexFormatError(
                f"{uri}: this part cannot be read ({first_line(error)}). Rank again."
            ) from error
