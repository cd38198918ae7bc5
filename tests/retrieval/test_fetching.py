"""Files fetched side by side, and photos opened: content, or the reason why not."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time

import boto3
import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import ImageError
from retrieval.gallery.labels import assign_labels
from retrieval.gallery.listing import list_photos
from retrieval.images import MAX_FILE_BYTES, Preprocessing, Reason, decode_image
from retrieval.images import fetch as fetching
from retrieval.images.fetch import FETCH_AT_ONCE, fetch_photos, open_photo
from retrieval.storage import clients, files
from tests.retrieval.photos import encode, noise, png

SMALL = Preprocessing(size=8)


def write(folder, *contents):
    """Files of the given contents: their addresses and sizes."""
    uris = []
    for number, content in enumerate(contents):
        (folder / f"{number}.jpg").write_bytes(content)
        uris.append(str(folder / f"{number}.jpg"))
    return uris, [len(content) for content in contents]


def test_contents_come_in_the_order_asked_for_whichever_arrives_first(tmp_path, monkeypatch):
    def slow_for_the_first(uri):
        time.sleep(0.1 if uri.endswith("/0.jpg") else 0)
        return read_bytes(uri)

    read_bytes = fetching.read_bytes
    monkeypatch.setattr(fetching, "read_bytes", slow_for_the_first)
    contents = [str(number).encode() for number in range(3 * FETCH_AT_ONCE)]
    assert list(fetch_photos(*write(tmp_path, *contents))) == contents


def test_files_are_fetched_side_by_side(monkeypatch):
    meeting = threading.Barrier(FETCH_AT_ONCE, timeout=30)
    monkeypatch.setattr(fetching, "read_bytes", lambda uri: b"%d" % meeting.wait())
    found = list(fetch_photos(["x"] * FETCH_AT_ONCE, [1] * FETCH_AT_ONCE))
    assert sorted(map(int, found)) == list(range(FETCH_AT_ONCE))


def test_what_cannot_be_fetched_is_returned_between_the_others(tmp_path):
    (uris, sizes) = write(tmp_path, b"first", b"last")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    bad = [tmp_path / "gone", tmp_path / "dangling", tmp_path / "folder", tmp_path / "0.jpg" / "x"]
    found = list(fetch_photos([uris[0], *map(str, bad), uris[1]], [sizes[0], 1, 1, 1, 1, sizes[1]]))
    assert (found[0], found[-1]) == (b"first", b"last")
    assert [(error.reason, error.message) for error in found[1:-1]] == [
        (Reason.MISSING, "gone since it was listed, a dangling link, or a name not in UTF-8"),
        (Reason.MISSING, "gone since it was listed, a dangling link, or a name not in UTF-8"),
        (Reason.UNREADABLE, "Is a directory"),
        (Reason.UNREADABLE, "Not a directory"),
    ]
    assert all(isinstance(error, ImageError) for error in found[1:-1])


def test_a_file_that_was_listed_as_too_large_is_not_even_fetched(tmp_path, monkeypatch):
    uris, _ = write(tmp_path, b"a", b"b")
    asked, read_bytes = [], fetching.read_bytes
    monkeypatch.setattr(fetching, "read_bytes", lambda uri: asked.append(uri) or read_bytes(uri))
    found = list(fetch_photos(uris, [MAX_FILE_BYTES, MAX_FILE_BYTES + 1]))
    assert found[0] == b"a"
    assert (found[1].reason, found[1].message) == (
        Reason.TOO_LARGE, "536870913 bytes; 536870912 at most"
    )  # fmt: skip
    assert asked == uris[:1]


def test_an_error_that_is_none_of_a_file_is_raised(monkeypatch):
    def broken(uri):
        raise RuntimeError("the store is on fire")

    monkeypatch.setattr(fetching, "read_bytes", broken)
    with pytest.raises(RuntimeError, match="on fire"):
        list(fetch_photos(["x"], [1]))


@pytest.mark.parametrize("kind", [pa.ArrowNotImplementedError, pa.ArrowKeyError, pa.ArrowException])
def test_errors_of_arrow_that_are_no_value_errors_cost_their_photo_alone(monkeypatch, kind):
    def read(uri):
        if uri == "odd":
            raise kind("an address\nthat Arrow does not take")
        return uri.encode()

    monkeypatch.setattr(fetching, "read_bytes", read)
    bad, good = fetch_photos(["odd", "good"], [1, 1])
    assert (bad.reason, good) == (Reason.UNREADABLE, b"good")
    assert "an address" in bad.message
    assert bad.message.isprintable()


def test_what_is_no_regular_file_is_refused_at_once_and_never_opened(tmp_path):
    """A pipe would be waited for, and a device read without end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        bad = [*(str(tmp_path / name) for name in ("pipe", "link", "socket"))]
        bad += ["/dev/zero", "/dev/tty", "/dev/null", "file:///dev/zero"]
        found = fetch_photos(bad, [1] * len(bad))
    expected = (Reason.UNREADABLE, "it is no plain file, but a pipe, a socket or a device")
    assert [(error.reason, error.message) for error in found] == [expected] * len(bad)


