"""Photos that end or stop a worker of Ray cost one row each, and the job goes on."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data

from pipelines import scan
from pipelines.ray_runtime import decode_task as opening
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.counter import Tally
from pipelines.ray_runtime.decode_task import open_photos
from pipelines.ray_runtime.session import quiet_data
from retrieval.errors import ImageError
from retrieval.images import Preprocessing, Reason
from retrieval.images.fetch import fetch_photos, open_photo
from tests.openers import CRASHES, HANGS, HOLDS_LOCK, deadly
from tests.retrieval.photos import encode, noise

ROOT = Path(__file__).parents[2]
SMALL = Preprocessing(size=8)
PATIENCE_S = 3.0


def write(folder, contents):
    """Files of the given contents: their addresses and sizes."""
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number:02}.jpg").write_bytes(content)
    return [str(path) for path in sorted(folder.iterdir())], [len(each) for each in contents]


def good(count):
    return [encode(noise(seed), "PNG") for seed in range(count)]


def outcome(photo):
    pixels = None if photo.pixels is None else photo.pixels.tobytes()
    return {**vars(photo), "pixels": pixels}


@pytest.mark.parametrize("attempt", [0, 1])
def test_every_attempt_gives_the_same_photos_in_their_order(tmp_path, monkeypatch, attempt):
    monkeypatch.setattr(opening, "_attempt", lambda: attempt)
    contents = [*good(3), b"no photo", good(4)[3]]
    uris, sizes = write(tmp_path, contents)
    uris.insert(2, str(tmp_path / "gone"))
    sizes.insert(2, 1)
    missing = ImageError(
        Reason.MISSING, "gone since it was listed, a dangling link, or a name not in UTF-8"
    )
    expected = [open_photo(each, SMALL) for each in [*contents[:2], missing, *contents[2:]]]
    found = open_photos(fetch_photos(uris, sizes), SMALL)
    assert list(map(outcome, found)) == list(map(outcome, expected))


def test_no_photos_give_nothing():
    assert open_photos([], SMALL) == []


def opens_here(content, preprocessing):
    assert content == os.getpid().to_bytes(4, "little")
    return open_photo(content, preprocessing)


def test_a_first_attempt_decodes_in_this_process_and_leaves_no_watchdog(tmp_path):
    uris, sizes = write(tmp_path, [os.getpid().to_bytes(4, "little")])
    open_photos(fetch_photos(uris, sizes), SMALL, opener=opens_here, patience_s=0.3)
    time.sleep(0.6)  # the watchdog would end this process


def opens_slowly(content, preprocessing):
    time.sleep(0.2)
    return open_photo(content, preprocessing)


def test_the_patience_is_for_each_photo_and_not_for_all_of_them(tmp_path):
    uris, sizes = write(tmp_path, [b"x"] * 6)
    contents = fetch_photos(uris, sizes)
    assert len(open_photos(contents, SMALL, opener=opens_slowly, patience_s=0.8)) == 6


FIRST_ATTEMPT = """
import sys
from pipelines.ray_runtime.decode_task import open_photos
from pipelines.ray_runtime.cluster_options import Site
from retrieval.images.fetch import fetch_photos
from retrieval.images import Preprocessing
from tests.openers import deadly
open_photos(fetch_photos(sys.argv[1:], [100] * 9), Preprocessing(), opener=deadly, patience_s=0.5)
"""


@pytest.mark.parametrize(
    ("contents", "exit_code"),
    [([CRASHES], -signal.SIGSEGV), ([HANGS], 1), ([HOLDS_LOCK], 1), ([b"x", b"x", HANGS], 1)],
    ids=["crashes", "hangs", "holds the interpreter's lock", "hangs after others"],
)
def test_in_a_first_attempt_such_a_photo_ends_the_process(tmp_path, contents, exit_code):
    uris, _ = write(tmp_path, contents)
    command = [sys.executable, "-c", FIRST_ATTEMPT, *uris]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert ended.returncode == exit_code
    if exit_code == 1:
        assert b"Timeout (0:00:00.500000)!" in ended.stderr
        assert b"in deadly" in ended.stderr  # the stack tells where


def open_batch(table):
    uris, sizes = table["uri"].to_pylist(), table["size_bytes"].to_pylist()
    photos = open_photos(fetch_photos(uris, sizes), SMALL, opener=deadly, patience_s=PATIENCE_S)
    columns = [list(map(outcome, photos)), [opening._attempt()] * len(photos)]
    for name, column in zip(["photo", "attempt"], columns, strict=True):
        table = table.append_column(name, pa.array(column))
    return table


def test_ray_data_ends_with_all_rows_whatever_crashes_or_hangs(tmp_path, ray_session):
    contents = good(30)
    contents[2], contents[5], contents[17] = CRASHES, HANGS, HOLDS_LOCK
    uris, sizes = write(tmp_path, contents)
    table = pa.table({"uri": uris, "size_bytes": sizes})
    quiet_data(Site())
    data = ray.data.from_arrow([table.slice(start, 10) for start in (0, 10, 20)])
    data = data.map_batches(open_batch, batch_size=4, batch_format="pyarrow")
    rows = sorted(data.take_all(), key=lambda row: row["uri"])
    assert [row["uri"] for row in rows] == uris
    reasons = {2: Reason.CRASHED, 5: Reason.TIMED_OUT, 17: Reason.TIMED_OUT}
    for number, (row, content) in enumerate(zip(rows, contents, strict=True)):
        if number in reasons:
            assert row["photo"]["reason"] == reasons[number]
            assert row["photo"]["sha256"] == hashlib.sha256(content).hexdigest()
        else:
            assert row["photo"] == outcome(open_photo(content, SMALL))
    # One death is enough to be careful, and who met none of these decodes at full speed.
    assert [row["attempt"] for row in rows] == [1] * 20 + [0] * 10


def test_the_first_pass_over_labelled_photos_is_as_careful(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_attempt", lambda: 1)
    monkeypatch.setattr(scan, "open_photos", functools.partial(open_photos, opener=deadly))
    uris, sizes = write(tmp_path, [*good(1), CRASHES])
    table = pa.table({"uri": uris, "size_bytes": sizes})
    assert scan._open_batch(table, SMALL, Tally(2))["reason"].to_pylist() == [None, "crashed"]
