"""The files of a ranking: Parquet parts in long form, and their manifest, _ranking.json.

The manifest is written last and names the parts, so a folder without it is no ranking and a part
that it does not name is none of its own. Replacing a ranking writes new parts first, then the
manifest, then removes the old parts: a reader sees the old ranking or the new one. Parts of a run
that was killed stay until the next finished one; the same run goes on after them.

Its name begins with "_" so that others read the folder as one of Parquet alone. The first releases
wrote ranking.json, which is read where no _ranking.json is, and goes when the ranking is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from retrieval.errors import IndexFormatError, StorageError
from retrieval.ranking.folder import PART, check_ranking_place, is_ranking, remove_ranking
from retrieval.ranking.manifest import MANIFEST, RANKING_FORMAT, read_manifest
from retrieval.ranking.parts import RANKING_SCHEMA, check_rows, read_part
from retrieval.ranking.ranking_writer import RankingWriter
from retrieval.storage import (
    absolute_uri,
    first_line,
    join,
    none_there,
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


@dataclass(frozen=True)
class Ranking:
    """A finished ranking.

    Attributes:
        uri: Its folder.
        parts: Names of its Parquet files, in the order of the queries.
        facts: The rest of its manifest: format version, inputs, metric, k, counts, settings,
            timings. Read from a file, it is a `JsonObject`.
        manifest: The file that they are from.
        held: The rows of a ranking in memory, sorted by query and rank, in the place of parts.
    """

    uri: str
    parts: tuple[str, ...]
    facts: Mapping[str, Any]
    manifest: str = MANIFEST
    held: pa.Table | None = None

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
    if strange := [name for name in parts if not PART.fullmatch(name)]:
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
    if ranking.held is not None:
        yield ranking.held if columns is None else ranking.held.select(columns)
        return
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
