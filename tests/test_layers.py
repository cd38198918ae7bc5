"""The border between library, jobs and command line holds, and its guard bites."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(folder):
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(
        list(map(str, command)),
        cwd=folder, env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path):
    for name in ("retrieval", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy):
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout
    assert "4 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("retrieval/evaluation/metrics.py", "import ray"),
        ("retrieval/search/scores.py", "import click"),
        ("retrieval/storage/files.py", "from pipelines import cluster"),
        ("pipelines/rank/job.py", "from pipelines import embed"),
        ("pipelines/report.py", "import click"),
        ("pipelines/ray_runtime/cluster_options.py", "from pipelines.ray_runtime import session"),
    ],
)
def test_a_forbidden_import_breaks_them(copy, file, line):
    target = copy / file
    target.write_text(target.read_text() + f"\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode != 0
    assert "BROKEN" in result.stdout


IMPORT_EACH = """
import importlib, pathlib, sys
paths = pathlib.Path("retrieval").rglob("*.py")
names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
for name in names:
    for known in [known for known in sys.modules if known.partition(".")[0] == "retrieval"]:
        del sys.modules[known]
    importlib.import_module(name)
print(len(names))
"""


def test_each_module_can_be_the_first_that_is_imported():
    """A worker begins with the one that its task names, where a circle of imports would show."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
