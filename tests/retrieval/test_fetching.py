"""Files fetched side by side, and photos opened: content, or the reason why not."""

from __future__ import annotations

import hashlib
import threading
import time

import numpy as np
import pytest

from retrieval import fetching
from retrieval.errors import ImageError
from retrieval.fetching import FETCH_AT_ONCE, fetch_photos, open_photo
from retrieval.images import MAX_FILE_BYTES, Preprocessing, Reason, decode_image
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
