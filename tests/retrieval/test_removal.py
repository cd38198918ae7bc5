"""The one way in which jobs remove files: what they have written, below a folder, no links."""

from __future__ import annotations

import ast
import errno
import os
import re
import uuid
from pathlib import Path

import pytest

import retrieval
from retrieval.errors import StorageError
from retrieval.storage import list_files, read_bytes, removal, remove_written, write_bytes

OUTSIDE = ["/a", "../a", "a/../../b", "..", ".", "./a", "a/./b", "", "a//b", "a/", "a\0b", "a/.."]
NO_PATH = "is no path of a file below it, so nothing is removed"


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def snapshot(folder):
    """All that lies in a folder: content of files, targets of links, and folders."""
    return {
        str(path.relative_to(folder)): path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else path.is_dir()
        for path in folder.rglob("*")
    }


@pytest.fixture
def place(tmp_path):
    """A folder with files of a job, and beside it one with somebody's files of the same names."""
    fill(tmp_path / "place", "a", "sub/b", "sub/deep/c", "kept", "sub/kept")
    fill(tmp_path / "precious", "a", "b", "deep/c")
    return tmp_path / "place"


def refused(place, names, message, **settings):
    before = snapshot(place.parent)
    with pytest.raises(StorageError, match=message) as caught:
        remove_written(str(place), names, **settings)
    assert "\n" not in str(caught.value)
    assert snapshot(place.parent) == before


def test_the_named_files_go_and_all_else_stays(place):
    names = ["a", "sub/b", "sub/deep/c", "sub/b", "missing", "sub/missing", "missing/deeper/x"]
    remove_written(str(place), names)
    assert sorted(snapshot(place)) == ["kept", "sub", "sub/deep", "sub/kept"]
    remove_written(str(place), names)  # again: gone is no error
    for folder in (place.parent / "missing", place / "kept/below-a-file"):
        remove_written(str(folder), names, folders=["sub"])
    assert snapshot(place.parent / "precious").keys() == {"a", "b", "deep", "deep/c"}