@pytest.mark.parametrize("listed_bytes", [0, 5, 2**20])
@pytest.mark.parametrize("size_bytes", [999, 1000, 1001, 5000])
def test_no_more_is_read_than_a_photo_may_have_whatever_was_listed(
    tmp_path, monkeypatch, listed_bytes, size_bytes
):
    monkeypatch.setattr(fetching, "MAX_FILE_BYTES", 1000)
    uris, _ = write(tmp_path, bytes(size_bytes))
    (found,) = fetch_photos(uris, [listed_bytes])
    if size_bytes > 1000 or listed_bytes > 1000:
        assert found.reason == Reason.TOO_LARGE
        assert found.message.endswith("1000 at most") or found.message == "1000 bytes at most"
    else:
        assert found == bytes(size_bytes)


def test_an_object_of_a_store_is_read_up_to_the_limit_whatever_was_listed(s3, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_FILE_BYTES", 1000)
    client, bucket = boto3.client("s3"), s3.removeprefix("s3://")
    for size_bytes in (1000, 1001):
        client.put_object(Bucket=bucket, Key=f"limit/{size_bytes}", Body=bytes(size_bytes))
    whole, large = fetch_photos([f"{s3}/limit/1000", f"{s3}/limit/1001"], [5, 5])
    assert whole == bytes(1000)
    assert (large.reason, large.message) == (Reason.TOO_LARGE, "1000 bytes at most")


@pytest.mark.timeout(20)
def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_not_waited_for(tmp_path, monkeypatch):
    (uri,), _ = write(tmp_path, b"a photo")
    photo, check, checked = tmp_path / "0.jpg", files._check_plain, []

    def check_and_replace(found):
        check(found)
        checked.append(found)
        photo.unlink()
        os.mkfifo(photo)

    monkeypatch.setattr(files, "_check_plain", check_and_replace)
    bad = fetching.fetch_photo(uri)
    assert len(checked) == 1
    assert bad.reason == Reason.UNREADABLE
    assert "no plain file" in bad.message


def test_a_file_that_grows_while_it_is_read_or_tells_no_size_is_read_up_to_the_limit(
    tmp_path, monkeypatch
):
    uris, _ = write(tmp_path, b"x" * 10)
    fstat, read_bytes = os.fstat, []

    def told_before_it_grew(file):
        return os.stat_result([*fstat(file)[:6], 0, *fstat(file)[7:10]])

    def endless(file, most):
        read_bytes.append(most)
        return b"x" * min(most, 400)

    monkeypatch.setattr(os, "fstat", told_before_it_grew)
    assert fetch_photos(uris, [0]) == [b"x" * 10]
    monkeypatch.setattr(fetching, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(os, "read", endless)
    (found,) = fetch_photos(uris, [0])
    assert (found.reason, found.message) == (Reason.TOO_LARGE, "1000 bytes at most")
    assert len(read_bytes) == 4


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://example.org/1.jpg", "https://example.org/1.jpg: no file system for it"),
        ("ftp://example.org/1.jpg", "ftp://example.org/1.jpg: no file system for it"),
        ("HTTPS://example.org/1.jpg", "HTTPS://example.org/1.jpg: no file system for it"),
        ("nonsense://", "nonsense://: no file system for it"),
        ("://", "://: no file system for it"),
        ("hdfs://host/1.jpg", "hdfs://host/1.jpg: the store cannot be reached"),
        ("/photos/a\0b.jpg", "embedded null byte"),
        ("s3:///k.jpg", "Path cannot start with a separator"),
        ("s3://BAD BUCKET\0/k.jpg", ""),
        ("gs:///k.jpg", ""),
        ("/" + "a" * 300, "File name too long"),
        ("/" + "a/" * 5000, "File name too long"),
        ("s3://bucket:secret@x/k", "s3://***: credentials stand in this address"),
        ("/photos/\udcfc.jpg", "/photos/%FC.jpg: is not UTF-8"),
        ("/photos/\ud800.jpg", "/photos/\\ud800.jpg: is not UTF-8"),
    ],
)
def test_an_address_that_nothing_can_read_costs_its_photo_alone(tmp_path, uri, message):
    uris, sizes = write(tmp_path, b"good")
    bad, good = fetch_photos([uri, *uris], [1, *sizes])
    assert good == b"good"
    assert bad.reason == Reason.UNREADABLE
    assert bad.message.startswith(message)
    assert bad.message.isprintable()
    assert "secret" not in bad.message


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import os; os.abort()", "ends its process (exit code -6), as without credentials"),
        ("import time; time.sleep(60)", "gives no answer in 1 s"),
        ("raise SystemExit(0)", None),
    ],
)
def test_a_store_whose_client_ends_or_stops_its_process_costs_rejects(
    tmp_path, monkeypatch, program, problem
):
    """As Arrow's client of Azure does without credentials; one trial a container."""
    monkeypatch.setattr(clients, "_TRIAL", program)
    monkeypatch.setattr(clients, "_TRIAL_S", 1.0)
    monkeypatch.setattr(clients, "_tried", {})
    monkeypatch.setattr(files, "open_input", lambda uri: pa.BufferReader(uri.encode()))
    trials, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **b: trials.append(a) or run(*a, **b))
    uris = [f"abfs://container@account/{name}" for name in "ab"]
    found = fetch_photos([*uris, "abfs://other@account/c"], [1] * 3)
    assert len(trials) == 2
    if problem is None:
        assert found[:2] == [uri.encode() for uri in uris]
        return
    assert [(error.reason, error.message) for error in found[:2]] == [
        (Reason.UNREADABLE, f"{uri}: the client of abfs:// {problem}.") for uri in uris
    ]


