"""What differs between two versions of an index, id by id.

Shards never change, so those that both versions name hold the same rows and are not read. The
rows of the others lie in a database on the local disk, and a join gives each id one state:

added, removed   it is in one of the versions alone
moved            another id, gone now, had the same content; one id each, in the order of the ids
changed          its content is another
relabelled       its content is the same, its label another
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from retrieval.index.database import scratch_database
from retrieval.index.history import split_version
from retrieval.index.reading import read_columns
from retrieval.index.shards import Shard
from retrieval.index.table import Index, open_index

__all__ = ["STATES", "Changes", "compare_versions"]

STATES = ("added", "removed", "moved", "changed", "relabelled")
_COLUMNS = ["image_id", "content_sha256", "label"]

_JUDGE = """
CREATE TABLE judged AS
SELECT
    image_id,
    coalesce(before.content_sha256, after.content_sha256) AS content,
    before.label AS old_label, after.label AS new_label,
    CASE WHEN before.content_sha256 IS NULL THEN 'added'
         WHEN after.content_sha256 IS NULL THEN 'removed'
         WHEN before.content_sha256 <> after.content_sha256 THEN 'changed'
         WHEN before.label IS DISTINCT FROM after.label THEN 'relabelled'
         ELSE 'unchanged' END AS state
FROM before FULL JOIN after USING (image_id);

CREATE VIEW numbered AS
SELECT *, row_number() OVER (PARTITION BY state, content ORDER BY image_id) AS number
FROM judged WHERE state IN ('added', 'removed');

CREATE TABLE moved AS
SELECT gone.image_id AS old_id, come.image_id AS new_id
FROM numbered AS gone JOIN numbered AS come USING (content, number)
WHERE gone.state = 'removed' AND come.state = 'added';

DELETE FROM judged
WHERE (state = 'removed' AND image_id IN (SELECT old_id FROM moved))
   OR (state = 'added' AND image_id IN (SELECT new_id FROM moved));
"""


@dataclass(frozen=True)
class Changes:
    """How two versions differ.

    Attributes:
        counts: Ids of each of STATES; each id has one.
        examples: The first ids of each state, by id: texts; of moved ones `from` and `to`; of
            relabelled ones `id`, `from` and `to`.
        num_shared_shards: Shards of both, which were not read.
        num_rows_read: Rows of the others, of both versions.
    """

    counts: Mapping[str, int]
    examples: Mapping[str, list[Any]]
    num_shared_shards: int
    num_rows_read: int


def compare_versions(before: Index | str, after: Index | str, num_examples: int = 0) -> Changes:
    """Compare two versions of one index.

    Args:
        before: A version, or its place as INDEX@11.
        after: Another, which may be the older one.
        num_examples: Most ids to name of each state.

    Raises:
        IndexFormatError: a shard is missing, as of a version that has been vacuumed, or damaged.

    Cost: reads ids, hashes and labels of the shards that are in one version alone. Memory is
        that of one shard's texts and 1 GiB; more goes to the folder of temporary files.
    """
    before, after = _opened(before), _opened(after)
    shared = set(before.shards) & set(after.shards)
    with scratch_database() as database:
        num_rows = sum(
            _load(database, name, index, [each for each in index.shards if each not in shared])
            for name, index in (("before", before), ("after", after))
        )
        database.execute(_JUDGE)
        found = dict(database.sql("SELECT state, count(*) FROM judged GROUP BY state").fetchall())
        found["moved"] = database.sql("SELECT count(*) FROM moved").fetchall()[0][0]
        return Changes(
            {state: found.get(state, 0) for state in STATES},
            {state: _examples(database, state, num_examples) for state in STATES},
            len(shared),
            num_rows,
        )


def _opened(index: Index | str) -> Index:
    return open_index(*split_version(index)) if isinstance(index, str) else index


def _load(
    database: duckdb.DuckDBPyConnection, name: str, index: Index, shards: Sequence[Shard]
) -> int:
    """Fill a table with what some shards say of their photos; gives the number of rows."""
    database.execute(
        f"CREATE TABLE {name} (image_id VARCHAR, content_sha256 VARCHAR, label VARCHAR)"
    )
    for shard in shards:
        database.register("texts", read_columns(replace(index, shards=(shard,)), _COLUMNS))
        database.execute(f"INSERT INTO {name} SELECT * FROM texts")  # noqa: S608 (our own name)
        database.unregister("texts")
    return sum(shard.num_rows for shard in shards)


def _examples(database: duckdb.DuckDBPyConnection, state: str, limit: int) -> list[Any]:
    if state == "moved":
        rows = database.execute("SELECT * FROM moved ORDER BY new_id LIMIT ?", [limit]).fetchall()
        return [{"from": old, "to": new} for old, new in rows]
    query = "SELECT image_id, old_label, new_label FROM judged WHERE state = ?"
    rows = database.execute(f"{query} ORDER BY image_id LIMIT ?", [state, limit]).fetchall()
    if state == "relabelled":
        return [{"id": name, "from": old, "to": new} for name, old, new in rows]
    return [name for name, _, _ in rows]
