"""A night's comparison in plain dictionaries: a hundredth of the time that a database takes.

For tests of what runs at the same time; photos are the same if size and time are, and none moves.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pyarrow as pa

from retrieval.index.gallery_diff import CARRIED_SCHEMA, LISTED_SCHEMA
from retrieval.index.staging import INDEX_REJECT_SCHEMA


def stamp(row):
    return row["size_bytes"], row["modified_at"]


class PlainDifference:
    def __init__(self):
        self.listed, self.stored, self.refused = {}, [], {}

    def add_listed(self, batches):
        for batch in batches:
            self.listed |= {row["image_id"]: row for row in batch.to_pylist()}

    def add_stored(self, file, batches, settled_us):
        rows = [row for batch in batches for row in batch.to_pylist()]
        self.stored += [{**row, "file": file, "row": place} for place, row in enumerate(rows)]

    def add_refused(self, rejects, settled_us):
        self.refused |= {row["image_id"]: row for row in rejects.to_pylist()}

    def compare(self, *, by_content=False):
        self.same, self.state = {}, {}
        for row in self.stored:
            photo = self.listed.get(row["image_id"])
            if photo and stamp(photo) == stamp(row):
                self.same.setdefault(row["image_id"], row)
        for name, photo in self.listed.items():
            before = self.refused.get(name)
            is_refused = before is not None and stamp(before) == stamp(photo)
            self.state[name] = "same" if name in self.same else "rejected" if is_refused else "new"
        return LISTED_SCHEMA.empty_table()

    def settle(self, hashes):
        pass

    def num_of_states(self):
        return Counter(self.state.values())

    def num_unlabelled(self):
        return 0

    def num_removed(self, num_live):
        rows = [row for row in self.stored if row["file"] < num_live]
        return sum(row["image_id"] not in self.listed for row in rows)

    def num_of_later(self, num_live):
        return sum(row["file"] >= num_live for row in self.same.values())

    def kept_by_file(self):
        kept = Counter(row["file"] for row in self.same.values())
        return {file: (num, 0) for file, num in kept.items()}

    def moved_by_file(self):
        return {}

    def carried(self, file, state):
        rows = [row for row in self.same.values() if row["file"] == file]
        rows = [{**self.listed[row["image_id"]], "row": row["row"]} for row in rows]
        return pa.Table.from_pylist(sorted(rows, key=lambda row: row["row"]), CARRIED_SCHEMA)

    def to_embed(self):
        return self._photos("new", self.listed, LISTED_SCHEMA)

    def still_refused(self):
        return self._photos("rejected", self.refused, INDEX_REJECT_SCHEMA)

    def _photos(self, state, rows, schema):
        names = sorted(name for name, found in self.state.items() if found == state)
        return pa.Table.from_pylist([rows[name] for name in names], schema)


@contextmanager
def plain_difference():
    yield PlainDifference()
