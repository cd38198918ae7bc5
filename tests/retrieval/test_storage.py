"""Files written whole or not at all, on a disk and on an S3 server."""

from __future__ import annotations

import errno
import os
import re
from unittest.mock import Mock

import boto3
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from retrieval import storage
from retrieval.errors import StorageError, UsageError
from retrieval.storage import (
    absolute_uri,
    check_writable,
    expand,
    file_exists,
    first_line,
    join,
    list_files,
    open_store,
    read_buffer,
    read_bytes,
    remove_file,
    write_bytes,
)

FULL = "Choose a folder that you may write to and that has room."


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fill(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("photos", "{here}/photos"),
        ("./photos/", "{here}/photos"),
        ("/data/photos//", "/data/photos"),
        ("file:///data/photos/", "/data/photos"),
        ("~/photos", "/home/someone/photos"),
        ("file://~/photos", "/home/someone/photos"),
        ("s3://bucket/photos//", "s3://bucket/photos"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a b#c?d%20é", "s3://bucket/a b#c?d%20é"),
    ],
)
def test_an_absolute_uri_has_no_trailing_slash(tmp_path, monkeypatch, given, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    absolute = absolute_uri(given)
    assert absolute == expected.format(here=tmp_path)
    assert absolute_uri(absolute) == absolute
    assert join(absolute, "a", "b/c") == join(f"{absolute}/", "a/b", "c") == f"{absolute}/a/b/c"
    assert storage.is_local(given) == (not given.startswith("s3://"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "An empty path was given; a folder, file or s3:// address is needed."),
        ("s3://", "s3://: names no bucket; scheme://bucket/key is needed."),
        ("s3:///key", "s3:///key: names no bucket; scheme://bucket/key is needed."),
    ],
)
def test_what_names_nothing_is_refused(given, message):
    with pytest.raises(UsageError, match=line(message)):
        absolute_uri(given)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://host/a", "Unrecognized filesystem type in URI: ftp://host"),
        (
            "s3://a b/c",
            "Cannot parse URI: 's3://a b' due to syntax error at character ' ' (position 6)",
        ),
    ],
)
def test_an_address_that_pyarrow_does_not_know_is_refused(address, reason):
    message = (
        f"{address}: no file system for it ({reason}). Use a local path, s3://, gs:// or another "
        f"address that pyarrow knows."
    )
    for use in (open_store, file_exists, list_files, read_bytes, lambda uri: write_bytes(uri, b"")):
        with pytest.raises(UsageError, match=line(message)):
            use(address)


def test_a_store_that_cannot_be_reached_is_named(monkeypatch):
    down = Mock(side_effect=OSError("no network\nmore"))
    monkeypatch.setattr(storage.clients, "_object_store", down)
    with pytest.raises(
        StorageError, match=line("s3://b: the store cannot be reached (no network).")
    ):
        open_store("s3://b")


def test_the_path_of_an_address_is_the_one_its_file_system_wants():
    assert open_store("abfs://photos@account.dfs.core.windows.net/a/b")[1] == "photos/a/b"


def test_the_first_line_of_an_error_names_no_path_and_is_never_empty():
    assert first_line(PermissionError(errno.EACCES, "Failed to open '/a'")) == "Permission denied"
    assert first_line(pa.ArrowInvalid("one\ntwo")) == "one"
    assert first_line(OSError()) == "OSError"


@pytest.mark.parametrize("wrap", [bytes, memoryview, pa.py_buffer])
def test_a_file_is_written_with_its_folders_and_replaced(tmp_path, wrap):
    path = str(tmp_path / "a" / "b" / "file")
    for data in (b"first", b"", b"second\0"):
        write_bytes(path, wrap(data))
        assert read_bytes(path) == read_bytes(f"file://{path}") == data
    with storage.open_input(path) as stream:
        assert stream.read_at(3, 2) == b"con"
    assert names(tmp_path) == ["a", "a/b", "a/b/file"]


