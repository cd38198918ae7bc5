"""The two sides of a ranking: what the manifest says of them, and how they are found again.

An index is known by what it holds: the names of its shards, which are drawn by chance and never
given twice, and their rows. Neither its address nor the number of a version tells it: the same
index is reached by a link, by "..", or elsewhere after a move; another one may be made anew in its
place, with versions from 0 on; and a restore commits the same shards under another number.

Files of other tools have no such names. They are told by the ids of their rows, in any order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.index.history import read_commits, read_log, split_version
from retrieval.index.table import (
    Index,
    index_of,
    is_index,
    may_hold_index,
    newest_version,
    open_index,
)
from retrieval.ranking.files import Ranking
from retrieval.storage import absolute_uri, join
from retrieval.vectors import VectorColumns, VectorSource, open_source, read_id_text
from retrieval.vectors.duplicates import hash_ids
from retrieval.vectors.ids import pad, pieces

__all__ = [
    "Side",
    "content_sha256",
    "describe",
    "find_version",
    "holds_ranked",
    "ids_sum",
    "misfit",
    "open_ranked",
    "open_side",
    "sum_ids",
]

_HASH = "content_sha256"
# Of the first release: the addresses of the shards were hashed, so that another spelling of the
# same place had another hash.
_HASH_OF_ADDRESSES = "shards_sha256"
_ID_ROWS = 2**16

Side = str | Path | VectorSource | Index


def describe(source: VectorSource) -> dict[str, Any]:
    """A side, as the manifest has it."""
    return {
        "uri": source.uri,
        "version": source.version,
        "num_rows": source.num_rows,
        "num_files": len(source.files),
        _HASH: content_sha256(source),
        "dim": source.dim,
        "dtype": source.dtype,
        "id_column": source.id_column,
        "vector_column": source.vector_column,
        "spec": source.spec and asdict(source.spec),
    }


def sum_ids(source: VectorSource) -> str | None:
    """What tells the ids of other tools' files, as the manifest has it; None for an index.

    Cost: reads the column of ids.
    """
    if source.spec is not None:
        return None
    return ids_sum(text for file in source.files for text in read_id_text(source, file, _ID_ROWS))


def ids_sum(blocks: Iterable[pa.Array]) -> str:
    """What tells some ids, whatever their order.

    Args:
        blocks: large_string (N,) without nulls, the ids, some at a time.

    Returns:
        The sum of their hashes by `hash_ids`, modulo 2**64, as 16 hexadecimal digits: enough to
        notice a change that nobody hides.

    Cost: some 0.05 µs an id.
    """
    total = sum(
        int(hash_ids(pad(piece)).sum(dtype=np.uint64)) for text in blocks for piece in pieces(text)
    )
    return f"{total % 2**64:016x}"


def content_sha256(source: VectorSource) -> str | None:
    """What tells the content of a version of an index; None for other tools' files.

    Returns:
        SHA-256, in hexadecimal, of the JSON text of [name, rows] of each shard, sorted by name;
        a name is the shard's path in the index.
    """
    if source.spec is None:
        return None
    start = len(index_of(source.uri)) + 1
    return _hash((file.uri[start:], file.num_rows) for file in source.files)


def _hash(shards: Iterable[tuple[str, int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(map(list, shards))).encode()).hexdigest()


def holds_ranked(side: Mapping[str, Any], index: Index) -> bool | None:
    """Whether a version of an index holds what was ranked.

    Args:
        side: What the manifest says of the queries or the gallery.
        index: The version.

    Returns:
        None where the ranking does not say what it was made of.
    """
    if (known := side.get(_HASH)) is not None:
        return bool(known == _hash((shard.path, shard.num_rows) for shard in index.shards))
    if (known := side.get(_HASH_OF_ADDRESSES)) is None:
        return None
    places = {index.uri, index_of(str(side.get("uri")))}
    return known in {
        _hash((join(place, shard.path), shard.num_rows) for shard in index.shards)
        for place in places
    }


def find_version(side: Mapping[str, Any], place: str) -> Index | None:
    """The version of an index that holds what was ranked; None if none does.

    The recorded number is tried first, then the newest version, then all others.

    Args:
        side: What the manifest says of the queries or the gallery, with its hash.
        place: An index.

    Raises:
        StorageError: it cannot be read.

    Cost: opens one version in nearly all cases; at most it reads the whole log, and opens the
        versions that have as many shards as were ranked.
    """
    for version in _likely_versions(side, place):
        try:
            index = open_index(place, version)
        except (UsageError, IndexFormatError):
            continue  # no such version, or its part of the log is gone
        if holds_ranked(side, index):
            return index
    return None


def _likely_versions(side: Mapping[str, Any], place: str) -> Iterator[int]:
    if isinstance(side.get("version"), int):
        yield side["version"]
    newest = newest_version(place)
    if newest is None:  # a candidate, which is one version
        return
    yield newest
    log, seen = read_log(place), set[frozenset[str]]()
    first = log.first_entry(newest)
    try:
        for commit in read_commits(place, range(newest, first - 1, -1)):
            shards = commit.shards
            if shards is None or (len(shards) == side.get("num_files") and shards not in seen):
                yield commit.version
            seen.add(shards or frozenset())
    except IndexFormatError:
        return  # what is before a damaged entry cannot be told
    yield from range(first - 1, log.oldest_openable(newest) - 1, -1)


def open_ranked(uri: str, ranking: Ranking, name: str) -> VectorSource:
    """Open a side of a ranking, as it was ranked.

    Args:
        uri: Where it is now, by any spelling, moved or copied: an index, of which the version
            that was ranked is found, or that of INDEX@12 checked; or other tools' files, of which
            nothing is checked.
        ranking: The ranking.
        name: "queries" or "gallery".

    Raises:
        MismatchError: the index does not hold what was ranked; the message names both.
        StorageError, IndexFormatError, UsageError: as `open_source` does.
    """
    side: Mapping[str, Any] = ranking.facts.get(name) or {}
    if side.get("version") is None:
        return _open_files(uri, side)
    place, version = split_version(uri)
    if side.get(_HASH) is None and side.get(_HASH_OF_ADDRESSES) is None:
        # By no release of ours: the number has to do, and elsewhere the newest version.
        is_here = version is None and side.get("uri") == place
        return open_source(place, version=side["version"] if is_here else version)
    if not _is_index(place):
        place = index_of(place)  # a candidate that has been committed since
    found = None
    if _is_index(place):
        found = find_version(side, place) if version is None else open_index(place, version)
    if found is None or not holds_ranked(side, found):
        raise misfit(ranking, name, _what_is_there(place, version))
    return open_source(place, version=found.version)


def _open_files(uri: str, side: Mapping[str, Any]) -> VectorSource:
    """Other tools' files, by the columns that were ranked if they have these."""
    columns = (side.get("id_column"), side.get("vector_column") or None, side.get("dtype"))
    try:
        return open_source(uri, VectorColumns(*columns))
    except UsageError:
        if side.get("uri") == absolute_uri(uri):
            raise
        return open_source(uri)  # others of the same images


