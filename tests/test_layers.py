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


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    for name in ("retrieval", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_contracts_hold(copy):
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout
    assert "6 kept, 0 broken" in result.stdout


LIBRARY = "The library knows neither Ray nor the command line"
PACKAGES = "Inside the library each package knows only those below it"
CIRCLES = "No circle among the modules of a package"
JOBS = "Command line over demo over jobs over the cluster; no job knows another job"
SESSION = "A session waits for nodes, of a site"
CLICK = "Only the command line knows click"


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("retrieval/evaluation/metrics.py", "import ray", LIBRARY),
        ("retrieval/search/scores.py", "import click", LIBRARY),
        ("retrieval/storage/files.py", "from pipelines import cluster", LIBRARY),
        ("retrieval/errors.py", "from retrieval import storage", PACKAGES),
        ("retrieval/storage/files.py", "from retrieval import gallery", PACKAGES),
        ("retrieval/images/decode.py", "from retrieval import models", PACKAGES),
        ("retrieval/models/embedder.py", "from retrieval import augmentations", PACKAGES),
        ("retrieval/models/embedder.py", "from retrieval.index import open_index", PACKAGES),
        ("retrieval/index/table.py", "from retrieval.vectors import open_source", PACKAGES),
        ("retrieval/index/update.py", "from retrieval import maintenance", PACKAGES),
        ("retrieval/vectors/source.py", "from retrieval import search", PACKAGES),
        ("retrieval/search/scores.py", "from retrieval.ranking import files", PACKAGES),
        ("retrieval/ranking/files.py", "from retrieval import evaluation", PACKAGES),
        ("retrieval/evaluation/metrics.py", "from retrieval import training", PACKAGES),
        ("retrieval/report_page/page.py", "from retrieval import maintenance", PACKAGES),
        ("retrieval/hopes.py", "", PACKAGES),  # has no place in the contract
        ("retrieval/index/schema.py", "from retrieval.index import table", CIRCLES),
        ("pipelines/rank/job.py", "from pipelines import embed", JOBS),
        ("pipelines/ray_runtime/cluster_options.py", "import pipelines.ray_runtime.wait", SESSION),
        ("pipelines/scan.py", "import click", CLICK),
    ],
)
def test_a_forbidden_import_breaks_them(copy, file, line, contract):
    target = copy / file
    whole = target.read_text() if target.exists() else None
    target.write_text(f"{whole or ''}\n{line}\n")
    try:
        result = lint_imports(copy)
    finally:
        target.unlink() if whole is None else target.write_text(whole)
    assert result.returncode != 0
    assert f"{contract} BROKEN" in result.stdout


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
