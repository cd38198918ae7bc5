"""Rows that go on into the next version in another shard, with their embeddings as they are.

A shard never changes. Where some of its rows must go, or the listing says something new of
one (another time, label or name), a new shard is written with the rest; small shards are
joined on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from retrieval.failpoints import reached
from retrieval.index.reading import read_whole_shard
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard, write_shard

__all__ = ["Rewrites", "RowSlice", "ShardUsage", "compact", "fill", "plan_shards"]


@dataclass(frozen=True)
class ShardUsage:
    """How much of a shard goes on.

    Attributes:
        shard: The file.
        is_live: Whether the version that is current holds it; otherwise a killed run wrote it.
        num_kept: Of its rows, how many stay under their id.
        num_touched: Of these, of how many the listing says something new.
    """

    shard: Shard
    is_live: bool
    num_kept: int
    num_touched: int

    @property
    def is_whole(self) -> bool:
        """Whether it may stay as it is."""
        return self.num_kept == self.shard.num_rows and not self.num_touched


@dataclass(frozen=True)
class RowSlice:
    """Rows of one shard, as they go on.

    Attributes:
        shard: The file.
        rows: CARRIED_SCHEMA: the number of each row in it, and what is to stand there now.
    """

    shard: Shard
    rows: pa.Table


class Rewrites(Sequence[list[RowSlice]]):
    """Which shards stay, and from which rows the others are written anew: a group for each.

    The rows of a group are read when it is taken, so not all of them are in memory at once.

    Attributes:
        stay: Shards that the next version has as they are.
        origins: For each group the shards that it is made of, where these are live ones alone
            whose rows stay under their id; else None.
    """

    def __init__(
        self,
        usages: Sequence[ShardUsage],
        moved: Mapping[int, int],
        shard_rows: int,
        *,
        rows_of: Callable[[int, str], pa.Table],
        has_new: bool,
    ) -> None:
        """Decide it.

        Args:
            usages: Of all shards that hold rows to keep.
            moved: For each of them, by its position, of which rows go on under another id: how
                many.
            shard_rows: Rows of a full shard.
            rows_of: CARRIED_SCHEMA of a shard's rows that stay ("same") or have "moved".
            has_new: Whether anything is embedded.
        """
        self._shards = [usage.shard for usage in usages]
        self._rows_of = rows_of
        self._groups: list[list[tuple[int, str]]] = []
        self.stay: list[Shard] = []
        self.origins: list[list[str] | None] = []
        # An update without a change makes no commit, not even of the same in fewer shards.
        if not (moved or has_new) and all(
            usage.is_whole if usage.is_live else not usage.num_kept for usage in usages
        ):
            self.stay = [usage.shard for usage in usages if usage.is_live]
            return
        stay, groups = plan_shards(usages, shard_rows)
        self.stay = [self._shards[place] for place in stay]
        for group in groups:
            self._groups.append([(place, "same") for place in group])
            is_live = all(usages[place].is_live for place in group)
            self.origins.append([self._shards[place].path for place in group] if is_live else None)
        for group in fill(moved, shard_rows):
            self._groups.append([(place, "moved") for place in group])
            self.origins.append(None)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 - one group, or a slice of them
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        return [
            RowSlice(self._shards[number], self._rows_of(number, state))
            for number, state in self._groups[place]
        ]


def plan_shards(usages: Sequence[ShardUsage], shard_rows: int) -> tuple[list[int], list[list[int]]]:
    """Which shards stay, and which are written anew.

    Shards with fewer than half of the rows of a full one are joined, live ones with live ones
    alone: an incremental ranking takes a shard made of live ones for known, and would take a
    mixed one for new. So a night adds small shards, and the next one that changes anything
    joins them; no night rewrites more than it must and one shard.

    Args:
        usages: All that hold rows to keep.
        shard_rows: Rows of a full shard.

    Returns:
        Positions of those that stay, and groups of positions, each of which makes one shard.
    """
    small: dict[bool, list[int]] = {True: [], False: []}
    stay, groups = [], []
    for place, usage in enumerate(usages):
        if not usage.num_kept:
            continue
        if usage.num_kept < shard_rows / 2:
            small[usage.is_live].append(place)
        elif usage.is_whole:
            stay.append(place)
        else:
            groups.append([place])
    for places in small.values():
        for group in fill({place: usages[place].num_kept for place in places}, shard_rows):
            if len(group) == 1 and usages[group[0]].is_whole:
                stay.extend(group)
            else:
                groups.append(group)
    return stay, groups


def fill(num_rows: Mapping[int, int], shard_rows: int) -> list[list[int]]:
    """Groups of shards, in their order, for new ones of at most `shard_rows` rows.

    Args:
        num_rows: How many rows each shard, by its number, gives; one that gives more than a full
            shard holds is alone.
        shard_rows: Rows of a full shard.
    """
    groups: list[list[int]] = []
    room = 0
    for place, num in num_rows.items():
        if not groups or num > room:
            groups.append([])
            room = shard_rows
        groups[-1].append(place)
        room -= num
    return groups


def compact(index_uri: str, spec: EmbeddingSpec, slices: Sequence[RowSlice]) -> Shard:
    """Write a shard of rows of others.

    Raises:
        IndexFormatError: a shard is missing or damaged: its hash is compared with the recorded one,
            see `read_whole_shard`.
        StorageError: the new one cannot be written.

    Cost: reads each shard whole; holds one of them twice and, twice, the new one.
    """
    schema = index_schema(spec)
    tables = []
    for rows_of in slices:
        table = read_whole_shard(index_uri, rows_of.shard, schema).take(rows_of.rows["row"])
        for name in rows_of.rows.column_names:
            if name != "row":
                place = schema.get_field_index(name)
                table = table.set_column(place, schema.field(name), rows_of.rows[name])
        tables.append(table)
    shard = write_shard(index_uri, pa.concat_tables(tables).combine_chunks())
    reached("rewritten")
    return shard