def _is_index(place: str) -> bool:
    return may_hold_index(place) and is_index(place)


def _what_is_there(place: str, version: int | None) -> str:
    if not _is_index(place):
        return f"no index is at {place}"
    index = open_index(place, version)
    if version is not None:
        return f"version {version} of {place} holds {index.num_rows} rows of other shards"
    return (
        f"{place} has versions up to {index.version}, which holds {index.num_rows} rows, and none "
        f"is of the same shards"
    )


def misfit(ranking: Ranking, name: str, there: str) -> MismatchError:
    """The error where a side is not what was ranked; `there` says what it is."""
    side = ranking.facts[name]
    version = "" if side.get("version") is None else f"version {side['version']} of "
    return MismatchError(
        f"{ranking.uri}: ranked {version}{side.get('uri')} with {side.get('num_rows')} rows, which "
        f"is not among the {name} given: {there}. Name what was ranked, or rank again."
    )


def open_side(side: Side, columns: VectorColumns | None = None, name: str = "side") -> VectorSource:
    """The queries or the gallery as a source.

    Args:
        side: An index or INDEX@12, other tools' files (see `open_source`), an index or a source
            that is open.
        columns: Which columns of other tools' files hold ids and vectors.
        name: The parameter that has it, for errors.

    Raises:
        UsageError: it is none of these.
        RetrievalError: as `open_source` does.
    """
    if isinstance(side, VectorSource):
        return side
    if isinstance(side, Index):
        return open_source(side.uri, version=side.version)
    if isinstance(side, str | Path):
        return open_source(os.fspath(side), columns)
    raise UsageError(
        f"`{name}`: a {type(side).__name__}; a NumPy array, an index, or the place of one or of "
        f"files is needed."
    )
