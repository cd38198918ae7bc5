"""What has changed: the listing of a gallery against the rows that are already embedded.

Both sides lie in a database on the local disk (DuckDB, which works in bounded memory whatever
the number of rows), and one pass of joins gives each listed photo one of these states:

same      its row stays: size and time are those of the row, or else its content is
moved     another id's row that lost its place has the same content: its embedding is kept
rejected  refused before, and not changed since, or just found to be as it was
new       to be embedded: unknown, or with another content

Content is read only where size and time cannot tell: of a photo whose time has changed, of one
that was changed just when it was listed last, and of one whose size is that of a row that lost
its place. Rows that no photo claims are left out of the next version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from retrieval.errors import UsageError
from retrieval.index.database import scratch_database

__all__ = ["CARRIED_SCHEMA", "LISTED_SCHEMA", "TRIED_NOW_US", "Difference", "open_difference"]

LISTED_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("label", pa.string()),
    ]
)
# A row of a shard, by its number, and what the listing says of it now.
CARRIED_SCHEMA = pa.schema([pa.field("row", pa.int64(), nullable=False), *LISTED_SCHEMA])
_STORED_SCHEMA = pa.schema(
    [
        *LISTED_SCHEMA,
        pa.field("content_sha256", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)
# See `Difference.add_refused`.
TRIED_NOW_US = 2**63 - 1

_TABLES = """
CREATE TABLE listed (
    image_id VARCHAR, uri VARCHAR, size_bytes BIGINT, modified_at BIGINT, label VARCHAR);
CREATE TABLE stored (
    image_id VARCHAR, uri VARCHAR, size_bytes BIGINT, modified_at BIGINT, label VARCHAR,
    content_sha256 VARCHAR, file INTEGER, "row" BIGINT, settled_before BIGINT);
CREATE TABLE refused (
    image_id VARCHAR, uri VARCHAR, reason VARCHAR, message VARCHAR, size_bytes BIGINT,
    modified_at BIGINT, settled_before BIGINT);
CREATE TABLE hashed (image_id VARCHAR, content_sha256 VARCHAR);
"""
# An id has more than one row where a killed run had embedded a photo that has a row already.
_CHOOSE = """
CREATE TABLE chosen AS
SELECT stored.* FROM stored LEFT JOIN listed USING (image_id)
QUALIFY row_number() OVER (
    PARTITION BY image_id
    ORDER BY (stored.size_bytes = listed.size_bytes
              AND stored.modified_at = listed.modified_at) DESC NULLS LAST, file, "row") = 1;
CREATE TABLE turned_away AS SELECT * FROM refused
QUALIFY row_number() OVER (
    PARTITION BY image_id ORDER BY modified_at DESC, settled_before DESC, reason) = 1;
"""
# A time of 0 is that of a store that keeps none.
_JUDGE = """
CREATE TABLE judged AS
SELECT
    listed.*, chosen.file, chosen."row", chosen.content_sha256 AS known_sha256,
    chosen.uri IS DISTINCT FROM listed.uri
        OR chosen.label IS DISTINCT FROM listed.label
        OR chosen.modified_at <> listed.modified_at AS is_touched,
    CASE
        WHEN chosen.image_id IS NOT NULL AND chosen.size_bytes = listed.size_bytes THEN
            CASE WHEN $by_content OR listed.modified_at = 0
                      OR chosen.modified_at <> listed.modified_at
                      OR listed.modified_at >= chosen.settled_before
                 THEN 'doubtful' ELSE 'same' END
        WHEN chosen.image_id IS NULL
             AND turned_away.size_bytes = listed.size_bytes
             AND turned_away.modified_at = listed.modified_at
             AND ((turned_away.settled_before = $tried_now AND turned_away.uri = listed.uri)
                  OR (NOT $by_content AND listed.modified_at <> 0
                      AND listed.modified_at < turned_away.settled_before))
        THEN 'rejected'
        ELSE 'new' END AS state
FROM listed LEFT JOIN chosen USING (image_id) LEFT JOIN turned_away USING (image_id);
-- Rows that no photo of their id claims.
CREATE VIEW loose AS
SELECT * FROM chosen WHERE NOT EXISTS (
    SELECT 1 FROM judged WHERE judged.image_id = chosen.image_id AND judged.state = 'same');