@pytest.mark.parametrize(("failing_sync", "content"), [(1, b"old"), (2, b"new"), (3, b"new")])
def test_a_write_that_fails_leaves_the_old_file_or_the_new_and_no_other(
    tmp_path, monkeypatch, failing_sync, content
):
    target, seen = tmp_path / "file", []
    target.write_bytes(b"old")
    reader = target.open("rb")

    def fsync(descriptor):
        seen.append(target.read_bytes())
        if len(seen) == failing_sync:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    if failing_sync < 3:
        message = f"{target}: cannot be written (No space left on device). {FULL}"
        with pytest.raises(StorageError, match=line(message)):
            write_bytes(str(target), b"new")
    else:
        write_bytes(str(target), b"new")
    # The data are on the disk before the name points to them; then the name is.
    assert seen == [b"old", b"new"][:failing_sync]
    assert (target.read_bytes(), names(tmp_path)) == (content, ["file"])
    with reader:  # one that has opened the old file reads on in it
        assert reader.read() == b"old"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    fill(tmp_path, "file")
    below = f"{tmp_path}/file/below"
    with pytest.raises(
        StorageError, match=line(f"{below}: cannot be written (File exists). {FULL}")
    ):
        write_bytes(below, b"")
    message = f"{tmp_path}: cannot be written (Is a directory). {FULL}"
    with pytest.raises(StorageError, match=line(message)):
        write_bytes(str(tmp_path), b"")
    with pytest.raises(StorageError, match=re.escape(f"(File exists). {FULL}")):
        check_writable(f"{tmp_path}/file")
    assert names(tmp_path) == ["file"]


def test_checking_a_folder_leaves_no_trace(tmp_path):
    check_writable(str(tmp_path / "new" / "folder"))
    check_writable(str(tmp_path))
    assert names(tmp_path) == []


def test_removing_touches_that_file_alone_and_may_come_too_late(tmp_path, monkeypatch):
    fill(tmp_path, "a", "b", "folder/c")
    for name in ("a", "a", "folder", "nothing"):
        remove_file(str(tmp_path / name))
    assert names(tmp_path) == ["b", "folder", "folder/c"]
    assert [file_exists(str(tmp_path / name)) for name in ("a", "b", "folder")] == [0, 1, 0]

    sealed = Mock()
    sealed.delete_file.side_effect = PermissionError(errno.EACCES, "Permission denied")
    sealed.get_file_info.return_value.type = pafs.FileType.File
    monkeypatch.setattr(storage.files, "open_store", lambda uri: (sealed, uri))
    message = "/b: cannot be removed (Permission denied). Allow removing files there."
    with pytest.raises(StorageError, match=line(message)):
        remove_file("/b")


def test_a_file_a_folder_and_globs_expand_to_sorted_files(tmp_path, monkeypatch):
    fill(tmp_path, "b.parquet", "a.parquet", "sub/c.parquet", "sub/d.csv", ".hidden", "_SUCCESS")
    fill(tmp_path, ".git/e.parquet", "sub/_temporary/f.parquet", "odd [1]/g.parquet")

    def expanded(pattern):
        return [file.removeprefix(f"{tmp_path}/") for file in expand(pattern)]

    visible = ["a.parquet", "b.parquet", "odd [1]/g.parquet", "sub/c.parquet", "sub/d.csv"]
    assert expanded(str(tmp_path)) == visible
    assert expanded(f"{tmp_path}/") == expanded(f"file://{tmp_path}") == visible
    assert expanded(f"{tmp_path}/sub/d.csv") == ["sub/d.csv"]
    assert expanded(f"{tmp_path}/*.parquet") == ["a.parquet", "b.parquet"]
    assert expanded(f"{tmp_path}/*/[a-c].parquet") == ["sub/c.parquet"]
    assert expanded(f"{tmp_path}/sub/**/*.parquet") == ["sub/_temporary/f.parquet", "sub/c.parquet"]
    assert expanded(f"{tmp_path}/odd [1]") == ["odd [1]/g.parquet"]  # a name, not a glob
    monkeypatch.chdir(tmp_path)
    assert expanded("sub") == expanded("s*/[cd].*") == ["sub/c.parquet", "sub/d.csv"]


def test_what_holds_no_file_is_named_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    for given in ("empty", "pipe", "dangling", "missing", "*.parquet", f"{tmp_path}/missing/"):
        message = f"{given}: no file found there. Name a folder, a file or a glob."
        with pytest.raises(StorageError, match=line(message)):
            expand(given)
        assert list_files(given) == []


