"""Nothing is imported from the folder that one stands in, unless it was named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import ray
from PIL import Image
from ray.core.generated.common_pb2 import JobConfig as JobConfigProto

from pipelines.ray_runtime.code_paths import (
    WorkersImportAsTheDriver,
    named_folders,
    no_folder_of_uv,
    starting_here,
)
from tests.pipelines.test_embed_again import age

ROOT = Path(__file__).parents[2]
CLI = str(Path(sys.executable).with_name("retrieval-cli"))
OWN = ("sitecustomize", "usercustomize", "retrieval", "pipelines", "tests")
OPTIONAL = ("uvloop", "cupy", "pandas", "IPython", "tensorboard", "pyximport", "apport_python_hook")


@pytest.fixture
def here(tmp_path):
    """A folder of photos with a file for every module that there is, which tells that it ran."""
    folder = tmp_path / "photos"
    for label in "ab":
        for number in range(3):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (80 * number, 20, 99)).save(path)
    told = f"open({str(tmp_path / 'ran')!r}, 'a').write(__file__ + '\\n')\n"
    for name in {*sys.stdlib_module_names, *packages_distributions(), *OWN, *OPTIONAL}:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(told)
    age(folder)  # files of just now would be looked at again
    return folder


def run(here, *command, is_json=True, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        command, cwd=here, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    ran = here.parent / "ran"
    assert not ran.exists(), sorted(set(ran.read_text().splitlines()))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) if is_json else None


def test_a_job_runs_no_file_of_the_folder_that_one_stands_in(here):
    """A network of one's own beside it is found by PYTHONPATH, relative to where one stands."""
    (here.parent / "code").mkdir()
    shutil.copy(ROOT / "tests" / "fakes.py", here.parent / "code" / "own_network.py")
    command = [CLI, "embed", ".", str(here.parent / "index"), "--backbone", "own_network:stating"]
    path = f"{ROOT}{os.pathsep}../code"
    report = run(here, *command, PYTHONPATH=path)
    assert report["num_embedded"] == 6
    assert report["preprocessing"]["from"]["mean"] == "network"
    said = ["--weights", "none", "--image-size", "16", "--mean", "0,0,0", "--std", "1,1,1"]
    for options in ([], said):
        again = run(here, *command, *options, "--dry-run", PYTHONPATH=path)
        assert not again["is_embedded_anew"]
        assert again["num_to_embed"] == {"at_least": 0, "at_most": 0}


def test_python_m_runs_none_either(here):
    (here / "pipelines.py").unlink()  # would be what the command names
    for words in (["-m", "pipelines.cli"], ["-mpipelines.cli"]):
        run(here, sys.executable, *words, "diff", "--help", is_json=False)


def test_python_m_runs_the_checkout_that_one_stands_in(tmp_path):
    copy = tmp_path / "checkout"
    for name in ("retrieval", "pipelines"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "pipelines" / "cli" / "__main__.py").write_text("import retrieval; print(retrieval)")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli"], cwd=copy, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(copy) in done.stdout


def test_workers_have_the_folders_that_python_was_told_of(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from pipelines.ray_runtime.code_paths import named_folders as n; print(n())")

    def told(*options, path="", script=str(script)):
        done = subprocess.run(
            [sys.executable, *options, script], cwd=tmp_path / "stand",
            env={**os.environ, "PYTHONPATH": f"{ROOT}{path}"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout.replace("'", '"'))

    (tmp_path / "stand").mkdir()
    here = str(tmp_path / "stand")
    assert told() == [str(tmp_path), str(ROOT)]
    assert told("-P") == [str(ROOT)]
    assert told("-P", path=":.") == [str(ROOT), here]
    assert told("-P", path=":../code:") == [str(ROOT), str(tmp_path / "code"), here]
    code = script.read_text()
    assert told("-c", script=code) == [here, str(ROOT)]  # as Python itself has it there


def test_a_ray_of_this_machine_starts_with_paths_that_mean_the_same_everywhere(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", f".{os.pathsep}/a{os.pathsep}b")
    before = dict(os.environ)
    with starting_here():
        assert os.environ["PYTHONPATH"].split(os.pathsep) == [
            str(tmp_path), "/a", str(tmp_path / "b"),
        ]  # fmt: skip
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert dict(os.environ) == before


def test_a_job_of_a_working_directory_keeps_ray_s_own_order():
    has = WorkersImportAsTheDriver(runtime_env={"working_dir": "s3://bucket/code.zip"})
    assert not JobConfigProto.FromString(has._serialize()).py_driver_sys_path
    has_none = WorkersImportAsTheDriver()
    found = JobConfigProto.FromString(has_none._serialize()).py_driver_sys_path
    assert list(found) == named_folders()[::-1]


def test_uv_sends_no_folder_unless_asked(monkeypatch):
    constants = ray._private.ray_constants
    monkeypatch.setattr(constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", True)
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1")
    no_folder_of_uv()
    assert constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV")
    no_folder_of_uv()
    assert not constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV


def test_a_process_that_opens_photos_runs_none(here):
    opens = (
        "from retrieval.images.subprocess_decode import IsolatedOpener\n"
        "from retrieval.images import Preprocessing\n"
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    with IsolatedOpener(60.0) as opener:\n"
        "        found = opener.open(Path('a/0.png').read_bytes(), Preprocessing(size=8))\n"
        "    print(json.dumps([found.width, 'PYTHONSAFEPATH' in os.environ]))\n"
    )
    script = here.parent / "script.py"
    script.write_text(opens)
    assert run(here, sys.executable, str(script)) == [40, False]


def test_compiled_loops_are_kept_where_the_environment_says(here):
    """Numba unpickles what it finds in the folder that its settings name."""
    (here / ".numba_config.yaml").write_text("cache_dir: /tmp/theirs\ndisable_jit: 1\n")
    tells = (
        "import retrieval.search, json, numba\n"
        "numba.core.config.reload_config()\n"  # as before each compilation
        "print(json.dumps([numba.config.CACHE_DIR, numba.config.DISABLE_JIT]))\n"
    )
    script = here.parent / "script.py"
    script.write_text(tells)
    assert run(here, sys.executable, str(script), NUMBA_CACHE_DIR="") == ["", 0]
