"""`augment` run again: after a kill, a full disk, other photos or settings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.augment import output, run
from retrieval.errors import StorageError
from retrieval.storage import remove_written
from tests.pipelines.classes import (
    SHEET,
    augment,
    building_bytes,
    files_of,
    manifest_of,
    write_classes,
)
from tests.pipelines.test_augment_output import invoke

CLI = str(Path(sys.executable).with_name("retrieval-cli"))

pytestmark = pytest.mark.usefixtures("ray_session", "sheets_drawn_once")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_session, sheets_drawn_once):
    """Photos of four classes, the output of a run with them, and its report."""
    root = tmp_path_factory.mktemp("finished")
    photos = write_classes(root / "photos", a=3, b=2, c=1, d=1)
    return root, augment(photos, root / "output")


@pytest.fixture
def copies(finished, tmp_path):
    """Photos and output of the test's own."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "photos", tmp_path / "output"


def marks_of(folder):
    """What changes with each writing of a file, even of the same bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != SHEET
    }


def parts_of(output):
    return {path.name: pq.read_table(path) for path in (output / ".augmented" / "parts").iterdir()}


def kill_after_the_first_part(command, folder, parts):
    """Run the command line until a unit is finished, then kill it with -9."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([CLI, *command], cwd=folder, start_new_session=True, **quiet)
    try:
        deadline = time.monotonic() + 120
        while not list(parts.glob("[!.]*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        time.sleep(1)  # its workers end when they find it gone
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_killed_in_mid_work_and_run_again_it_makes_the_rest_and_the_same_bytes(tmp_path):
    photos = write_classes(tmp_path / "photos", **dict.fromkeys("abcdefghijkl", 1))
    output, options = tmp_path / "output", ["--per-class", "60", "--size", "64"]
    command = ["augment", "photos", "output", *options]
    kill_after_the_first_part(command, tmp_path, output / ".augmented" / "parts")
    finished = [name for part in parts_of(output).values() for name in part["image_id"].to_pylist()]
    before = marks_of(output)
    assert 0 < len(finished) < 720
    assert not (output / ".augmented" / "manifest.parquet").exists()

    done = invoke(photos, output, *options)
    assert done.exit_code == 0, done.output
    # More, where a worker finished a unit before it found its driver gone.
    assert json.loads(done.stdout)["num_reused"] >= len(finished)
    after = marks_of(output)
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    augment(photos, tmp_path / "uninterrupted", per_class=60)
    assert files_of(output) == files_of(tmp_path / "uninterrupted")
    assert manifest_of(output).equals(manifest_of(tmp_path / "uninterrupted"))
    assert not list(output.rglob(".*.tmp"))


def test_run_again_with_nothing_changed_it_writes_nothing_but_the_same(finished, copies):
    photos, output = copies
    first = finished[1]
    marks, files = marks_of(output), files_of(output)
    manifest = (output / ".augmented" / "manifest.parquet").read_bytes()
    report = augment(photos, output)
    assert report["num_reused"] == 48
    assert report["num_dropped"] == first["num_dropped"]
    assert files_of(output) == files
    assert (output / ".augmented" / "manifest.parquet").read_bytes() == manifest
    again = marks_of(output)
    always = {".augmented/manifest.parquet", ".augmented/settings.json"}
    assert {name for name in marks if again[name] != marks[name]} == always


def test_only_what_changed_is_made_again_and_what_belongs_to_nothing_is_removed(
    copies, tmp_path, monkeypatch
):
    photos, folder = copies
    marks = marks_of(folder)
    (photos / "a" / "1.jpg").unlink()
    shutil.rmtree(photos / "c")
    (photos / "d" / "0.jpg").write_bytes(building_bytes(3, 7))
    (folder / "b" / ".DS_Store").write_text("of somebody else")
    (folder / "b" / f".0.jpg.{'0' * 32}.tmp").write_text("half")
    removed = []

    def remove(where, names, **settings):
        removed.extend(names)
        remove_written(where, names, **settings)

    monkeypatch.setattr(output, "remove_written", remove)
    report = augment(photos, folder)
    assert report["num_reused"] == 12
    after = marks_of(folder)
    assert all(after[name] == marks[name] for name in marks if name.startswith("b/"))
    assert (folder / "b" / ".DS_Store").exists()
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / "c").exists()  # else it would be an empty class
    # What vouches for files goes before them, so that a kill leaves nothing that is not so.
    assert removed[0] == ".augmented/manifest.parquet"
    assert all(name.startswith(".augmented/parts/") for name in removed[1:4])
    assert all(name[:2] in ("a/", "b/", "c/", "d/") for name in removed[4:])

    augment(photos, tmp_path / "fresh")
    assert files_of(folder) == files_of(tmp_path / "fresh")
    assert manifest_of(folder).equals(manifest_of(tmp_path / "fresh"))
    assert parts_of(folder).keys() == parts_of(tmp_path / "fresh").keys()


def test_a_file_of_somebody_else_is_never_removed_but_refused(copies):
    photos, output = copies
    shutil.rmtree(photos / "b")
    (output / "model").mkdir()
    (output / "model" / "weights").write_text("hours of work")
    before = files_of(output)
    message = (
        f"{output}: holds files that augment has not written, such as model/weights. Choose a new "
        f"folder, or move them elsewhere."
    )
    with pytest.raises(StorageError) as caught:
        augment(photos, output)
    assert str(caught.value) == message
    assert files_of(output) == before


def test_what_an_unfinished_run_left_is_known_as_its_own(tmp_path, monkeypatch):
    photos, output = write_classes(tmp_path / "photos", a=1, b=1), tmp_path / "output"

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(run.__globals__, "_make_all", stop)
        with pytest.raises(KeyboardInterrupt):
            augment(photos, output)
    # As a worker leaves them that dies before it can write its part.
    (output / "b").mkdir()
    for name in ("0.jpg", "0.jpg.crop-1.jpg", "0.jpg.hue-12.jpg"):
        (output / "b" / name).write_text("half of a unit")
    shutil.rmtree(photos / "b")
    augment(photos, output)
    assert not (output / "b").exists()
    assert {name[0] for name in files_of(output).keys() - {SHEET}} == {"a"}


def test_with_another_seed_it_becomes_what_a_new_run_makes(copies, tmp_path):
    photos, output = copies
    old = files_of(output)
    assert augment(photos, output, seed=1)["num_reused"] == 0
    augment(photos, tmp_path / "fresh", seed=1)
    new = files_of(output)
    assert new == files_of(tmp_path / "fresh")
    # Where a drawn size comes to the same number of pixels, so does the result.
    assert sum(old[name] == new.get(name) for name in old) < len(old) / 2


@pytest.mark.parametrize("form", ["jpeg", "parquet"])
def test_what_was_lost_or_damaged_is_made_again(tmp_path, form):
    photos, output = write_classes(tmp_path / "photos", a=2, b=1, c=1), tmp_path / "output"
    augment(photos, output, format=form)
    files, manifest = files_of(output), manifest_of(output)
    names = sorted(parts_of(output), key=lambda name: parts_of(output)[name]["label"][0].as_py())
    (output / ".augmented" / "parts" / names[0]).write_bytes(b"PAR1 damaged")
    lost = [name for name in files if name.startswith(("b/0.jpg.", f"part-{names[1][:24]}"))]
    (output / lost[0]).write_bytes(b"short")
    report = augment(photos, output, format=form)
    assert report["num_reused"] == 12
    assert files_of(output) == files
    assert manifest_of(output).equals(manifest)


def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(tmp_path):
    photos, disk = (
        write_classes(tmp_path / "photos", **dict.fromkeys("abcdef", 2)),
        tmp_path / "disk",
    )
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        output = disk / "output"
        with pytest.raises(StorageError) as caught:
            augment(photos, output, per_class=40)
        assert "cannot be written (No space left on device). Choose a folder" in str(caught.value)
        assert "\n" not in str(caught.value)
        augment(photos, tmp_path / "whole", per_class=40)
        whole = files_of(tmp_path / "whole")
        written = files_of(output)
        assert 0 < len(written) < len(whole)
        assert all(whole[name] == content for name, content in written.items())  # none is half
        assert not (output / ".augmented" / "manifest.parquet").exists()
        more = ["mount", "-o", "remount,size=20m", str(disk)]
        subprocess.run(more, capture_output=True, check=True)
        assert augment(photos, output, per_class=40)["num_reused"] >= 40
        assert files_of(output) == whole
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)
