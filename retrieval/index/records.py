"""What each run says of itself, for the next morning: INDEX/_runs/RUN_ID.json.

The log keeps a record of every commit; here also nights without one have theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from retrieval.errors import StorageError
from retrieval.index.table import Index
from retrieval.storage import join, list_files, read_bytes, write_bytes

__all__ = ["last_check_us", "write_record"]

_LOOK_BACK = 10  # records; nights that fail leave some between


def write_record(
    index_uri: str, run_id: str, record: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Write a run's record, in place of one that it wrote before.

    A folder that cannot be written is told and no error: the run itself has succeeded.

    Args:
        index_uri: The index.
        run_id: The run; also the file's name.
        record: JSON values.
        say: Called with what went wrong, in one line.
    """
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    try:
        write_bytes(join(index_uri, "_runs", f"{run_id}.json"), content.encode())
    except StorageError as error:
        say(f"The record of this run is lost: {error}")


def last_check_us(index: Index) -> int:
    """When the gallery was last listed and the index found, or made, to be like it.

    Returns:
        Microseconds since 1970: of the run that committed this version, or of a later one that
        had nothing to commit. 0 if nobody knows.
    """
    committed = _as_us(index.run.get("listed_us"))
    newest = list_files(join(index.uri, "_runs"))[
        : -_LOOK_BACK - 1 : -1
    ]  # names begin with the time
    for record in map(_read, newest):
        if record.get("version_after") == index.version:
            return max(committed, _as_us(record.get("listed_us")))
    return committed


def _read(uri: str) -> Mapping[str, Any]:
    try:
        record = json.loads(read_bytes(uri))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _as_us(value: object) -> int:
    return value if isinstance(value, int) else 0