"""
_DOUBTFUL = """
SELECT image_id, uri, size_bytes FROM judged
WHERE state = 'doubtful'
      OR (state = 'new' AND size_bytes IN (SELECT size_bytes FROM loose))
ORDER BY image_id
"""
_SETTLE = """
UPDATE judged SET state = 'same' FROM hashed
WHERE judged.image_id = hashed.image_id AND state = 'doubtful'
      AND hashed.content_sha256 = known_sha256;
CREATE TABLE donors AS
SELECT content_sha256, min_by(file, image_id) AS file, min_by("row", image_id) AS "row",
       min(image_id) AS image_id
FROM loose WHERE content_sha256 IN (SELECT content_sha256 FROM hashed)
GROUP BY content_sha256;
UPDATE judged SET state = 'moved', file = donors.file, "row" = donors."row"
FROM hashed JOIN donors USING (content_sha256)
WHERE judged.image_id = hashed.image_id AND state IN ('doubtful', 'new');
UPDATE judged SET state = 'new' WHERE state = 'doubtful';
"""


class Difference:
    """The two sides, and what came of comparing them.

    Call `add_listed`, `add_stored` and `add_refused`; then `compare`; then `settle` with the
    hashes of what it names; then ask.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database
        database.execute(_TABLES)

    def add_listed(self, batches: Iterable[pa.RecordBatch]) -> None:
        """The listing: rows of LISTED_SCHEMA.

        Raises:
            UsageError: an id is listed twice.
        """
        self._insert(
            "listed",
            LISTED_SCHEMA,
            batches,
            "image_id, uri, size_bytes, epoch_us(modified_at), label",
        )
        twice = self._database.execute(
            "SELECT image_id FROM listed GROUP BY image_id HAVING count(*) > 1 "
            "ORDER BY image_id LIMIT 1"
        ).fetchone()
        if twice:
            raise UsageError(
                f"{twice[0]!r}: two photos are listed with this id. Each photo needs one of its "
                f"own: rename one of them."
            )

    def add_stored(self, file: int, batches: Iterable[pa.RecordBatch], settled_us: int) -> None:
        """Rows of one shard, in its order.

        Args:
            file: Number of the shard; the lower ones win where an id has several fitting rows.
            batches: image_id, uri, size_bytes, modified_at, label and content_sha256.
            settled_us: Microseconds since 1970. A photo changed before this moment cannot have
                been changed once more at the same time after it was read.
        """
        columns = "image_id, uri, size_bytes, epoch_us(modified_at), label, content_sha256"
        self._insert(
            "stored",
            _STORED_SCHEMA,
            _numbered(batches),
            f'{columns}, {file}, "row", {settled_us}',
        )

    def add_refused(self, rejects: pa.Table, settled_us: int) -> None:
        """Photos that were refused.

        Args:
            rejects: Rows of INDEX_REJECT_SCHEMA.
            settled_us: As of `add_stored`; TRIED_NOW_US of those that were tried again just now,
                by their address, and refused for the same reason.
        """
        self._insert(
            "refused",
            rejects.schema,
            rejects.to_batches(),
            f"image_id, uri, reason, message, size_bytes, epoch_us(modified_at), {settled_us}",
        )

    def compare(self, *, by_content: bool = False) -> pa.Table:
        """Compare the two sides.

        Args:
            by_content: Trust neither size nor time: every photo's content decides.

        Returns:
            image_id, uri and size_bytes of the photos whose content must be hashed, by id.
        """
        self._database.execute(_CHOOSE)
        judge = _JUDGE.replace("$by_content", str(by_content).upper())
        judge = judge.replace("$tried_now", str(TRIED_NOW_US))
        self._database.execute(judge)
        return self._database.sql(_DOUBTFUL).to_arrow_table()

    def settle(self, hashes: pa.Table) -> None:
        """Decide the rest.

        Args:
            hashes: image_id and content_sha256 of what `compare` has named; null where the
                photo could not be read, which leaves it to the next stage to say why.
        """
        self._insert("hashed", hashes.schema, hashes.to_batches(), "image_id, content_sha256")
        self._database.execute(_SETTLE)

    def num_of_states(self) -> Counter[str]:
        """Photos of each state."""
        found = self._database.execute("SELECT state, count(*) FROM judged GROUP BY state")
        return Counter(dict(found.fetchall()))

    def totals(self) -> dict[tuple[str, bool], tuple[int, int]]:
        """By state, and whether the id has a row: how many photos, and their bytes."""
        found = self._database.execute(
            "SELECT state, file IS NOT NULL, count(*), sum(size_bytes) FROM judged GROUP BY ALL"
        )
        return {
            (state, is_known): (num, int(size)) for state, is_known, num, size in found.fetchall()
        }

    def num_unlabelled(self) -> int:
        """Photos without a label."""
        return self._count("SELECT count(*) FROM listed WHERE label IS NULL")

    def num_removed(self, num_live: int) -> int:
        """Rows of the first shards whose photo is gone and has not moved elsewhere."""
        return self._count(
            f"""
            SELECT count(*) FROM stored ANTI JOIN listed USING (image_id)
            WHERE file < {num_live} AND (file, "row") NOT IN (
                SELECT (file, "row") FROM judged WHERE state = 'moved')
            """  # noqa: S608
        )

    def num_of_later(self, num_live: int) -> int:
        """Photos whose row lies in a shard that is none of the first ones."""
        return self._count(
            f"SELECT count(*) FROM judged WHERE state = 'same' AND file >= {num_live}"  # noqa: S608
        )

    def kept_by_file(self) -> dict[int, tuple[int, int]]:
        """For each shard with rows that stay: how many do, and of how many the listing differs."""
        found = self._database.execute(
            "SELECT file, count(*), count_if(is_touched) FROM judged WHERE state = 'same' "
            "GROUP BY file"
        )
        return {file: (kept, touched) for file, kept, touched in found.fetchall()}

    def carried(self, file: int, state: str) -> pa.Table:
        """Rows of a shard that go on: CARRIED_SCHEMA, in the shard's order.

        Args:
            file: Number of the shard.
            state: "same", or "moved".
        """
        return self._photos(f"state = '{state}' AND file = {file}", '"row"', CARRIED_SCHEMA)

    def moved_by_file(self) -> dict[int, int]:
        """For each shard with rows of moved photos, in order: of how many."""
        found = self._database.execute(
            "SELECT file, count(*) FROM judged WHERE state = 'moved' GROUP BY file ORDER BY file"
        )
        return dict(found.fetchall())

    def to_embed(self) -> pa.Table:
        """Photos to embed: rows of LISTED_SCHEMA, by id."""
        return self._photos("state = 'new'", "image_id", LISTED_SCHEMA)

    def still_refused(self) -> pa.Table:
        """Rejects that stay: image_id, uri, reason, message, size_bytes, modified_at, by id."""
        query = """
            SELECT image_id, judged.uri, reason, message, judged.size_bytes,
                   to_timestamp(0) + to_microseconds(judged.modified_at) AS modified_at
            FROM judged JOIN turned_away USING (image_id)
            WHERE state = 'rejected' ORDER BY image_id
        """
        return self._database.sql(query).to_arrow_table()

    def _photos(self, condition: str, order: str, schema: pa.Schema) -> pa.Table:
        names = ", ".join(f'"{name}"' for name in schema.names)
        query = f"SELECT {names} FROM judged WHERE {condition} ORDER BY {order}"  # noqa: S608
        found = self._database.sql(query).to_arrow_table()
        times = found["modified_at"].cast(pa.timestamp("us", tz="UTC"))
        place = found.column_names.index("modified_at")
        return found.set_column(place, "modified_at", times).cast(schema)

    def _insert(
        self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], columns: str
    ) -> None:
        # One by one and not as a stream: an error of whoever lists comes through as it is.
        for batch in batches:
            self._database.register("batch", pa.Table.from_batches([batch.cast(schema)]))
            self._database.execute(f"INSERT INTO {name} SELECT {columns} FROM batch")  # noqa: S608
        self._database.unregister("batch")

    def _count(self, query: str) -> int:
        found = self._database.execute(query).fetchone()
        return int(found[0]) if found else 0


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        row = pa.array(range(start, start + batch.num_rows), pa.int64())
        yield batch.select(_STORED_SCHEMA.names[:-1]).append_column("row", row)
        start += batch.num_rows


@contextmanager
def open_difference() -> Iterator[Difference]:
    """A comparison, whose database is removed at the end."""
    with scratch_database() as database:
        yield Difference(database)
