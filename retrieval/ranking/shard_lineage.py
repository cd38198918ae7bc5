"""Which shards of an index hold nothing but rows of an earlier version.

A shard never changes, but a night that removes rows writes the shards that held them again,
and tidying merges small shards into one. The record of such a commit names the sources of the
new shard: each of its rows is, id and embedding bit for bit, a row of one of them. So a shard
is covered by an earlier version if it is one of its shards, or if all its sources are covered.
A shard that no record vouches for counts as added: that is more work, never another result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retrieval.index.table import read_run
from retrieval.storage import join
from retrieval.vectors import VectorFile, VectorSource

__all__ = ["Family", "Lineage", "trace"]


@dataclass(frozen=True)
class Family:
    """Shards that went, and the shards that hold what is left of them.

    No id of a family occurs in another one, so that each can be compared by itself, which
    keeps in memory the ids of a few shards and not of the whole index.

    Attributes:
        gone: Files of the earlier version.
        rewritten: Files of the later one.
    """

    gone: tuple[VectorFile, ...]
    rewritten: tuple[VectorFile, ...]


@dataclass(frozen=True)
class Lineage:
    """The files of a later version, seen from an earlier one.

    Attributes:
        added: Files whose rows may all be new.
        covered: Files that hold nothing but rows of the earlier version; with `added` all.
        families: The files that are gone, each in one family, and those of `covered` that
            were written since, each in one family.
    """

    added: tuple[VectorFile, ...]
    covered: tuple[VectorFile, ...]
    families: tuple[Family, ...]


def trace(before: VectorSource, now: VectorSource) -> Lineage:
    """Compare two versions of an index.

    Raises:
        IndexFormatError: an entry of the log between the two is damaged.

    Cost: reads the log's entries after `before`, and no shard.
    """
    roots = _roots(before, now)
    covered = tuple(file for file in now.files if file.uri in roots)
    here, there = {file.uri for file in now.files}, {file.uri for file in before.files}
    gone = [file for file in before.files if file.uri not in here]
    rewritten = [file for file in covered if file.uri not in there]
    return Lineage(
        added=tuple(file for file in now.files if file.uri not in roots),
        covered=covered,
        families=tuple(_families(gone, rewritten, roots)),
    )


def _roots(before: VectorSource, now: VectorSource) -> dict[str, frozenset[str]]:
    """For each shard that `before` covers, live or not, the shards of `before` it stems from."""
    roots = {file.uri: frozenset([file.uri]) for file in before.files}
    if all(file.uri in roots for file in now.files) or before.version is None:
        return roots
    for version in range(before.version + 1, (now.version or 0) + 1):
        # In the order of the commits: no record is believed that names a later shard.
        found = {
            shard: frozenset().union(*(roots[source] for source in sources))
            for shard, sources in _sources(now.uri, version).items()
            if sources and all(source in roots for source in sources)
        }
        roots = {**found, **roots}
    return roots


def _sources(uri: str, version: int) -> dict[str, list[str]]:
    """The sources of each shard that a commit has rewritten; none if it does not say."""
    named = read_run(uri, version).get("sources")
    if not isinstance(named, Mapping):
        return {}
    return {
        join(uri, shard): [join(uri, source) for source in sources]
        for shard, sources in named.items()
    }


def _families(
    gone: Iterable[VectorFile],
    rewritten: Iterable[VectorFile],
    roots: Mapping[str, frozenset[str]],
) -> Iterable[Family]:
    """Put together what shares a root, directly or by others (a union-find)."""
    next_of: dict[str, str] = {}

    def leader(uri: str) -> str:
        while (following := next_of.get(uri, uri)) != uri:
            uri = following
        return uri

    for file in rewritten:
        for root in roots[file.uri]:
            next_of[leader(root)] = file.uri
    members: dict[str, tuple[list[VectorFile], list[VectorFile]]] = {}
    for side, files in enumerate((gone, rewritten)):
        for file in files:
            members.setdefault(leader(file.uri), ([], []))[side].append(file)
    return [Family(tuple(old), tuple(new)) for old, new in members.values()]
