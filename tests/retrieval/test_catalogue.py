"""What counts as a photo of a gallery, in folders and in a bucket."""

from __future__ import annotations

import errno
import os
import re
import socket
from datetime import UTC, datetime

import boto3
import numpy as np
import pyarrow as pa
import pytest

from pipelines.scan import _folders
from retrieval.errors import StorageError, UsageError
from retrieval.gallery.listing import CATALOGUE_SCHEMA, list_photos
from retrieval.images.fetch import fetch_photos
from retrieval.storage import entries, list_files


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def fill(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def ids(gallery):
    return list_photos(str(gallery))["image_id"].to_pylist()


def test_every_file_is_listed_with_its_size_and_time(tmp_path):
    fill(tmp_path, "b/2.jpg", "a.txt")
    os.utime(tmp_path / "a.txt", ns=(0, 1_700_000_000_123_456_789))
    os.utime(tmp_path / "b" / "2.jpg", ns=(0, -1_000))  # before 1970
    photos = list_photos(str(tmp_path))
    assert photos.schema.equals(CATALOGUE_SCHEMA, check_metadata=True)
    assert photos.to_pylist() == [
        {
            "image_id": "a.txt",
            "uri": f"{tmp_path}/a.txt",
            "size_bytes": 5,
            "modified_at": datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC),
        },
        {
            "image_id": "b/2.jpg",
            "uri": f"{tmp_path}/b/2.jpg",
            "size_bytes": 7,
            "modified_at": datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        },
    ]


def test_ids_are_relative_paths_in_the_order_of_their_bytes(tmp_path):
    # "a-b/1" before "a/1", since "-" comes before "/"; "é" after "z"; capitals first.
    names = ["B.jpg", "a b#?%20.jpg", "a-b/1", "a/1", "a/10", "a/2/3/4", "z.jpg", "é/ü.JPG", "猫"]
    names.append("\U0001f431")  # above the sixteen-bit characters, as its bytes are
    fill(tmp_path, *names)
    assert ids(tmp_path) == names == sorted(names, key=str.encode)


def test_hidden_files_and_the_litter_of_desktops_are_left_out(tmp_path):
    fill(tmp_path, ".DS_Store", "a/._1.jpg", ".git/config", "a/.b/1.jpg", ".a.jpg")
    fill(tmp_path, "Thumbs.db", "a/desktop.ini", "a/THUMBS.DB", "Desktop.ini/1.jpg")
    fill(tmp_path, "_a/_1.jpg", "thumbs.db.jpg", "a.hidden")
    assert ids(tmp_path) == ["_a/_1.jpg", "a.hidden", "thumbs.db.jpg"]


LITTER_FOLDERS = [
    "lost+found", "@eaDir", "@EADIR", "#recycle", "#snapshot", "$RECYCLE.BIN", "$Recycle.Bin",
    "System Volume Information", ".Trash-1000", ".Trashes", "__MACOSX", "@Recently-Snapshot",
    "@Recycle", "@tmp", "~snapshot", "Network Trash Folder",
]  # fmt: skip
LITTER_FILES = ["Thumbs.db", "ehthumbs.db", "desktop.ini", ".DS_Store", "Icon\r", "._1.jpg"]


@pytest.mark.parametrize("where", ["", "a/", "a/b/"])
def test_what_disks_nas_and_systems_leave_is_no_photo_and_no_class(tmp_path, where):
    fill(tmp_path, "a/b/1.jpg", *(f"{where}{name}/x/1.jpg" for name in LITTER_FOLDERS))
    fill(tmp_path, *(f"{where}{name}" for name in LITTER_FILES))
    near = ["eaDir/1.jpg", "recycle/1.jpg", "lost+found.jpg", "lost/found/1.jpg", "#1.jpg", "@a/1"]
    fill(tmp_path, *near)
    assert ids(tmp_path) == sorted(["a/b/1.jpg", *near])
    classes = {"a", "eaDir", "recycle", "lost", "@a"}
    assert _folders(str(tmp_path)) == classes


