"""What each run says of itself, for the next morning: INDEX/_runs/RUN_ID.json.

The log keeps a record of every commit; here also nights without one have theirs.
"""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from retrieval.errors import GateError, IndexFormatError, RetrievalError, StorageError
from retrieval.format_version import check_format_version
from retrieval.index.table import Index, is_index
from retrieval.secrets import without_secrets
from retrieval.storage import join, list_files, read_json, write_bytes

__all__ = [
    "RecordStamp",
    "failures_recorded",
    "last_check_us",
    "provenance",
    "read_records",
    "write_record",
]

_NEWEST_FORMAT = 1
_LOOK_BACK = 10  # records; nights that fail leave some between

_PACKAGES: Final = ("retrieval-cli", "ray", "torch", "pyarrow", "deltalake")
_JOB_CONFIG: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray's job server for what it runs


@dataclass(frozen=True, kw_only=True)
class RecordStamp:
    """When and by what a record was written.

    Attributes:
        ended_at: Now, as ISO 8601 has it.
        made_by: See `provenance`.
        format_version: Of the record.
    """

    ended_at: str
    made_by: Mapping[str, Any]
    format_version: int = _NEWEST_FORMAT


def write_record(
    index_uri: str, run_id: str, record: Mapping[str, Any], say: Callable[[str], None]
) -> RecordStamp:
    """Write a run's record, in place of one that it wrote before.

    A folder that cannot be written is told and no error: the run itself has succeeded.

    Args:
        index_uri: The index.
        run_id: The run; also the file's name.
        record: JSON values.
        say: Called with what went wrong, in one line.

    Returns:
        What the record says beside these values.
    """
    stamp = RecordStamp(ended_at=_as_text(datetime.now(UTC)), made_by=provenance())
    complete = {**record, **asdict(stamp)}
    content = json.dumps(complete, indent=2, ensure_ascii=False) + "\n"
    try:
        write_bytes(join(index_uri, "_runs", f"{run_id}.json"), content.encode())
    except StorageError as error:
        say(f"The record of this run is lost: {error}")
    return stamp


@contextmanager
def failures_recorded(
    index_uri: str, facts: Mapping[str, Any], say: Callable[[str], None]
) -> Iterator[None]:
    """Give a run a record also where it fails or is stopped, if there is an index to keep it in.

    An error has it as its `record`, also where there is none. Not where the gate refuses its
    version: whoever judges writes more than is known here.

    Args:
        index_uri: The index.
        facts: What the record is to say of the run; JSON values.
        say: See `write_record`.
    """
    begun = datetime.now(UTC)
    try:
        yield
    except GateError:
        raise
    except (RetrievalError, KeyboardInterrupt) as error:
        is_stopped = isinstance(error, KeyboardInterrupt)
        run_id = f"{begun:%Y%m%dT%H%M%S}-failed"
        record = {
            "run_id": run_id,
            "created_at": _as_text(begun),
            "status": "interrupted" if is_stopped else "failed",
            "message": "stopped by ctrl-C or SIGTERM"
            if is_stopped
            else without_secrets(str(error)),
            **facts,
        }
        with suppress(RetrievalError):
            if is_index(index_uri):
                record |= asdict(write_record(index_uri, run_id, record, say))
        if isinstance(error, RetrievalError):
            error.record = record
        raise


def _as_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def read_records(index_uri: str, most: int) -> Iterator[Mapping[str, Any]]:
    """The records of the last runs, newest first; one that cannot be read is left out."""
    names = list_files(join(index_uri, "_runs"))  # begin with the time
    for uri in names[: -most - 1 : -1]:
        if record := _read(uri):
            yield record


def last_check_us(index: Index) -> int:
    """When the gallery was last listed and the index found, or made, to be like it.

    Returns:
        Microseconds since 1970: of the run that committed this version, or of a later one that
        had nothing to commit. 0 if nobody knows.
    """
    committed = _as_us(index.run.get("listed_us"))
    # A vacuum's version is that of the run before it; see `vacuum_index`.
    alike = range(index.run.get("repeated_version", index.version), index.version + 1)
    for record in read_records(index.uri, _LOOK_BACK):
        if record.get("version_after") in alike:
            return max(committed, _as_us(record.get("listed_us")))
    return committed


def _read(uri: str) -> Mapping[str, Any]:
    try:
        record = read_json(uri)
        check_format_version(record, _NEWEST_FORMAT, uri, IndexFormatError)
    except (OSError, ValueError, IndexFormatError):
        return {}
    return record


def _as_us(value: object) -> int:
    return value if isinstance(value, int) else 0


def provenance() -> dict[str, Any]:
    """The machine, the versions, and the Ray job if this is one; nothing else of the environment.

    Returns:
        `host`; `python`; `versions`, None for what is not installed; `submission_id`, None if
        this process was not submitted as a job.
    """
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "submission_id": _submission_id(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _submission_id() -> str | None:
    try:
        found = json.loads(os.environ.get(_JOB_CONFIG, ""))["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
