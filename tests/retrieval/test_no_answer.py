"""A disk or a store that does not answer is told as that, and never as damage."""

from __future__ import annotations

import errno
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.exceptions import DeltaError

from retrieval.errors import IndexFormatError, RetrievalError, StorageError
from retrieval.index import is_index, open_index, read_index, read_run, table, update_plan
from retrieval.index.history import read_commits, split_version
from retrieval.index.torn_entry import set_torn_entry_aside
from retrieval.maintenance.check import check_index
from retrieval.maintenance.vacuum import vacuum_index
from retrieval.storage import is_no_answer, not_read
from retrieval.vectors import open_source, read_blocks
from tests.retrieval.commits import make_versions
from tests.retrieval.disk import watched
from tests.retrieval.night_cases import gallery_of
from tests.retrieval.nights import one_night
from tests.retrieval.plain_difference import plain_difference

ERRNOS = ["EIO", "EACCES", "EMFILE", "ENOSPC", "ESTALE", "ETIMEDOUT"]
SILENT = {
    "500": "When reading information for key 'a' in bucket 'b': AWS Error UNKNOWN (HTTP status "
    "500) during GetObject operation: No response body.",
    "503": "AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate.",
    "timeout": "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28, Timeout",
    "google": "google::cloud::Status(UNAVAILABLE: Retry policy exhausted)",
    "deltalake": "Generic S3 error: Error after 10 retries in 60s, max_retries:10, source: x",
    "rust": "Generic LocalFileSystem error: Unable to open file: Too many files (os error 24)",
}


class Failing:
    """The n-th file operation fails, by this number of an error."""

    def __init__(self, number, nth):
        self.number, self.nth, self.count = number, nth, 0

    def __call__(self, name, path, other):
        self.count += 1
        if self.count == self.nth:
            raise OSError(self.number, os.strerror(self.number), path)


READS = {
    "is": is_index,
    "open": open_index,
    "version": lambda uri: open_index(uri, 0),
    "rows": read_index,
    "run": lambda uri: read_run(uri, 1),
    "commits": lambda uri: list(read_commits(uri, [1, 0])),
    "check": lambda uri: check_index(open_index(uri)),
    "split": lambda uri: split_version(f"{uri}@0"),
    "source": open_source,
    "torn": set_torn_entry_aside,
    "vacuum": lambda uri: vacuum_index(uri, 1, dry_run=True),
}


def message_of(read, uri):
    try:
        read(uri)
    except RetrievalError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("code", ERRNOS)
def test_whatever_file_operation_fails_is_one_line(tmp_path, name, code):
    uri, number = tmp_path / "index", getattr(errno, code)
    make_versions(uri, 2)
    for nth in range(1, 100):
        failing = Failing(number, nth)
        with watched(uri, failing):
            message = message_of(READS[name], str(uri))
        assert "\n" not in message
        if code != "EIO":
            assert "`heal`" not in message
            assert "damaged" not in message.replace("known to be damaged", "")
        if failing.count < nth:
            break
    else:
        raise AssertionError("no end")


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("code", ERRNOS)
def test_a_log_that_cannot_be_opened_is_one_line(tmp_path, monkeypatch, code, torn):
    make_versions(tmp_path, 2)
    uri, number = str(tmp_path), getattr(errno, code)

    def refuse(*_, **__):
        raise kind(f"Generic error: {os.strerror(number)} (os error {number})")

    def refuse_too(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(table, "DeltaTable", type("T", (), {"is_deltatable": lambda *_: True}))
    monkeypatch.setattr(table, "open_table", refuse)
    if torn:
        monkeypatch.setattr("retrieval.index.entries.read_bytes", refuse_too)
    for kind in (OSError, DeltaError):  # noqa: B007 - `refuse` raises it
        for read in (open_index, read_index, lambda uri: open_index(uri, 1)):
            with pytest.raises((StorageError, IndexFormatError)) as caught:
                read(uri)
            message = str(caught.value)
            assert "\n" not in message
            assert os.strerror(number) in message
            advice = {"EACCES": "Allow reading it", "EMFILE": "ulimit -n", "ENOSPC": "Make room"}
            assert advice.get(code, "") in message
            assert "--torn" not in message


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT)
def test_the_answer_of_a_store_is_no_damage(tmp_path, monkeypatch, text):
    monkeypatch.setattr(update_plan, "open_difference", plain_difference)
    uri, gallery = str(tmp_path / "index"), gallery_of(3)
    one_night(uri, gallery)
    pq.write_table(
        pa.table({"id": ["a"], "vector": pa.array([[1.0, 2.0]], pa.list_(pa.float32()))}),
        tmp_path / "x.parquet",
    )
    index, others = open_index(uri), open_source(str(tmp_path / "x.parquet"))
    ours = open_source(uri)

    def refuse(*_, **__):
        raise OSError(text)

    for place in (
        "retrieval.index.reading.open_input", "retrieval.index.reading.read_buffer",
        "retrieval.maintenance.check_shard.read_buffer", "retrieval.index.update_plan.open_input",
        "retrieval.vectors.blocks.open_input", "retrieval.vectors.parquet.open_input",
    ):  # fmt: skip
        monkeypatch.setattr(place, refuse)
    gallery.photos.pop(sorted(gallery.good())[0])
    for read in (
        lambda: read_index(uri),
        lambda: check_index(index),
        lambda: one_night(uri, gallery),
        lambda: one_night(uri, gallery, heal=True),
        lambda: list(read_blocks(ours, ours.files[0], 3)),
        lambda: list(read_blocks(others, others.files[0], 3)),
        lambda: open_source(str(tmp_path / "x.parquet")),
    ):
        with pytest.raises(StorageError) as caught:
            read()
        message = str(caught.value)
        assert "run it again" in message
        assert "`heal`" not in message
    assert open_index(uri).version == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError("Couldn't deserialize thrift: TProtocolException: Invalid data"),
        OSError("Unexpected end of stream"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        OSError(errno.EIO, "Input/output error"),
        IsADirectoryError(errno.EISDIR, "Is a directory"),
        pa.ArrowInvalid("Parquet magic bytes not found in footer"),
        KeyError("embedding"),
    ],
)
def test_what_is_said_of_the_bytes_is_damage(error):
    assert not is_no_answer(error)
    assert isinstance(not_read("/a", error), StorageError)


def test_a_right_that_is_missing_is_told_as_that():
    for error in (
        PermissionError(errno.EACCES, "x"),
        OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."),
    ):
        assert is_no_answer(error)
        assert str(not_read("/a", error)).endswith("Allow reading it, and run it again.")
    assert np.all([is_no_answer(OSError(text)) for text in SILENT.values()])
