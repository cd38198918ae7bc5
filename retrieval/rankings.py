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
    entries,
    entry_at,
    first_line,
    join,
    open_input,
    parquet_table,
    read_bytes,
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
    "open_ranking",
    "read_parts",
    "remove_ranking",
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
        check_ranking_place(self.uri)
        self._before = _own_files(self.uri)
        check_writable(self.uri)

    def resume(self) -> bool:
        """Keep the next part if an earlier run has written it; it is read to be sure."""
        name = self._name(self.num_parts)
        if name not in self._before:
            return False
        try:
            with open_input(join(self.uri, name)) as stream:
                table = parquet_table(stream, page_checksum_verification=True)
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
        remove_written(self.uri, old)

    def _name(self, number: int) -> str:
        return f"part-{number:05d}-{self._run}.parquet"

    def _count(self, table: pa.Table) -> None:
        self.num_parts += 1
        self.num_rows += table.num_rows


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
        is_fit = {"file": _is_own(entry.path), "folder": not _is_own(entry.path)}
        if not (is_hidden or is_fit.get(entry.kind, False)):
            raise StorageError(
                f"{uri}: holds {entry.path}, which is no part of a ranking. {advice}"
            )
    if not _is_ranking_or_none(uri):
        raise StorageError(f"{uri}: holds {MANIFEST}, which is no part of a ranking. {advice}")


def _is_ranking_or_none(uri: str) -> bool:
    """Whether a manifest is of a ranking, by its content; a damaged one by the parts beside it."""
    try:
        found = json.loads(read_bytes(join(uri, MANIFEST)))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        found = None
    has_parts = isinstance(found, dict) and isinstance(found.get("parts"), list)
    return has_parts or any(_PART.fullmatch(name) for name in _own_files(uri))


def _own_files(uri: str) -> list[str]:
    """The files of a ranking, and what a killed run has left of some."""
    files = (entry.path for entry in entries(uri) if entry.kind == "file")
    return [name for name in files if _is_own(written_as(name))]


def _is_own(name: str) -> bool:
    return name == MANIFEST or _PART.fullmatch(name) is not None


def remove_ranking(uri: str) -> None:
    """Remove the files of a ranking, its manifest first; what else lies there stays.

    Raises:
        StorageError: a file cannot be removed.
    """
    uri = absolute_uri(uri)
    names = _own_files(uri)
    remove_written(uri, [MANIFEST])
    remove_written(uri, names)


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
    if strange := [name for name in parts if not _PART.fullmatch(name)]:
        raise IndexFormatError(
            f"{join(uri, MANIFEST)}: names {strange[0]!r}, which is no part of a ranking. Rank "
            f"again."
        )
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
                yield parquet_table(stream, columns=columns, page_checksum_verification=True)
        except DAMAGED_PARQUET as error:
            raise IndexFormatError(
                f"{uri}: this part cannot be read ({first_line(error)}). Rank again."
            ) from error
