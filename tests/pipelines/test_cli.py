"""The command line: reports on stdout, one line for an error, exit codes, ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.cli import INTERRUPTED, main
from retrieval.index import open_index
from tests.conftest import make_index, photo_bytes

CLI = str(Path(sys.executable).with_name("retrieval-cli"))
ROOT = Path(__file__).parents[2]
FAKE = ["--backbone", "tests.fakes:mean_colour", "--weights", "none"]
ENDLESS = ["--backbone", "tests.fakes:endless", *FAKE[2:], "--new-model"]


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_help_loads_neither_torch_nor_ray():
    code = (
        "import sys; from pipelines.cli import main\n"
        "try: main(['embed', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'ray', 'pyarrow', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_whole_chain_by_its_commands(photos, tmp_path, ray_session):
    index, ranking, page = tmp_path / "index", tmp_path / "ranking", tmp_path / "page.html"
    embedded = invoke("embed", photos, index, *FAKE)
    assert embedded.exit_code == 0, embedded.stderr
    assert json.loads(embedded.stdout)["num_embedded"] == 10
    ranked = invoke("rank", index, index, ranking, "--top-k", "all", "--exclude-self")
    assert ranked.exit_code == 0, ranked.stderr
    assert json.loads(ranked.stdout)["num_rows"] == 90
    measured = invoke("evaluate", ranking, "--queries", index, "--gallery", index, "--k", "1,2")
    assert measured.exit_code == 0, measured.stderr
    figures = json.loads(measured.stdout)
    # Three shades each of red, green and blue: mean colours find the right two at once.
    assert figures["top_1"] == figures["map"] == 1.0
    assert figures["num_queries"] == 9
    assert figures["num_queries_unlabelled"] == 1
    assert figures["num_distractors"] == 1
    assert [row["label"] for row in figures["per_class"]] == ["blue", "green", "red"]
    written = invoke("report", ranking, page)
    assert written.exit_code == 0, written.stderr
    assert json.loads(written.stdout)["num_photos_unreadable"] == 0
    assert page.read_text().count("green/green-1.jpg") >= 10


def test_every_error_of_ours_is_one_line_and_exit_code_1(tmp_path):
    make_index(tmp_path / "a", ["x"], np.ones((1, 4), np.float16))
    make_index(tmp_path / "b", ["x"], np.ones((1, 4), np.float16), fingerprint="e" * 64)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.jpg").write_bytes(photo_bytes((9, 99, 9)))
    cases = [
        (["embed", tmp_path / "none", tmp_path / "i"], f"{tmp_path}/none: missing."),
        (["embed", tmp_path / "empty", tmp_path / "i"], f"{tmp_path}/empty: no file found."),
        (["embed", tmp_path / "file", tmp_path / "i"], f"{tmp_path}/file: a file, not a folder."),
        (["embed", tmp_path / "a", "/proc/i"], "/proc/i: cannot be written"),
        (["embed", tmp_path / "a", tmp_path / "i"], f"{tmp_path}/a: an index, where a folder of"),
        (["embed", photos, tmp_path / "i", "--backbone", "vgg16"], "--backbone vgg16:"),
        (["embed", photos, tmp_path / "i", "--weights", "no.pth"], "--weights no.pth:"),
        (["embed", photos, tmp_path / "i", "--labels", "no.csv"], "--labels no.csv:"),
        (["rank", tmp_path / "a", tmp_path / "b", tmp_path / "r"], f"{tmp_path}/b: made by fake"),
        (["rank", tmp_path / "a", tmp_path / "a", tmp_path / "r", "--top-k", "2"], "--top-k 2:"),
        (["rank", tmp_path / "a", tmp_path / "a", tmp_path / "r", "--top-k", "0"], "--top-k 0:"),
        (["rank", tmp_path / "none", tmp_path / "a", tmp_path / "r"], f"{tmp_path}/none: no file"),
        (["rank", tmp_path / "a", tmp_path / "a", "/proc/r", "--top-k", "1"], "/proc/r: cannot"),
        (["evaluate", tmp_path / "a", "--queries", "q", "--gallery", "g"], f"{tmp_path}/a: no"),
        (["report", tmp_path / "a", tmp_path / "r.html"], f"{tmp_path}/a: no finished ranking"),
        (["report", tmp_path / "a", tmp_path / "r.txt"], f"{tmp_path}/r.txt: the page is an HTML"),
    ]  # fmt: skip
    for arguments, message in cases:
        result = invoke(*arguments)
        assert result.exit_code == 1, (arguments, result.output)
        assert result.stderr.startswith(f"Error: {message}"), (arguments, result.stderr)
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stdout == ""
    # Nothing was made on the way.
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a", "b", "empty", "file", "photos",
    ]  # fmt: skip


def test_a_cluster_that_does_not_answer_is_an_error_within_seconds(tmp_path):
    make_index(tmp_path / "a", ["x"], np.ones((1, 4), np.float16))
    command = [CLI, "rank", "a", "a", "r", "--top-k", "1", "--address", "127.0.0.1:1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: Ray 127.0.0.1:1: nobody answers there (Connection refused). Check the address: "
        "HOST:6379, or ray://HOST:10001 from outside the cluster.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["rank", "a"],
        ["rank", "a", "b", "c", "--top-k", "many"],
        ["rank", "a", "b", "c", "--metric", "hamming"],
        ["evaluate", "r", "--queries", "q", "--gallery", "g", "--k", "1;2"],
        ["embed", "a", "b", "--batch-size", "0"],
        ["unknown"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments):
    assert invoke(*arguments).exit_code == 2


def test_control_characters_of_a_file_name_cannot_fake_a_line(tmp_path):
    result = invoke("embed", tmp_path / "a\nError: b\x1b[2J", tmp_path / "i")
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
    assert r"a\nError: b\x1b[2J: missing." in result.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_job_says_so_in_one_line_and_publishes_nothing(tmp_path, name, code):
    photos, index = tmp_path / "photos", tmp_path / "index"
    flag = tmp_path / "flag"  # made by the fake network when it meets its first photo
    (photos / "class").mkdir(parents=True)
    for number in range(40):
        (photos / "class" / f"{number}.jpg").write_bytes(photo_bytes((number, 99, 9)))
    make_index(index, ["before"], np.ones((1, 3), np.float16))
    # Where the tests run in the background of a shell, their children would ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [CLI, "embed", str(photos), str(index), *ENDLESS],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "ENDLESS_FLAG": str(flag)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    try:
        started = time.monotonic()
        while not flag.exists() and process.poll() is None and time.monotonic() - started < 120:
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, getattr(signal, name))  # as a terminal does: to all of them
        output, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == code
    assert output == ""
    # What took longer than 5 s was told with the time of day.
    errors = re.sub(r"^\d\d:\d\d:\d\d .*\n", "", errors, flags=re.M)
    # The signal goes to Ray's own processes too; one that ends first may leave its last words.
    rays, start, ours = errors.rpartition("Error: ")
    assert start + ours == f"Error: {INTERRUPTED}\n"
    assert not rays or "(raylet)" in rays.splitlines()[0]
    assert open_index(str(index)).version == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "x\udcfc"],
        ["embed", "photos", "index", "--labels", "pattern:\udcfc(.)"],
        ["rank", "q", "g", "\ud800"],
        ["--\udcff"],
    ],
)
def test_an_argument_that_is_not_utf_8_is_told_in_one_line(arguments):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert done.stderr.endswith("is not UTF-8. Rename it, or write it in UTF-8.\n")
    assert done.stderr.count("\n") == 1
