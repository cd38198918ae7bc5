"""What everybody may read of a job: no credentials, the very arguments, folders that fit."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.submit import make_request, read_runtime_env
from retrieval.errors import UsageError
from tests.test_secrets import NAMES_OF_SECRETS, SHAPES, WITH_CREDENTIALS


def submit(*arguments):
    return CliRunner().invoke(main, ["submit", "--dry-run", *map(str, arguments)])


def environment(tmp_path, content):
    file = tmp_path / "environment.json"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize("name", NAMES_OF_SECRETS)
def test_a_variable_that_is_called_as_a_credential_is_refused(name, tmp_path):
    for content in (
        {"env_vars": {name: "hidden-value"}},
        {"config": {"a": [{name: "hidden-value"}]}},
    ):
        done = submit("--runtime-env", environment(tmp_path, content), "--", "status", "a")
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"{name} looks like a credential" in done.stderr
        assert "hidden" not in done.stderr


@pytest.mark.parametrize("text", [*WITH_CREDENTIALS, *SHAPES, "-e DB_PWD=hidden-value"])
def test_credentials_are_refused_wherever_they_stand(text, tmp_path):
    for content in (
        {"env_vars": {"PLACE": text}},
        {"pip": ["a", text]},
        {"container": {"image": "a", "run_options": [text]}},
        {"config": {text: 1}},
    ):
        done = submit("--runtime-env", environment(tmp_path, content), "--", "status", "a")
        assert (done.exit_code, done.stdout) == (1, ""), content
        assert "hidden" not in done.stderr
    if text.startswith("-"):
        return
    for given in (
        ["--", "status", text],
        ["--python", text, "--", "status", "a"],
        ["--", "embed", "photos", "index", "--weights", text],
        ["--address", text, "--", "status", "a"],
        ["--submission-id", text, "--", "status", "a"],
        ["--driver-node", f"a={text}", "--", "status", "a"],
        ["--", "no-verb", text],
        ["--", text],
        ["--", "status", "a", text],
    ):
        done = submit(*given)
        assert done.exit_code in (1, 2), given
        assert done.stdout == ""
        assert "hidden" not in done.stderr, given


def test_the_address_of_a_job_server_has_no_parameters():
    for end in ("/?token=hidden", "/?a=hidden", "/#hidden", "/;key=hidden", "/%3Ftoken=hidden"):
        done = submit("--address", f"http://h{end}", "--", "status", "a")
        assert (done.exit_code, done.stdout) == (2, ""), end
        assert "hidden" not in done.stderr
    for wrong in ("me:hidden@h:8265", "http://h:port", "http://[::1", "ftp://me:hidden@h"):
        done = submit("--address", wrong, "--", "status", "a")
        assert done.exit_code == 2
        assert "hidden" not in done.stderr


def test_of_variables_a_dry_run_shows_the_names_and_plain_numbers(tmp_path):
    shown = {"OMP_NUM_THREADS": "1", "A": "false", "PLACE": "/data/somewhere"}
    file = environment(tmp_path, {"env_vars": shown, "pip": ["PyJWT==2.8", "tokenizers==0.1"]})
    done = submit("--runtime-env", file, "--", "status", "a")
    assert json.loads(done.stdout)["runtime_env"] == {
        "env_vars": {"OMP_NUM_THREADS": "1", "A": "false", "PLACE": "***"},
        "pip": ["PyJWT==2.8", "tokenizers==0.1"],
    }
    assert read_runtime_env(str(file))["env_vars"] == shown


def test_a_secret_of_this_machine_is_not_sent(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "some-hidden/value")
    for text in ("some-hidden/value", "s3://b/some-hidden%2Fvalue"):
        done = submit("--", "status", text)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "hidden" not in done.stderr


NAMES = [
    "/data/\u5199\u771f\u30002024",
    "/data/a\u00a0b\u202f\u2003c",
    "s3://bucket/\U0001f468\u200d\U0001f469\ufe0f",
    "/data/\u202eright to left",
    "/data/$HOME `id` \"a\" 'b' \\ ! * ~ # & | ; < > ( ) { } [ ] ? = %",
    "x -- -x \u00fc\u0308 \U000e0001",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_arrives_is_what_was_given(name):
    done = submit("--", "diff", name, "1", "2")
    assert done.exit_code == 0, done.stderr
    entrypoint = json.loads(done.stdout)["entrypoint"]
    command = ["-m", "pipelines.cli", "diff", name, "1", "2"]
    assert shlex.split(entrypoint) == ["python3", *command]
    echo = "import sys; sys.stdout.buffer.write('\\0'.join(sys.argv[1:]).encode())"
    line = entrypoint.replace("python3", f"{shlex.quote(sys.executable)} -c {shlex.quote(echo)}", 1)
    for locale in ("C", "C.UTF-8"):
        arrived = subprocess.run(
            ["sh", "-c", line], capture_output=True, check=True, env={"LC_ALL": locale}
        )
        assert arrived.stdout.decode().split("\0") == command


@pytest.mark.parametrize("letter", ["\n", "\t", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029"])
def test_control_characters_are_refused_and_spelled(letter):
    done = submit("--", "status", f"a{letter}b")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "a submitted command cannot have control characters" in done.stderr
    assert ascii(letter)[1:-1] in done.stderr
    assert letter not in done.stderr.rstrip("\n")
    assert done.stderr.count("\n") == 1


def test_bytes_that_are_not_utf_8_are_refused():
    with pytest.raises(UsageError, match="is not UTF-8"):
        make_request(["status", "a\udcff"])


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A source tree of 3 MiB, and a Ray that takes less than 1 MiB."""
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 2**20)
    for name, size in {
        "pipelines/cli/__main__.py": 10,
        "data/photos/a.jpg": 2**21,
        "data/b.jpg": 2**19,
        "big.bin": 2**19,
        ".git/objects": 2**22,
    }.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return tmp_path / "tree"


def test_a_folder_above_the_limit_of_ray_tells_what_to_leave_out(tree, tmp_path):
    done = submit("--working-dir", tree, "--", "status", "a")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"working_dir {tree}: 3 MiB, and Ray takes less than 1 MiB. The largest in it: " in (
        done.stderr
    )
    assert "data/photos (2 MiB), " in done.stderr
    assert ".gitignore" in done.stderr
    assert ".git/" not in done.stderr.replace(".gitignore", "")  # Ray leaves it out by itself
    assert done.stderr.count("\n") == 1
    modules = environment(tmp_path, {"py_modules": [str(tree / "data")]})
    done = submit("--runtime-env", modules, "--", "status", "a")
    assert f"py_modules {tree}/data: " in done.stderr
    assert "photos (2 MiB)" in done.stderr


def test_what_is_left_out_does_not_count(tree, tmp_path):
    (tree / ".gitignore").write_text("data\n")
    assert submit("--working-dir", tree, "--", "status", "a").exit_code == 0
    (tree / ".gitignore").unlink()
    excludes = environment(tmp_path, {"excludes": ["/data"]})
    for given in (["--working-dir", tree, "--runtime-env", excludes], ["--runtime-env", excludes]):
        assert submit(*given, "--", "status", "a").exit_code == 0
    whole = environment(tmp_path, {"working_dir": str(tree)})
    assert "Ray takes less" in submit("--runtime-env", whole, "--", "status", "a").stderr
    elsewhere = environment(tmp_path, {"working_dir": "s3://bucket/tree.zip"})
    assert submit("--runtime-env", elsewhere, "--", "status", "a").exit_code == 0
