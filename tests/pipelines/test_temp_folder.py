"""Ray's folder for sockets and logs; a home and a place for compiled code where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli.process import ensure_home
from pipelines.ray_runtime import session as module
from pipelines.ray_runtime.session import temp_folder
from retrieval.errors import ClusterError
from retrieval.private_folder import private_folder

# Even root is refused there.
UNUSABLE = {"nobody may write": "/proc/nothing", "missing below a file": "/dev/null/x"}


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A short folder in the place of /tmp, in which there is no folder of ours yet."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    short = Path(f"/dev/shm/t{os.getpid()}")
    short.mkdir(mode=0o700)
    monkeypatch.setattr(module, "private_folder", lambda name, _: private_folder(name, str(short)))
    yield short / f"ray-{os.geteuid()}"
    subprocess.run(["rm", "-r", str(short)], check=True)


def test_a_folder_that_is_short_and_may_be_written_stays(own, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(own.parent / "job"))
    assert temp_folder() == f"{own.parent}/job/ray"  # made on the way
    monkeypatch.setenv("RAY_TMPDIR", str(own.parent))
    assert temp_folder() == f"{own.parent}/ray"
    monkeypatch.chdir(own.parent)
    monkeypatch.setenv("RAY_TMPDIR", "relative")
    assert temp_folder() == f"{own.parent}/relative/ray"
    assert not own.exists()


def test_where_tmpdir_is_long_or_may_not_be_written_an_own_folder_is_taken(own, monkeypatch):
    for folder in (*UNUSABLE.values(), f"/tmp/{'long' * 30}"):
        monkeypatch.setenv("TMPDIR", folder)
        assert temp_folder() == str(own)
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("folder", [*UNUSABLE.values(), f"/tmp/{'long' * 30}"])
def test_a_folder_that_ray_tmpdir_names_is_taken_or_refused(own, monkeypatch, folder):
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(ClusterError, match=f"Ray on this machine: {folder}/ray cannot .* RAY_TMP"):
        temp_folder()
    assert not own.exists()


def test_a_disk_without_room_is_refused(own, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    real = module.tempfile.TemporaryFile

    def full(dir):
        return Path("/dev/full").open("wb") if str(dir) != str(own) else real(dir=dir)

    monkeypatch.setattr(module.tempfile, "TemporaryFile", full)
    assert temp_folder() == str(own)
    monkeypatch.setenv("RAY_TMPDIR", str(own.parent))
    with pytest.raises(ClusterError, match=r"No space left on device.*Set RAY_TMPDIR"):
        temp_folder()


def test_where_no_folder_has_room_none_is_taken(own, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")

    def full(dir):
        return Path("/dev/full").open("wb")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", full)
    with pytest.raises(ClusterError, match=r"No space left on device.*Set RAY_TMPDIR"):
        temp_folder()


def test_the_longest_path_holds_a_socket(own, monkeypatch):
    assert module._MAX_BYTES + len(module._SOCKET) == 107
    assert module._MAX_BYTES > 30


def test_a_folder_that_another_user_could_fill_is_not_private(tmp_path):
    folder = private_folder("ours", str(tmp_path))
    assert folder == private_folder("ours", str(tmp_path)) == tmp_path / f"ours-{os.geteuid()}"
    folder.chmod(0o770)
    assert private_folder("ours", str(tmp_path)) is None
    folder.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "theirs")
    assert private_folder("ours", str(tmp_path)) is None
    folder.unlink()
    folder.write_text("a file")
    assert private_folder("ours", str(tmp_path)) is None
    assert private_folder("ours", "/proc") is None


def test_a_folder_that_another_user_has_made_is_not_private(monkeypatch, tmp_path):
    """It bears our name, and nobody else may use it; but whoever made it may."""
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    (tmp_path / f"ours-{user + 1}").mkdir(mode=0o700)
    assert private_folder("ours", str(tmp_path)) is None


@pytest.mark.parametrize("home", [None, "/nonexistent", "/dev/null", ""])
def test_without_a_home_a_folder_of_ones_own_is_one(monkeypatch, tmp_path, home):
    monkeypatch.setattr("pipelines.cli.process.private_folder", lambda _: tmp_path)
    if home is None:
        monkeypatch.delenv("HOME")

        def nobody(user):
            raise KeyError(user)

        monkeypatch.setattr("pwd.getpwuid", nobody)
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("USER", raising=False)
    ensure_home()
    assert os.environ["HOME"] == str(tmp_path)
    assert home is not None or os.environ["USER"] == f"user{os.geteuid()}"


def test_a_home_that_is_there_stays(monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.cli.process.private_folder", lambda _: Path("/other"))
    for home in (str(tmp_path), "/", "/proc"):  # the last can't be written; it may hold a token
        monkeypatch.setenv("HOME", home)
        ensure_home()
        assert os.environ["HOME"] == home


@pytest.mark.parametrize("is_anywhere", [True, False])
def test_compiled_code_is_kept_in_a_folder_of_ones_own_or_nowhere(tmp_path, is_anywhere):
    """Neither beside the code, nor in the home; and where there is no place at all."""
    (tmp_path / "code.py").write_text(
        "from numba import njit\n@njit(cache=True)\ndef twice(x):\n    return 2 * x\n"
    )
    place = tmp_path / "place"
    place.mkdir()
    script = f"""
import sys
from numba.core import caching
from retrieval.search import numba_settings
for found in (caching.InTreeCacheLocator, caching.UserWideCacheLocator):
    found.from_function = lambda *_: None
if not {is_anywhere}:
    numba_settings.private_folder = lambda name: None
import importlib.util
spec = importlib.util.spec_from_file_location("ours", {str(tmp_path / "code.py")!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.twice(21))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert bool(list(place.rglob("*.nbi"))) == is_anywhere
