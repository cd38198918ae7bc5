"""Clients of object stores: settings from the environment, and how long a failing one is asked.

A store that throttles (503 SlowDown), fails (500) or breaks connections is asked again, after
pauses that double. On s3:// an outage of up to some 50 s is ridden out by pyarrow (photos,
models, shards, rankings) and of some 60 s by deltalake (the log of an index), whatever the number
of requests under way; a store that accepts a connection and stays silent is given up after 10 s a
try. On gs:// both give up after some 60 s. What fails longer is an error in one line, and the job
is run again.

Stores whose client may end or stop its process are tried in another process first. Arrow's client
of Azure aborts where it finds no credentials, and that of HDFS starts a Java machine: a worker that
met such an address would die, and the next one after it, without end. The clients of S3 and of
Google answer with an error, and are used at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from threading import Lock

import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.errors import StorageError, UsageError
from retrieval.secrets import without_secrets
from retrieval.storage.addresses import absolute_uri, check_no_secret, is_local

__all__ = ["check_store_answers", "delta_options", "first_line", "open_store", "pauses_s"]

_RETRY_S = 60
_MAX_ATTEMPTS = 11  # see `pauses_s`
_SILENCE_S = 10
_CONNECT_S = 5

_TRIED_FIRST = frozenset({"abfs", "abfss", "hdfs", "viewfs"})
_TRIAL_S = 60.0
_TRIAL = """
import sys
import pyarrow.fs
try:
    store, path = pyarrow.fs.FileSystem.from_uri(sys.argv[1])
    store.open_input_stream(path).read(1)
except Exception:
    pass  # an answer, which whoever asks in earnest gets too
"""
_one_at_a_time = Lock()
_tried: dict[str, str] = {}


def delta_options(uri: str) -> dict[str, str] | None:
    """Settings of deltalake's own client, `storage_options`, for a table at this location."""
    if is_local(uri):
        return None
    return {
        "max_retries": "1000",  # the time decides; 10 tries would be over after 4 s
        "retry_timeout": f"{_RETRY_S}s",
        "backoff_config.base": "3",
        "backoff_config.max_backoff": "5s",
        "connect_timeout": f"{_CONNECT_S}s",
    }


@lru_cache(maxsize=64)
def _object_store(scheme_and_bucket: str) -> tuple[pafs.FileSystem, str]:
    """One client per bucket and process; making one costs a look-up of credentials.

    S3 takes its settings from the environment at that moment, as deltalake does at each
    call: AWS_ENDPOINT_URL and AWS_REGION, and for deltalake AWS_ALLOW_HTTP=true if the
    endpoint is http://.
    """
    if scheme_and_bucket.startswith(("gs://", "gcs://")) and "?" not in scheme_and_bucket:
        scheme_and_bucket += f"?retry_limit_seconds={_RETRY_S}"
    filesystem, root = pafs.FileSystem.from_uri(scheme_and_bucket)
    if filesystem.type_name == "s3" and "?" not in scheme_and_bucket:
        filesystem = _PatientS3(filesystem.region)
    return filesystem, root.rstrip("/")


def pauses_s() -> list[float]:
    """The pauses before the tries of the client of S3 after the first, 51 s in all."""
    return [0.025 * 2**attempt for attempt in range(1, _MAX_ATTEMPTS)]


class _PatientS3(pafs.S3FileSystem):  # type: ignore[misc]
    """What `from_uri` makes, which gives up after 6 s, with more patience.

    Not by AwsStandardS3RetryStrategy: it allows a client some 100 retries until a request
    succeeds, so that 32 threads had used them up after 3 s. A file of one part is one request.
    """

    def __init__(self, region: str) -> None:
        settings = os.environ
        super().__init__(
            region=region,
            endpoint_override=settings.get("AWS_ENDPOINT_URL_S3", settings.get("AWS_ENDPOINT_URL")),
            retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=_MAX_ATTEMPTS),
            request_timeout=_SILENCE_S,
            connect_timeout=_CONNECT_S,
            allow_delayed_open=True,
        )

    def __reduce__(self) -> tuple[type[_PatientS3], tuple[str]]:
        """Sent to a worker, as Ray Train does, pyarrow's own would lose its patience."""
        return _PatientS3, (self.region,)


def open_store(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system of a URI, and the path inside it.

    Raises:
        UsageError: the scheme is unknown to pyarrow, or credentials stand in the address.
        StorageError: the store cannot be reached.
    """
    if is_local(uri):
        return pafs.LocalFileSystem(), absolute_uri(uri)
    check_no_secret(uri)
    scheme, _, rest = uri.partition("://")
    bucket, slash, key = rest.partition("/")
    try:
        filesystem, root = _object_store(f"{scheme}://{bucket}")
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"{uri}: no file system for it ({first_line(error)}). Use a local path, s3://, gs:// "
            f"or another address that pyarrow knows."
        ) from error
    except OSError as error:
        raise StorageError(f"{uri}: the store cannot be reached ({first_line(error)}).") from error
    return filesystem, f"{root}{slash}{key}"


def first_line(error: BaseException) -> str:
    """What went wrong, in one line without the path (the caller names that) and credentials."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # pyarrow's own text names the path once more
    return without_secrets((str(error).splitlines() or [type(error).__name__])[0])


def check_store_answers(uri: str) -> None:
    """Find out whether asking a store would end or stop this process.

    Costs a second for each container; nothing for what is local, on s3:// or on gs://.

    Args:
        uri: Of a file; the first one of a bucket or container decides for all of them.

    Raises:
        StorageError: its client ended the other process, or gave no answer in a minute.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _TRIED_FIRST:
        return
    with _one_at_a_time:
        problem = _tried.get(store := f"{scheme}://{rest.partition('/')[0]}")
        if problem is None:
            problem = _tried[store] = _try(uri)
    if problem:
        raise StorageError(f"{uri}: the client of {scheme}:// {problem}.")


def _try(uri: str) -> str:
    """What is wrong; empty if nothing is."""
    try:
        exit_code = subprocess.run(  # noqa: S603 - our own program; the address is its argument
            [sys.executable, "-P", "-c", _TRIAL, uri],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRIAL_S,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return f"gives no answer in {_TRIAL_S:g} s"
    return f"ends its process (exit code {exit_code}), as without credentials" if exit_code else ""