def test_folders_go_if_they_are_empty_then(place):
    remove_written(
        str(place), ["sub/b", "sub/deep/c"], folders=["sub", "sub/deep", "missing", "missing/x"]
    )
    assert sorted(snapshot(place)) == ["a", "kept", "sub", "sub/kept"]  # sub holds a file
    remove_written(f"file://{place}/", ["sub/kept"], folders=["sub"])
    assert sorted(snapshot(place)) == ["a", "kept"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_goes(place, name):
    refused(place, ["a", name], f"^{place}: {re.escape(repr(name))} {NO_PATH}")
    refused(place, ["a"], NO_PATH, folders=[name])


def test_the_folder_itself_may_be_a_link(place):
    (place.parent / "link").symlink_to(place)
    remove_written(str(place.parent / "link"), ["sub/b"])
    assert not (place / "sub/b").exists()


@pytest.mark.parametrize("target", ["../precious", "missing", "link"])
@pytest.mark.parametrize("name", ["link", "link/b", "link/deep/c", "sub/link/b"])
def test_a_link_is_never_followed_nor_removed(place, name, target):
    for folder in (place, place / "sub"):
        (folder / "link").symlink_to(place.parent / "precious" if ".." in target else target)
    where = place / name[: name.index("link") + 4]
    refused(place, ["a", name], f"^{re.escape(str(where))}: is a link")


def test_a_link_to_a_file_is_not_removed(place):
    (place / "link").symlink_to("../precious/a")
    refused(place, ["a", "link"], "/link: is a link, which no job has written")


def test_folders_are_not_reached_through_a_link(place):
    (place.parent / "precious/empty").mkdir()
    (place / "link").symlink_to("../precious")
    refused(place, [], "/link: is a link", folders=["link/empty"])
    before = snapshot(place)
    remove_written(str(place), [], folders=["link"])  # a link is no empty folder
    assert snapshot(place) == before


def test_what_is_no_plain_file_is_refused(place):
    os.mkfifo(place / "pipe")
    for name in ("sub", "pipe"):
        refused(place, ["a", name], f"/{name}: is no plain file")
    for name in ("kept/x", "pipe/x"):
        refused(place, ["a", name], f"/{name[:4]}: is a link or no folder")
    refused(place / "kept", ["a"], r"/kept: cannot be opened \(Not a directory\)")


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(place, monkeypatch):
    """Once after all was looked at, and once after the folder was opened."""

    def swap():
        (place / "sub").rename(place / "moved")
        (place / "sub").symlink_to(place.parent / "precious")

    precious = snapshot(place.parent / "precious")
    check = removal._check
    monkeypatch.setattr(removal, "_check", lambda *args: (check(*args), swap()))
    with pytest.raises(StorageError, match="/sub: is a link"):
        remove_written(str(place), ["sub/b"])
    assert (place / "moved/b").exists()
    monkeypatch.undo()

    (place / "sub").unlink()
    (place / "moved").rename(place / "sub")
    unlink = os.unlink

    def swap_and_unlink(name, *, dir_fd):
        swap()
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", swap_and_unlink)
    remove_written(str(place), ["sub/b"])
    assert not (place / "moved/b").exists()
    assert snapshot(place.parent / "precious") == precious


@pytest.mark.parametrize("call", ["unlink", "rmdir", "stat"])
def test_a_system_that_says_no_is_told_in_one_line(place, monkeypatch, call):
    def fail(name, **settings):
        raise PermissionError(errno.EACCES, "no", name)

    (place / "empty").mkdir()
    monkeypatch.setattr(os, call, fail)
    name, done = ("empty" if call == "rmdir" else "a"), "looked up" if call == "stat" else "removed"
    message = rf"/{name}: cannot be {done} \(Permission denied\). Allow removing files there."
    with pytest.raises(StorageError, match=message):
        remove_written(str(place), ["a"], folders=["empty"])


def test_no_file_is_left_open(place):
    (place / "link").symlink_to("../precious")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        remove_written(str(place), ["sub/missing", "missing/x", "sub/b"], folders=["sub/deep"])
        with pytest.raises(StorageError):
            remove_written(str(place), ["link/a"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_keys_of_a_store_go_below_the_prefix_alone(s3):
    uri = f"{s3}/{uuid.uuid4().hex}"
    for name in ("a", "sub/b", "sub/kept", "beside"):
        write_bytes(f"{uri}/place/{name}", name.encode())
    write_bytes(f"{uri}/other/a", b"precious")
    for name in OUTSIDE:
        with pytest.raises(StorageError, match=NO_PATH):
            remove_written(f"{uri}/place", ["a", name])
    remove_written(f"{uri}/place", ["a", "sub/b", "missing", "sub"], folders=["sub"])
    names = [file.removeprefix(f"{uri}/") for file in list_files(uri)]
    assert names == ["other/a", "place/beside", "place/sub/kept"]
    assert read_bytes(f"{uri}/other/a") == b"precious"


# Who may remove or rename by other means, and what: files of this very process, under random names.
OWN_MEANS = {
    "retrieval/storage/removal.py": {"unlink", "rmdir", "delete_file"},
    "retrieval/storage/files.py": {"delete_file"},  # `remove_file`
    # What `write_bytes` has not finished, and the probe of `check_writable`. An entry of the log
    # gets its name without replacing; the copy of one that could not be finished goes.
    "retrieval/storage/writing.py": {"unlink", "rmdir", "replace", "rename"},
    # An entry that was not committed, and the folder in which a checkpoint is made.
    "retrieval/index/delta_log_writer.py": {"unlink", "rmtree", "replace"},
    "retrieval/index/torn_entry.py": {"rename", "delete_file"},
}
MEANS = {
    *("unlink", "rmdir", "rmtree", "os.remove", "removedirs", "rename", "renames", "move"),
    *("delete_file", "delete_dir", "delete_dir_contents", "delete_root_dir_contents"),
}


def means_of(path):
    """Names of functions that remove or rename, called in a file; `replace` with one argument."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name == "remove" and ast.unparse(call.func) == "os.remove":
            name = "os.remove"
        if name in MEANS or (name == "replace" and len(call.args) == 1 and not call.keywords):
            yield name


def test_nothing_else_removes_files():
    root = Path(retrieval.__file__).parents[1]
    found = {
        str(path.relative_to(root)): set(means_of(path))
        for folder in ("retrieval", "pipelines")
        for path in (root / folder).rglob("*.py")
    }
    assert {name: means for name, means in found.items() if means} == OWN_MEANS
