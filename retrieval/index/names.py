"""The names of what this program writes into an index.

By them it knows its own files again: whatever has another name belongs to somebody else, and is
neither read as one of ours nor removed.
"""

from __future__ import annotations

import re

from retrieval.errors import IndexFormatError

__all__ = [
    "CANDIDATE",
    "CANDIDATES",
    "RECEIPT",
    "REJECTS",
    "REJECTS_FILE",
    "REJECTS_FOLDER",
    "REMOVAL_LIST",
    "RUNS",
    "SCRATCH",
    "SCRATCH_FILE",
    "SHARD",
    "STAGED",
    "STAGING",
    "UNFINISHED",
    "VACUUM",
    "check_below",
]

STAGING, REJECTS, RUNS = "_staging", "_rejects", "_runs"
CANDIDATES, VACUUM = "_candidates", "_vacuum"

_HEX32 = "[0-9a-f]{32}"
SHARD = re.compile(rf"shard-{_HEX32}\.parquet")
RECEIPT = re.compile(rf"{STAGING}/[^/]+-{_HEX32}\.json")
STAGED = re.compile(rf"{STAGING}/[^/]+-{_HEX32}\.(json|rejects\.parquet)")
REJECTS_FILE = re.compile(rf"{REJECTS}/[^/]+/part-\d+\.parquet")
# As the jobs name their runs: the moment of the listing, and something drawn by chance.
CANDIDATE = re.compile(rf"{CANDIDATES}/\d{{8}}T\d{{6}}-[0-9a-f]{{8}}\.json")
REMOVAL_LIST = re.compile(rf"{VACUUM}/{_HEX32}\.json")
# What `write_bytes` and `write_entry` rename or link when it is whole.
UNFINISHED = re.compile(rf"(?:[^/]+/)?\.[^/]+\.{_HEX32}\.tmp")
# A folder in which a checkpoint is made of links to the log, and what is in it.
SCRATCH = re.compile(rf"\.checkpoint\.{_HEX32}\.tmp")
SCRATCH_FILE = re.compile(
    rf"{SCRATCH.pattern}/_delta_log/(\d{{20}}\.(json|.*parquet)|_last_checkpoint)"
)
REJECTS_FOLDER = re.compile(rf"{REJECTS}/(?!\.{{1,2}}$)[^/\0]+")


def check_below(path: object, where: str) -> str:
    """The path of a file of an index, from a file that others may have written.

    Args:
        path: What the file says.
        where: The file, for the error.

    Raises:
        IndexFormatError: it is no path below the index: absolute, or with "..".
    """
    if not isinstance(path, str) or "\0" in path or {"", ".", ".."} & set(path.split("/")):
        raise IndexFormatError(
            f"{where}: names a file {path!r}; a path below the index is needed. It is damaged, or "
            f"not made by this program: take another version, or embed the photos again."
        )
    return path
