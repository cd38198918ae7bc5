"""One version of an index as plain values, what may be the place of one, and candidates.

A candidate is a version that is written and not committed, kept aside: its address opens as an
index.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import IndexFormatError, UsageError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.index.names import check_below
from retrieval.index.shards import Shard
from retrieval.storage import LISTING_BYTES, absolute_uri, first_line, join, read_json, write_bytes

__all__ = [
    "Index",
    "index_of",
    "is_candidate",
    "may_hold_index",
    "read_candidate",
    "save_candidate",
    "table_uri",
]

# What deltalake takes for parts of a web address, or refuses late.
_MISREAD = re.compile(r"[#?\\\x00-\x1f]|%[0-9A-Fa-f]{2}")

_CANDIDATE_FORMAT = 1
_CANDIDATE_HASH = "sha256"  # of the rest; not in the files of older releases
_CANDIDATE = re.compile(r"(.+)/_candidates/[^/]+\.json")


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


def is_candidate(uri: str) -> bool:
    """Whether it is the address of a candidate."""
    return _CANDIDATE.fullmatch(uri) is not None


def index_of(uri: str) -> str:
    """The index that a candidate is a version of; any other address as it is."""
    found = _CANDIDATE.fullmatch(uri)
    return found[1] if found else uri


def save_candidate(index: Index) -> str:
    """Keep a version aside that is not committed; gives an address that opens as an index.

    Raises:
        StorageError: the folder cannot be written.
    """
    uri = join(index.uri, "_candidates", f"{index.run['run_id']}.json")
    values = {FORMAT_VERSION: _CANDIDATE_FORMAT, **asdict(index)}
    write_bytes(uri, json.dumps({**values, _CANDIDATE_HASH: _hash_of(values)}).encode())
    return uri


def _hash_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_candidate(uri: str) -> Index:
    """The version that is kept at an address; IndexFormatError if it is damaged."""
    try:
        found = dict(read_json(uri, max_bytes=LISTING_BYTES))
        check_format_version(found, _CANDIDATE_FORMAT, uri, IndexFormatError)
        digest = found.pop(_CANDIDATE_HASH, None)
        if digest is not None and digest != _hash_of(found):
            raise ValueError("it is not what was written")
        found.pop(FORMAT_VERSION, None)
        spec = EmbeddingSpec(**found.pop("spec"))
        shards = tuple(Shard(**shard) for shard in found.pop("shards"))
        for shard in shards:
            check_below(shard.path, uri)
            if not shard.is_plain:
                raise ValueError(f"{shard.path} has no size or no number of rows")
        if type(found["version"]) is not int or not isinstance(found["run"], dict):
            raise ValueError("no version, or no record of a run")
        EmbeddingSpec.from_metadata(spec.to_metadata(), uri)
        # Not where it was written: the index may have moved since.
        return Index(**{**found, "uri": index_of(uri)}, spec=spec, shards=shards)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise IndexFormatError(f"{uri}: no candidate of an index ({first_line(error)}).") from error
