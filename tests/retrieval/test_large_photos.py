"""Photos that take much memory are decoded one at a time, by processes and threads alike."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from retrieval.errors import ImageError
from retrieval.images import MAX_PIXELS, Preprocessing, decode_image
from retrieval.images import decode as images
from retrieval.images import memory_lock as large_photos
from retrieval.images.memory_lock import LARGE_PIXELS, one_at_a_time
from retrieval.images.watchdog import ends_after
from tests.retrieval.photos import encode, noise, plain

ROOT = Path(__file__).parents[2]
SMALL = Preprocessing(size=8)
LARGE = LARGE_PIXELS + 1

HOLDER = """
import sys
import time
from pathlib import Path
from retrieval.images.memory_lock import LARGE_PIXELS, one_at_a_time
for turn in range(int(sys.argv[2])):
    with one_at_a_time(LARGE_PIXELS + 1):
        mark = Path(sys.argv[1], "inside")
        mark.touch(exist_ok=False)  # fails if another one is inside
        print("inside", flush=True)
        sys.stdin.readline()
        time.sleep(0.02)
        mark.unlink()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder for temporary files of this test's own, so a lock of its own, here and below."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder(folder, turns=1):
    command = [sys.executable, "-c", HOLDER, str(folder), str(turns)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=-1, stdout=-1)


def is_free():
    descriptor = large_photos._open_lock()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_processes_exclude_each_other(folder):
    with holder(folder, 5) as first, holder(folder, 5) as second:
        for process in (first, second):
            process.stdin.write("\n" * 5)
            process.stdin.close()
        found = [process.stdout.read() for process in (first, second)]
    assert found == ["inside\n" * 5] * 2
    assert (first.returncode, second.returncode) == (0, 0)


def test_threads_of_a_process_exclude_each_other():
    inside, most = [], []

    def work():
        for _ in range(5):
            with one_at_a_time(LARGE):
                inside.append(1)
                time.sleep(0.01)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 15


def test_a_process_that_dies_gives_the_lock_back(folder):
    with holder(folder) as process:
        assert process.stdout.readline() == "inside\n"
        assert not is_free()
        process.kill()
    assert is_free()


def test_a_copy_in_a_process_forked_meanwhile_does_not_keep_the_lock(monkeypatch):
    opened, open_lock = [], large_photos._open_lock
    monkeypatch.setattr(
        large_photos, "_open_lock", lambda: opened.append(open_lock()) or opened[-1]
    )
    with one_at_a_time(LARGE):
        copy = os.dup(opened[0])
        assert not is_free()
    assert is_free()
    os.close(copy)


def test_the_lock_is_free_after_an_error():
    with pytest.raises(ZeroDivisionError), one_at_a_time(LARGE):
        raise ZeroDivisionError
    assert is_free()


def test_small_photos_touch_no_lock(folder):
    with one_at_a_time(LARGE_PIXELS):
        assert list(folder.iterdir()) == []


def test_the_lock_is_its_user_s_alone(folder):
    with one_at_a_time(LARGE):
        (path,) = folder.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert str(os.getuid()) in path.name


@pytest.mark.parametrize("obstacle", ["no folder", "a link", "a pipe", "a folder", "another user"])
def test_without_a_lock_the_photo_is_decoded_all_the_same(folder, monkeypatch, obstacle):
    path = large_photos._lock_path()
    if obstacle == "no folder":
        monkeypatch.setattr(large_photos, "_lock_path", lambda: folder / "none" / "lock")
    elif obstacle == "a link":
        path.symlink_to(folder / "target")
    elif obstacle == "a pipe":
        os.mkfifo(path)
    elif obstacle == "a folder":
        path.mkdir()
    else:
        monkeypatch.setattr(large_photos.os, "getuid", lambda: 12345)
    with one_at_a_time(LARGE):
        assert large_photos._open_lock() is None
    assert not (folder / "target").exists()


def test_nobody_waits_for_ever(folder, monkeypatch):
    monkeypatch.setattr(large_photos, "_WAIT_S", 0.2)
    with holder(folder) as process:
        assert process.stdout.readline() == "inside\n"
        begun = time.monotonic()
        with one_at_a_time(LARGE):
            assert 0.2 <= time.monotonic() - begun < 10
        assert not is_free()  # it is still the other one's
        process.stdin.close()


def test_waiting_for_others_is_no_hanging(folder):
    with holder(folder) as process:
        assert process.stdout.readline() == "inside\n"
        end = threading.Timer(1, process.stdin.close)
        end.start()
        with ends_after(0.5), one_at_a_time(LARGE):  # the watchdog would end this process
            pass
        end.join()


@pytest.fixture
def counts(monkeypatch):
    """How many pixels each decoding said it holds."""
    found = []

    def counted(num_pixels):
        found.append(num_pixels)
        return one_at_a_time(num_pixels)

    monkeypatch.setattr(images, "one_at_a_time", counted)
    return found


@pytest.mark.parametrize(
    ("format", "settings", "expected"),
    [
        ("PNG", {}, 1600 * 800),
        ("JPEG", {}, 200 * 100),
        ("JPEG", {"progressive": True}, 1600 * 800),
    ],
    ids=["PNG", "reduced JPEG", "progressive JPEG"],
)
def test_what_counts_is_what_is_in_memory(counts, format, settings, expected):
    decode_image(encode(plain("RGB", 9, (1600, 800)), format, **settings), Preprocessing(size=50))
    assert counts == [expected]


def test_a_large_photo_is_alone_until_it_is_resized(monkeypatch):
    monkeypatch.setattr(large_photos, "LARGE_PIXELS", 1999)
    seen, resize = [], images.Image.Image.resize

    def look_and_resize(*args, **kwargs):
        seen.append(is_free())
        return resize(*args, **kwargs)

    monkeypatch.setattr(images.Image.Image, "resize", look_and_resize)
    decode_image(encode(noise(0, 40, 50), "PNG"), SMALL)
    decode_image(encode(noise(0, 39, 50), "PNG"), SMALL)
    assert seen == [False, True]
    assert is_free()


def test_a_large_photo_that_is_refused_gives_the_lock_back(monkeypatch):
    monkeypatch.setattr(large_photos, "LARGE_PIXELS", 1999)
    with pytest.raises(ImageError, match="truncated"):
        decode_image(encode(noise(0, 40, 50), "PNG")[:900], SMALL)
    assert is_free()


def test_the_limit_is_between_usual_photos_and_the_largest():
    assert 4000 * 6000 <= LARGE_PIXELS < MAX_PIXELS