ODD_KEYS = [
    "a//b.jpg", "/lead.jpg", "a/b//", "x/", "p%2Fq.jpg", "%zz", "%00", "ü.jpg", "e\u0301.jpg",
    "back\\slash.jpg", "q?x=1.jpg", "h#h.jpg", "c\x01.jpg", " sp .jpg", "u\u202e.jpg", "a+b", "*",
]  # fmt: skip


def test_a_key_with_an_odd_name_costs_one_reject_at_most(s3):
    client, bucket = boto3.client("s3"), s3.removeprefix("s3://")
    for key in ["good.jpg", *ODD_KEYS]:
        client.put_object(Bucket=bucket, Key=f"odd/{key}", Body=key.encode())
    photos = list_photos(f"{s3}/odd")
    ids = photos["image_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 1 + len(ODD_KEYS)
    found = fetch_photos(photos["uri"].to_pylist(), photos["size_bytes"].to_pylist())
    bad = {}
    for image_id, content in zip(ids, found, strict=True):
        if isinstance(content, ImageError):
            bad[image_id] = content.reason
        else:
            assert content == image_id.encode()
    expected = {"a//b.jpg", "/lead.jpg", "a/b", "x"}
    assert bad.keys() == expected
    assert set(bad.values()) <= {Reason.UNREADABLE, Reason.MISSING}
    assert assign_labels(["/lead.jpg", "a//b.jpg"], "folder").to_pylist() == [None, "a"]


def test_a_key_that_is_a_folder_s_too_is_no_second_photo_of_its_name(s3):
    """Arrow takes the slash at its end away."""
    client, bucket = boto3.client("s3"), s3.removeprefix("s3://")
    for key in ["x", "x/", "x//", "y/", "y//", "z//", "z/1.jpg"]:
        client.put_object(Bucket=bucket, Key=f"twice/{key}", Body=key.encode())
    photos = list_photos(f"{s3}/twice")
    ids = photos["image_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    found = fetch_photos(photos["uri"].to_pylist(), photos["size_bytes"].to_pylist())
    good = [name for name, content in zip(ids, found, strict=True) if isinstance(content, bytes)]
    assert good == ["x", "z/1.jpg"]


def test_no_files_give_nothing():
    assert list(fetch_photos([], [])) == []


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_good_photo_opens_with_its_hash_size_and_pixels(format):
    content = encode(noise(1, height=40, width=50), format)
    photo = open_photo(content, SMALL)
    assert photo.sha256 == hashlib.sha256(content).hexdigest()
    assert (photo.width, photo.height) == (50, 40)
    assert (photo.reason, photo.message) == (None, None)
    assert photo.pixels.tobytes() == decode_image(content, SMALL).pixels.tobytes()
    assert (photo.pixels.dtype, photo.pixels.shape) == (np.uint8, (8, 8, 3))


def test_the_size_of_a_photo_is_the_one_that_people_see():
    image = noise(2, height=40, width=50)
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying on its side
    photo = open_photo(encode(image, "JPEG", exif=exif), SMALL)
    assert (photo.width, photo.height) == (40, 50)


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", Reason.EMPTY, "the file has 0 bytes"),
        (b"GIF9", Reason.UNKNOWN_FORMAT, "none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (
            png((12_000, 12_000), 8, 2, b""),
            Reason.TOO_MANY_PIXELS,
            "12000 × 12000; the limit is 120000000",
        ),
    ],
    ids=["empty", "unknown_format", "too_many_pixels"],
)
def test_a_bad_photo_has_its_hash_and_a_reason(content, reason, message):
    photo = open_photo(content, SMALL)
    assert photo.sha256 == hashlib.sha256(content).hexdigest()
    assert (photo.width, photo.height, photo.pixels) == (0, 0, None)
    assert (photo.reason, photo.message) == (reason, message)


def test_a_photo_that_ends_early_is_refused():
    content = encode(noise(1), "JPEG")
    assert open_photo(content[:-100], SMALL).reason == Reason.TRUNCATED


def test_a_photo_that_could_not_be_fetched_keeps_the_reason():
    photo = open_photo(ImageError(Reason.MISSING, "gone"), SMALL)
    assert vars(photo) == {
        "sha256": "", "width": 0, "height": 0, "pixels": None,
        "reason": Reason.MISSING, "message": "gone",
    }  # fmt: skip


def test_no_thread_is_left_for_a_consumer_who_stops_early(tmp_path):
    before = threading.active_count()
    contents = fetch_photos(*write(tmp_path, b"one", b"two", b"three"))
    assert next(iter(contents)) == b"one"
    assert threading.active_count() == before
