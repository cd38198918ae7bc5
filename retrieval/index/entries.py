"""One entry of the log, read strictly: what is not as it was written is never believed.

An entry that this program writes on a disk begins with the hash of all its bytes. One that
deltalake writes for it, on an object store, and each entry of either kind, says the hash of what
readers take from the log: the record of the run, how the embeddings were made, and the rows and
bytes of each shard, be it that an older entry or a checkpoint has named it. Entries of older
releases say neither; their keys and types are checked, and that the shards that they name are
those that the log leads to. Entries of other tools are theirs to judge.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.errors import IndexFormatError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.shards import Shard
from retrieval.storage import join, read_bytes

__all__ = [
    "COMMIT_KEY",
    "CONTENT_KEY",
    "ENGINE",
    "NUM_ACTIONS_KEY",
    "RECORD_FORMAT",
    "RUN_KEY",
    "SHARDS_KEY",
    "DamagedEntryError",
    "Entry",
    "check_bytes",
    "check_content",
    "content_digest",
    "encode_entry",
    "entry_uri",
    "parse_entry",
    "read_entry",
    "said",
]

# Where a commit keeps what the run says of itself, as one JSON text.
RUN_KEY = "retrieval.run"
SHARDS_KEY = "shards_sha256"  # in that text: the hash of each shard of the version
COMMIT_KEY = "commit_id"  # in that text: what tells two commits apart if the run has no run_id
RECORD_FORMAT = 1  # newest format_version of an index, which stands in that text
NUM_ACTIONS_KEY = "retrieval.num_actions"  # beside it: lines that follow in the entry
CONTENT_KEY = "retrieval.content_sha256"  # beside it: see `content_digest`
_ENTRY_KEY = "retrieval.entry_sha256"  # before all: of the entry's bytes, with zeros in its place
_OWN_KEYS = {RUN_KEY, NUM_ACTIONS_KEY, CONTENT_KEY, _ENTRY_KEY}
# Of an entry that this program itself has written, and not deltalake for it.
_KEYS = {"timestamp", "operation", "operationParameters", "engineInfo", *_OWN_KEYS}
ENGINE = "retrieval-cli"  # who has written it

_BEGIN = f'{{"commitInfo":{{"{_ENTRY_KEY}":"'.encode()
_NO_DIGEST = b"0" * 64
_COMPACT = json.JSONEncoder(separators=(",", ":"))
_SHA256 = re.compile("[0-9a-f]{64}")
_ACTIONS = {
    "add", "remove", "metaData", "protocol", "commitInfo", "txn", "cdc", "domainMetadata",
    "checkpointMetadata", "sidecar",
}  # fmt: skip


class DamagedEntryError(ValueError):
    """An entry that is whole by its form, and not what was written."""


@dataclass(frozen=True)
class Entry:
    """One entry of the log.

    Attributes:
        info: What it says of the commit; {} if it says nothing.
        actions: Its lines.
        record: What the run said of itself, with what `commit_index` added; {} if others made it.
    """

    info: Mapping[str, Any]
    actions: Sequence[Mapping[str, Any]]
    record: Mapping[str, Any]


def entry_uri(uri: str, version: int) -> str:
    """Where the log keeps the commit of a version."""
    return join(uri, "_delta_log", f"{version:020d}.json")


def encode_entry(info: Mapping[str, Any], actions: Sequence[Mapping[str, Any]]) -> bytes:
    """The bytes of an entry on a disk, which say their own hash."""
    begun = {_ENTRY_KEY: _NO_DIGEST.decode(), NUM_ACTIONS_KEY: len(actions)}
    lines = [{"commitInfo": {**begun, **info}}, *actions]
    data = "".join(f"{_COMPACT.encode(line)}\n" for line in lines).encode()
    return data.replace(_NO_DIGEST, hashlib.sha256(data).hexdigest().encode(), 1)


def check_bytes(data: bytes) -> bool:
    """Whether an entry says its own hash; DamagedEntryError if it says another one."""
    if not data.startswith(_BEGIN):
        return False
    end = len(_BEGIN) + len(_NO_DIGEST)
    digest = hashlib.sha256(_BEGIN + _NO_DIGEST + data[end:]).hexdigest()
    if data[len(_BEGIN) : end] != digest.encode():
        raise DamagedEntryError("its bytes are not those that were written")
    return True


def read_entry(uri: str, version: int) -> Entry:
    """Read the entry of a version; one without content if it has been cleaned up.

    Raises:
        ValueError: it is torn, as a loss of power leaves it; DamagedEntryError: damaged.
        IndexFormatError: a newer release has written it.
        OSError: as the file system raises it.
    """
    where = entry_uri(uri, version)
    try:
        data = read_bytes(where)
    except FileNotFoundError:
        return Entry({}, (), {})  # an old version, whose entry has been cleaned up
    return parse_entry(data, where)


def parse_entry(data: bytes, where: str) -> Entry:
    """The content of an entry; errors as `read_entry`."""
    try:
        actions = [json.loads(line) for line in data.splitlines()]
    except RecursionError as error:
        raise DamagedEntryError("it is nested too deep") from error
    for action in actions:
        if not isinstance(action, dict) or len(action) != 1 or not action.keys() <= _ACTIONS:
            raise DamagedEntryError("a line is no action of Delta Lake")
    if not all(isinstance(value, dict) for action in actions for value in action.values()):
        raise DamagedEntryError("an action is no JSON object")
    info: dict[str, Any] = next(
        (action["commitInfo"] for action in actions if "commitInfo" in action), {}
    )
    num_actions = info.get(NUM_ACTIONS_KEY, len(actions) - 1)
    if not actions or type(num_actions) is not int or len(actions) != 1 + num_actions:
        raise ValueError(f"{len(actions)} lines")
    is_whole = check_bytes(data)
    record = _record_of(info, where)
    if not is_whole:
        _check_info(info)
        _check_record(record)
    return Entry(info, actions, record)


def _record_of(info: Mapping[str, Any], where: str) -> dict[str, Any]:
    text = info.get(RUN_KEY, "{}")
    if not isinstance(text, str):
        raise DamagedEntryError(f"{RUN_KEY} is no text")
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise DamagedEntryError("it is nested too deep") from error
    if not isinstance(record, dict):
        raise DamagedEntryError(f"{RUN_KEY} holds no JSON object")
    check_format_version(record, RECORD_FORMAT, where, IndexFormatError)
    if RUN_KEY in info:
        hashes = record.get(SHARDS_KEY)
        if not isinstance(hashes, dict) or not all(map(_is_sha256, hashes.values())):
            raise DamagedEntryError(f"{RUN_KEY} says no {SHARDS_KEY}")
    return record


def _is_sha256(value: object) -> bool:
    """Whether it is a hash; "" where the log does not keep it."""
    return isinstance(value, str) and bool(value == "" or _SHA256.fullmatch(value))


def _check_info(info: Mapping[str, Any]) -> None:
    """The keys of a commit that does not say the hash of its bytes."""
    strange = {key for key in info if key.startswith("retrieval.")} - _OWN_KEYS
    if NUM_ACTIONS_KEY in info or info.get("engineInfo") == ENGINE:
        strange |= info.keys() - _KEYS
    # The record under another name would be taken for nothing.
    strange |= {key for key in info if key != RUN_KEY and SHARDS_KEY in str(info[key])}
    if strange:
        raise DamagedEntryError(f"unknown {min(strange)!r}")
    needed = {RUN_KEY} if info.keys() & _OWN_KEYS or info.get("engineInfo") == ENGINE else set()
    if missing := needed - info.keys():
        raise DamagedEntryError(f"lacks {min(missing)}")


# What a run's record holds, by name and type, where it holds it.
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "run_id": str, "created_at": str, "photos": str, "commit_id": str, "rejects": (str, type(None)),
    "settings": dict, "sources": dict, "reject_reasons": dict,
}  # fmt: skip


def _check_record(record: Mapping[str, Any]) -> None:
    """The types of a record that no hash vouches for."""
    for name, value in record.items():
        is_count = name.startswith("num_") or name == "listed_us"
        if is_count and (type(value) is not int or value < 0):
            raise DamagedEntryError(f"{name} is {value!r}")
        if not isinstance(value, _TYPES.get(name, object)):
            raise DamagedEntryError(f"{name} is {value!r}")


def content_digest(record: str, spec: EmbeddingSpec, shards: Iterable[Shard]) -> str:
    """Hash of all that readers take from the log of a version: 64 hexadecimal digits."""
    files = sorted([shard.path, shard.num_rows, shard.size_bytes] for shard in shards)
    text = json.dumps([record, spec.to_metadata(), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_content(entry: Entry, spec: EmbeddingSpec, shards: Iterable[Shard]) -> None:
    """Raise DamagedEntryError if the log does not lead to what the commit has written."""
    info = entry.info
    if CONTENT_KEY in info and info[CONTENT_KEY] != content_digest(info[RUN_KEY], spec, shards):
        raise DamagedEntryError("the log does not lead to the content that was committed")


def said(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what `commit_index` added."""
    own = (SHARDS_KEY, COMMIT_KEY, FORMAT_VERSION)
    return {key: record[key] for key in record if key not in own}