def test_litter_that_may_not_be_listed_is_not_even_tried(tmp_path, monkeypatch):
    """As lost+found of a mounted disk, which is root's; permissions do not bind root."""
    fill(tmp_path, "a.jpg", *(f"{name}/x" for name in LITTER_FOLDERS))
    scandir = os.scandir

    def only_what_is_ours(folder):
        if os.path.basename(folder) in LITTER_FOLDERS:  # noqa: PTH119
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", only_what_is_ours)
    assert ids(tmp_path) == ["a.jpg"]
    assert list_files(str(tmp_path)) == [f"{tmp_path}/a.jpg"]  # a folder of vectors, an index
    for name in (".Trash-1000", ".Trashes"):  # hidden ones may be a job's own, as .augmented is
        (tmp_path / name).rename(tmp_path.with_name(f"{tmp_path.name}{name}"))
    assert [entry.path for entry in entries(str(tmp_path))] == ["a.jpg"]


def test_the_contact_sheet_of_augment_is_no_photo_but_only_at_the_root(tmp_path):
    fill(tmp_path, "augmentations.png", "a/augmentations.png", "augmentations.jpg")
    fill(tmp_path, "Augmentations.png", "my-augmentations.png")
    expected = ["Augmentations.png", "a/augmentations.png", "augmentations.jpg"]
    assert ids(tmp_path) == [*expected, "my-augmentations.png"]


@pytest.mark.parametrize("given", ["{}/photos/", "{}/photos//", "file://{}/photos", "photos", "."])
def test_however_a_gallery_is_named_its_rows_are_the_same(tmp_path, monkeypatch, given):
    fill(tmp_path, "photos/a.jpg", "photos/b/c.jpg")
    monkeypatch.chdir(tmp_path / "photos" if given == "." else tmp_path)
    assert list_photos(given.format(tmp_path)).equals(list_photos(f"{tmp_path}/photos"))


def test_links_to_files_and_folders_are_followed_under_the_link_s_name(tmp_path):
    fill(tmp_path, "photos/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    (tmp_path / "photos" / "file").symlink_to("../elsewhere/b.jpg")
    (tmp_path / "photos" / "one").symlink_to("../elsewhere")
    (tmp_path / "photos" / "two").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "gallery").symlink_to("photos")
    expected = ["a.jpg", "file", "one/b.jpg", "one/deep/c.jpg", "two/c.jpg"]
    for gallery in ("photos", "gallery"):
        photos = list_photos(str(tmp_path / gallery), follow_links=True)
        assert photos["image_id"].to_pylist() == expected
    sizes = photos["size_bytes"].to_pylist()
    assert sizes == [len(name) for name in ("photos/a.jpg", *["elsewhere/b.jpg"] * 2)] + [20] * 2


def test_a_folder_that_contains_itself_through_links_is_entered_once(tmp_path):
    fill(tmp_path, "photos/a/1.jpg", "photos/b/2.jpg")
    (tmp_path / "photos" / "a" / "self").symlink_to(".")
    (tmp_path / "photos" / "a" / "root").symlink_to("..")
    (tmp_path / "photos" / "a" / "b").symlink_to("../b")
    (tmp_path / "photos" / "b" / "a").symlink_to("../a")
    assert ids(tmp_path / "photos") == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg"]


def test_a_link_to_nowhere_or_to_itself_is_listed_so_that_it_becomes_a_reject(tmp_path):
    fill(tmp_path, "a.jpg")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    assert ids(tmp_path) == ["a.jpg", "dangling", "itself"]


def test_pipes_and_sockets_are_no_files(tmp_path):
    fill(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))  # the kernel allows 108 bytes
        assert ids(tmp_path) == ["a.jpg"]


