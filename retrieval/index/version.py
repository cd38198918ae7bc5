"""One version of an index as plain values, and what may be the place of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import UsageError
from retrieval.index.shards import Shard
from retrieval.storage import absolute_uri

__all__ = ["Index", "may_hold_index", "table_uri"]

# What deltalake takes for parts of a web address, or refuses late.
_MISREAD = re.compile(r"[#?\\\x00-\x1f]|%[0-9A-Fa-f]{2}")


@dataclass(frozen=True, kw_only=True)
class Index:
    """One version of an index, as its log describes it. Plain values: cheap to send.

    Attributes:
        uri: Absolute path or address of the index.
        version: Number of the commit.
        spec: How its embeddings were made.
        shards: Its files.
        run: What the run that committed this version said of itself.
    """

    uri: str
    version: int
    spec: EmbeddingSpec
    shards: tuple[Shard, ...]
    run: Mapping[str, Any]

    @property
    def num_rows(self) -> int:
        """Images in this version."""
        return sum(shard.num_rows for shard in self.shards)


def may_hold_index(uri: str) -> bool:
    """Whether the path allows an index; deltalake would put that of /a#b into /a."""
    return not _MISREAD.search(uri)


def table_uri(uri: str) -> str:
    """The form in which an index's location is kept; UsageError if it may not hold one."""
    uri = absolute_uri(uri)
    if found := _MISREAD.search(uri):
        raise UsageError(
            f"{uri}: an index's path may not hold {found[0]!r}, which Delta Lake misreads. "
            f"Choose another name."
        )
    return uri
