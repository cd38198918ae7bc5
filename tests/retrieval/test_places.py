"""What a job reads and what it writes lie apart, by place and not by the text of a path."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from retrieval.errors import UsageError
from retrieval.storage import (
    Entry,
    check_apart,
    entries,
    first_stranger,
    join,
    list_files,
    write_bytes,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """photos/ with a folder, sub/, and links to photos from beside and from inside sub."""
    (tmp_path / "photos/a").mkdir(parents=True)
    (tmp_path / "sub").mkdir()
    (tmp_path / "beside").symlink_to("photos")
    (tmp_path / "sub/link").symlink_to(tmp_path / "photos/a")
    (tmp_path / "sub/dangling").symlink_to(tmp_path / "photos/new")
    (tmp_path / "photos/out").symlink_to(tmp_path / "sub")
    (tmp_path / "list.parquet").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def relation(source, target):
    try:
        check_apart({"the photos' folder": str(source)}, {"the index": str(target)})
    except UsageError as error:
        message = str(error)
        assert message.endswith(
            ", so that photos and results would be mixed up. Choose a folder elsewhere."
        )
        words = message.partition(": ")[2]
        return next(word for word in ("is", "lies inside", "holds") if words.startswith(word))
    return None


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("photos", "index", None),
        ("photos", "photos2", None),  # a name that begins alike
        ("photos", "photos-index/photos", None),
        ("photos", "photos/../index", None),
        ("photos", "sub/../index", None),
        ("photos", "photos", "is"),
        ("photos", "photos/", "is"),
        ("photos", "./photos/.", "is"),
        ("photos", "sub/../photos", "is"),
        ("photos", "beside", "is"),
        ("photos", "file://{here}/photos/", "is"),
        ("sub/../photos", "photos/index", "lies inside"),
        ("photos", "photos/new/deep/index", "lies inside"),
        ("photos", "photos/../photos/index", "lies inside"),
        ("photos", "beside/index", "lies inside"),
        ("beside", "photos/index", "lies inside"),
        ("photos", "sub/link/index", "lies inside"),
        ("photos", "sub/link/../index", "lies inside"),  # ".." of where the link leads
        ("photos", "sub/dangling", "lies inside"),
        ("photos", "sub/dangling/index", "lies inside"),
        ("file://{here}/photos", "photos//index", "lies inside"),
        ("photos", "photos/out/index", None),  # a link out of the photos, which lists nothing
        ("photos", ".", "holds"),
        ("photos/a", "beside", "holds"),
        ("photos/a", "photos/b/..", "holds"),
        ("missing/photos", "missing", "holds"),
        ("missing/photos", "missing/photos/index", "lies inside"),
        ("missing/photos", "missing/index", None),
        ("missing/photos", "missing/photos", "is"),
        ("list.parquet", "index", None),
        ("list.parquet", ".", "holds"),
        ("list.parquet", "sub/../list.parquet", "is"),
        ("/", "index", "lies inside"),
        ("photos", "s3://photos/index", None),
    ],
)
def test_places_are_compared_and_not_texts(here, s3, source, target, expected):
    source, target = source.format(here=here), target.format(here=here)
    assert relation(source, target) == expected
    flipped = {"lies inside": "holds", "holds": "lies inside"}
    assert relation(target, source) == flipped.get(expected, expected)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("photos", "index", None),
        ("photos", "photos2/index", None),
        ("photos", "photos", "is"),
        ("photos/", "photos", "is"),
        ("photos", "photos//index", "lies inside"),
        ("photos", "./photos/index", "lies inside"),
        ("photos//a", "photos/a/index", "lies inside"),
        ("photos", "sub/../photos/index", "lies inside"),
        ("photos", "photos/../index", "lies inside"),  # a key that begins with "photos/"
        ("photos/a", "photos", "holds"),
        ("", "photos", "lies inside"),
    ],
)
def test_keys_of_a_store_are_compared_part_by_part(s3, source, target, expected):
    assert relation(f"{s3}/{source}", f"{s3}/{target}") == expected
    assert relation(f"{s3}/{source}", f"s3://another/{target}") is None
    assert relation(f"{s3}/{source}", f"/{target}") is None


def test_names_of_one_store_are_the_same_store():
    assert relation("gs://bucket/photos", "gs://anonymous@bucket/photos/index") == "lies inside"


def test_a_mounted_folder_is_the_folder(here):
    (here / "mounted").mkdir()
    mount = ["mount", "--bind", str(here / "photos"), str(here / "mounted")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        assert relation("photos", "mounted/index") == "lies inside"
        assert relation("mounted/a", "photos") == "holds"
    finally:
        subprocess.run(["umount", str(here / "mounted")], check=True)


def test_each_input_is_compared_with_each_output_and_the_two_are_named(here):
    check_apart({"the model": None, "the photos": "photos"}, {"a": None, "b": "b", "c": "b/c"})
    message = (
        f"^{here}/sub/page.html: lies inside the ranking {here}/sub, so that inputs and results "
        f"would be mixed up. Choose a folder elsewhere.$"
    )
    with pytest.raises(UsageError, match=message):
        check_apart(
            {"the photos": "photos", "the ranking": "sub"}, {"a": "b", "page": "sub/page.html"}
        )


def test_all_that_lies_in_a_folder_is_told_and_no_link_followed(here):
    os.mkfifo(here / "sub/pipe")
    (here / "photos/.hidden").write_bytes(b"123")
    (here / "photos/a/\udcff.jpg").write_bytes(b"1")
    assert list(entries("missing")) == list(entries("list.parquet")) == []
    assert list(entries(str(here / "beside"))) == [
        Entry(".hidden", "file", 3),
        Entry("a", "folder"),
        Entry("out", "link"),
        Entry("a/%FF.jpg", "file", 1),
    ]
    assert [entry.kind for entry in entries("sub")] == ["link", "link", "other"]


def test_a_link_or_a_pipe_is_always_a_stranger(here):
    assert first_stranger("photos", lambda entry: True) == "out"
    (here / "photos/out").unlink()
    assert first_stranger("photos", lambda entry: True) is None
    assert first_stranger("photos", lambda entry: entry.kind == "file") == "a"
    os.mkfifo(here / "photos/a/pipe")
    assert first_stranger("photos", lambda entry: True) == "a/pipe"


def test_a_store_is_listed_alike(s3):
    for name in ("place/a", "place/.hidden/b", "place2/c"):
        write_bytes(f"{s3}/listed/{name}", b"12")
    found = [entry for entry in entries(f"{s3}/listed/place") if entry.kind == "file"]
    assert found == [Entry(".hidden/b", "file", 2), Entry("a", "file", 2)]
    assert list(entries(f"{s3}/listed/missing")) == []


def test_folders_that_systems_put_there_are_passed_over_and_not_even_listed(here, s3, monkeypatch):
    """As lost+found of a mounted disk, which is root's; permissions do not bind root."""
    files = ["Thumbs.db", "a/1", "a/@eaDir/1/thumb", "lost+found/#1"]
    for name in files:
        (here / "disk" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "disk" / name).write_bytes(b"1")
        write_bytes(f"{s3}/disk/{name}", b"1")
    scandir = os.scandir

    def sealed(folder):
        if folder.endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", sealed)
    for disk in ("disk", f"{s3}/disk"):
        found = [entry.path for entry in entries(disk) if entry.kind == "file"]
        assert sorted(found) == ["Thumbs.db", "a/1"]
        assert not any("@eaDir" in entry.path for entry in entries(disk))
        assert list_files(disk) == [join(disk, "a/1")]