def test_bytes_of_a_name_that_are_not_utf_8_are_written_as_percent(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff\x80\xc3\xa9.jpg")).touch()
    photos = list_photos(str(tmp_path))
    assert photos["image_id"].to_pylist() == ["caf%E9/%FF%80é.jpg"]
    assert photos["uri"].to_pylist() == [f"{tmp_path}/caf%E9/%FF%80é.jpg"]


def test_names_that_are_not_utf_8_are_rows_of_their_own_and_told_from_those_that_are(tmp_path):
    """The text of one may be the name of another, which is a good photo."""
    names = [b"\xfc.jpg", b"%FC.jpg", b"%25FC.jpg", b"\xfc%FC.jpg", b"%FC\xfc.jpg"]
    for folder in (b"d\xfc", b"d%FC"):
        (tmp_path / os.fsdecode(folder)).mkdir()
        for name in names:
            (tmp_path / os.fsdecode(folder) / os.fsdecode(name)).write_bytes(name)
    photos = list_photos(str(tmp_path))
    found = photos["image_id"].to_pylist()
    assert len(found) == len(set(found)) == 10
    rows = {row["image_id"]: row for row in photos.to_pylist()}
    good = {name for name, row in rows.items() if row["size_bytes"] >= 0}
    assert good == {"d%FC/%FC.jpg", "d%FC/%25FC.jpg"}
    contents = fetch_photos(photos["uri"].to_pylist(), photos["size_bytes"].to_pylist())
    for name, content in zip(found, contents, strict=True):
        if name in good:
            assert content == name.encode()[5:]  # its own, and not that of another
        else:
            assert content.reason == "missing"
            assert content.message == "a name that is not UTF-8, so no address; rename it"


@pytest.mark.parametrize("name", [b"fotos_m\xfcnchen", "\ud800".encode(errors="surrogatepass")])
@pytest.mark.parametrize("door", ["argument", "current folder", "file://"])
def test_a_gallery_whose_own_path_is_not_utf_8_is_told_in_a_line(tmp_path, monkeypatch, name, door):
    gallery = tmp_path / os.fsdecode(name)
    fill(gallery, "a/1.jpg")
    if door == "current folder":
        monkeypatch.chdir(gallery)
    given = {"argument": str(gallery), "current folder": "a", "file://": f"file://{gallery}"}[door]
    with pytest.raises(UsageError, match=r"%[0-9A-F]{2}.*: is not UTF-8, .*Rename it") as caught:
        list_photos(given)
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


def test_a_file_that_goes_while_the_folder_is_listed_is_left_out(tmp_path, monkeypatch):
    fill(tmp_path, "a.jpg", "b.jpg")
    scandir = os.scandir

    class Scan:
        """A listing after which b.jpg is removed."""

        def __init__(self, folder):
            with scandir(folder) as entries:
                self.entries = list(entries)
            (tmp_path / "b.jpg").unlink()

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", Scan)
    assert ids(tmp_path) == ["a.jpg"]


def test_a_time_beyond_the_calendar_stops_nothing(tmp_path, monkeypatch):
    fill(tmp_path, "a.jpg")
    seconds = 10**12  # the year 33658, which tmpfs can store
    wrong = os.stat_result((0o100644, *[0] * 9), {"st_mtime_ns": seconds * 10**9})
    monkeypatch.setattr("retrieval.gallery.listing._status", lambda entry: wrong)
    times = list_photos(str(tmp_path))["modified_at"].cast(pa.int64())
    assert times.to_pylist() == [seconds * 10**6]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_time_beyond_64_bits_counts_as_unknown(tmp_path, monkeypatch, sign):
    """As broken clients leave on network file systems; ext4 cannot hold one."""
    fill(tmp_path, "a.jpg")
    for seconds, known in [(9_404_303_000_000, 0), (10**19, 0), (253_402_300_800, 1)]:
        wrong = os.stat_result((0o100644, *[0] * 9), {"st_mtime_ns": sign * seconds * 10**9})
        monkeypatch.setattr("retrieval.gallery.listing._status", lambda entry, wrong=wrong: wrong)
        times = list_photos(str(tmp_path))["modified_at"].cast(pa.int64())
        assert times.to_pylist() == [known * sign * seconds * 10**6]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", "missing. A folder that holds photos is needed."),
        ("file", "a file, not a folder. A folder that holds photos is needed."),
        ("empty", "no file found. A folder that holds photos is needed."),
        ("hidden", "no file found. A folder that holds photos is needed."),
    ],
)
def test_a_gallery_without_photos_is_refused(tmp_path, name, problem):
    fill(tmp_path, "file", "hidden/.a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match=line(f"{tmp_path}/{name}: {problem}")):
        list_photos(str(tmp_path / name))


def test_a_folder_that_may_not_be_listed_stops_the_listing(tmp_path, monkeypatch):
    sealed = tmp_path / os.fsdecode(b"sealed\xff")
    sealed.mkdir()
    fill(tmp_path, "a.jpg")
    scandir = os.scandir

    def allowed(folder):
        if folder == str(sealed):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", allowed)  # permissions do not bind root
    message = (
        f"{tmp_path}/sealed%FF: cannot be listed (Permission denied). Its files would be taken "
        f"for deleted; allow reading it, or move it elsewhere."
    )
    with pytest.raises(StorageError, match=line(message)):
        list_photos(str(tmp_path))


@pytest.mark.parametrize("seed", range(3), ids="seed{}".format)
def test_a_random_tree_is_listed_as_os_walk_sees_it(tmp_path, seed):
    rng = np.random.default_rng(seed)
    names = ["a", "b.jpg", ".c", "d e", "é", "thumbs.db", "_f", "-"]
    files = {"/".join(rng.choice(names, rng.integers(1, 5))) for _ in range(60)}
    # A name is a folder or a file, not both: deeper paths win.
    files = {file for file in files if not any(other.startswith(f"{file}/") for other in files)}
    fill(tmp_path, *files)
    expected = []
    for folder, folders, here in os.walk(tmp_path):
        folders[:] = [name for name in folders if name[0] != "." and name != "thumbs.db"]
        kept = [name for name in here if name[0] != "." and name != "thumbs.db"]
        expected += [os.path.relpath(os.path.join(folder, name), tmp_path) for name in kept]  # noqa: PTH118
    assert ids(tmp_path) == sorted(expected)


def test_a_bucket_is_listed_like_a_folder(s3):
    client, bucket = boto3.client("s3"), s3.removeprefix("s3://")
    names = ["a b#?%20é.jpg", "b/1.jpg", "b/2/3", ".git/x", "b/.y", "b/Thumbs.db"]
    names += ["lost+found/1", "b/@eaDir/1.jpg", "#recycle/1.jpg", "$RECYCLE.BIN/1.jpg"]
    for name in names:
        client.put_object(Bucket=bucket, Key=f"catalogue/{name}", Body=name.encode())
    client.put_object(Bucket=bucket, Key="catalogue-2/other.jpg", Body=b"x")
    client.put_object(Bucket=bucket, Key="catalogue/folder/", Body=b"")  # a folder's marker
    photos = list_photos(f"{s3}/catalogue/")
    assert photos.schema.equals(CATALOGUE_SCHEMA, check_metadata=True)
    assert photos["image_id"].to_pylist() == names[:3]
    assert photos["uri"].to_pylist() == [f"{s3}/catalogue/{name}" for name in names[:3]]
    assert photos["size_bytes"].to_pylist() == [len(name.encode()) for name in names[:3]]
    written = client.head_object(Bucket=bucket, Key="catalogue/b/1.jpg")["LastModified"]
    assert photos["modified_at"][1].as_py() == written
    assert "catalogue/b/1.jpg" in ids(s3)


@pytest.mark.parametrize(
    ("where", "reason"),
    [("/nothing", "No such file or directory"), ("-no", "[^\n]*NO_SUCH_BUCKET.*")],
)
def test_a_bucket_that_cannot_be_listed_is_named(s3, where, reason):
    advice = "Check the address and the credentials of this machine."
    expected = rf"^{s3}{where}: cannot be listed \({reason}\)\. {re.escape(advice)}$"
    with pytest.raises(StorageError, match=expected):
        list_photos(f"{s3}{where}")
