"""Rows that go on into the next version in another shard, with their embeddings as they are.

A shard never changes. Where some of its rows must go, or the listing says something new of
one (another time, label or name), a new shard is written with the rest; small shards are
joined on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from retrieval.failpoints import reached
from retrieval.index.reading import read_whole_shard
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard, write_shard

__all__ = ["Piece", "Source", "carry", "fill", "plan_shards"]


@dataclass(frozen=True)
class Source:
    """A shard that has been written before.

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
class Piece:
    """Rows of one shard, as they go on.

    Attributes:
        shard: The file.
        rows: CARRIED_SCHEMA: the number of each row in it, and what is to stand there now.
    """

    shard: Shard
    rows: pa.Table


def plan_shards(sources: Sequence[Source], shard_rows: int) -> tuple[list[int], list[list[int]]]:
    """Which shards stay, and which are written anew.

    Shards with fewer than half of the rows of a full one are joined, live ones with live ones
    alone: an incremental ranking takes a shard made of live ones for known, and would take a
    mixed one for new. So a night adds small shards, and the next one that changes anything
    joins them; no night rewrites more than it must and one shard.

    Args:
        sources: All that hold rows to keep.
        shard_rows: Rows of a full shard.

    Returns:
        Positions of those that stay, and groups of positions, each of which makes one shard.
    """
    small: dict[bool, list[int]] = {True: [], False: []}
    stay, groups = [], []
    for place, source in enumerate(sources):
        if not source.num_kept:
            continue
        if source.num_kept < shard_rows / 2:
            small[source.is_live].append(place)
        elif source.is_whole:
            stay.append(place)
        else:
            groups.append([place])
    for places in small.values():
        for group in fill({place: sources[place].num_kept for place in places}, shard_rows):
            if len(group) == 1 and sources[group[0]].is_whole:
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


def carry(index_uri: str, spec: EmbeddingSpec, pieces: Sequence[Piece]) -> Shard:
    """Write a shard of rows of others.

    Raises:
        IndexFormatError: a shard is missing or damaged: its hash is compared with the recorded one,
            see `read_whole_shard`.
        StorageError: the new one cannot be written.

    Cost: reads each shard whole; holds one of them twice and, twice, the new one.
    """
    schema = index_schema(spec)
    tables = []
    for piece in pieces:
        table = read_whole_shard(index_uri, piece.shard, schema).take(piece.rows["row"])
        for name in piece.rows.column_names:
            if name != "row":
                place = schema.get_field_index(name)
                table = table.set_column(place, schema.field(name), piece.rows[name])
        tables.append(table)
    shard = write_shard(index_uri, pa.concat_tables(tables).combine_chunks())
    reached("rewritten")
    return shard