def test_links_are_followed_and_a_loop_of_links_is_entered_once(tmp_path):
    fill(tmp_path, "shards/a.parquet", "elsewhere/b.parquet")
    (tmp_path / "shards" / "link").symlink_to("../elsewhere")
    (tmp_path / "shards" / "loop").symlink_to(".")
    (tmp_path / "elsewhere" / "back").symlink_to("../shards")
    (tmp_path / "shards" / "itself").symlink_to("itself")
    folder = str(tmp_path / "shards")
    assert list_files(folder) == [f"{folder}/a.parquet", f"{folder}/link/b.parquet"]


def test_bytes_of_a_name_that_are_not_utf_8_are_written_as_percent(tmp_path):
    (tmp_path / os.fsdecode(b"\xffa\xc3\xa9.parquet")).touch()
    assert list_files(str(tmp_path)) == [f"{tmp_path}/%FFaé.parquet"]
    assert expand(f"{tmp_path}/*a*") == [f"{tmp_path}/%FFaé.parquet"]


def test_a_folder_that_may_not_be_listed_is_an_error_and_not_an_empty_one(tmp_path, monkeypatch):
    fill(tmp_path, "a", "sealed/b")
    scandir = os.scandir

    def sealed(folder):
        if str(folder).endswith("sealed"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", sealed)
    message = (
        f"{tmp_path}/sealed: cannot be listed (Permission denied). Its files would be taken for "
        f"deleted; allow reading it, or move it elsewhere."
    )
    with pytest.raises(StorageError, match=line(message)):
        list_files(str(tmp_path))


def test_files_on_s3_are_written_read_listed_and_removed(s3):
    folder = f"{s3}/storage"
    files = {f"{folder}/{name}": name.encode() for name in ("a", "b/c d#e?f%20é", "b/_x", ".y/z")}
    for uri, data in files.items():
        write_bytes(uri, data)
    assert {uri: read_bytes(uri) for uri in files} == files
    visible = [f"{folder}/a", f"{folder}/b/c d#e?f%20é"]
    assert expand(folder) == expand(f"{folder}/") == list_files(folder) == visible
    assert expand(visible[1]) == [visible[1]]
    assert set(visible) <= set(list_files(s3))
    large = bytes(range(256)) * 50_000  # 12 MB: in several parts
    write_bytes(visible[0], large)
    assert read_bytes(visible[0]) == large
    with storage.open_input(visible[0]) as stream:
        assert stream.read_at(2, 257) == b"\x01\x02"

    check_writable(f"{folder}/new")
    boto3.client("s3").put_object(Bucket=s3.removeprefix("s3://"), Key="storage/folder/", Body=b"")
    assert list_files(folder) == visible
    for uri in (visible[0], visible[0], folder, f"{folder}/nothing"):
        remove_file(uri)
    assert list_files(folder) == visible[1:]
    assert [file_exists(uri) for uri in (*visible, folder)] == [False, True, False]


def test_what_arrow_reads_from_lies_in_its_own_memory(s3, tmp_path):
    """A thread of it that lets go of bytes of Python while that exits aborts the process."""
    data = bytes(500_000)
    for uri in (f"{s3}/own-memory", str(tmp_path / "file")):
        write_bytes(uri, data)
        before = pa.total_allocated_bytes()
        buffer = read_buffer(uri)
        assert pa.total_allocated_bytes() - before >= len(data)
        assert buffer.to_pybytes() == data
        del buffer
    before = pa.total_allocated_bytes()
    with storage.open_input(f"{s3}/own-memory"):
        assert pa.total_allocated_bytes() - before >= len(data)


def test_what_is_not_on_s3_is_told_apart_from_what_cannot_be_reached(s3):
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{s3}/nothing")
    message = f"{s3}/no*thing: no file found there. Name a folder, a file or a glob."
    with pytest.raises(StorageError, match=line(message)):
        expand(f"{s3}/no*thing")
    with pytest.raises(
        StorageError, match=r"^s3://no-such-bucket/a: cannot be written \(.*NO_SUCH"
    ):
        write_bytes("s3://no-such-bucket/a", b"")
