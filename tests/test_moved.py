"""Names of modules of the release before still give the modules, and say the new name."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from pipelines.moved import MOVED as JOBS
from pipelines.moved import NOW_FUNCTIONS
from retrieval.moved import MOVED as LIBRARY


@pytest.mark.parametrize(("old", "new"), sorted({**LIBRARY, **JOBS}.items()))
def test_an_old_name_gives_the_module_and_warns(old, new):
    expected = importlib.import_module(new)
    spec = expected.__spec__
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is {new} now"):
        assert importlib.import_module(old) is expected
    assert expected.__spec__ is spec
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importlib.import_module(old) is expected  # said once


def test_a_module_inside_a_package_that_moved_is_there_once():
    code = (
        "import retrieval.model_folder.manifest as old, retrieval.models.folder.manifest as new;"
        "import pipelines.cluster.session as a, pipelines.ray_runtime.session as b;"
        "from retrieval import rankings; from retrieval.ranking import files;"
        "assert (old, a, rankings) == (new, b, files)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize("old", sorted(NOW_FUNCTIONS))
def test_an_old_job_runs_the_function_of_the_library_and_warns(old, monkeypatch):
    module, function = NOW_FUNCTIONS[old]
    result = SimpleNamespace(to_json=lambda: {"key": 1})
    called = Mock(return_value=result)
    assert callable(getattr(importlib.import_module(module), function))
    monkeypatch.setattr(f"{module}.{function}", called)
    with pytest.warns(DeprecationWarning, match=f"{old}.run is {module}.{function} now"):
        assert importlib.import_module(old).run("place", k=2) == {"key": 1}
    called.assert_called_once_with("place", k=2)


@pytest.mark.parametrize("name", ["retrieval.no_such", "retrieval.model_folder.no_such"])
def test_a_name_that_never_was_is_not_found(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_nothing_here_uses_an_old_name(pytestconfig):
    code = (
        "import pkgutil, importlib, warnings, retrieval, pipelines\n"
        "warnings.filterwarnings('error', '.*the old name goes')\n"
        "for package in (retrieval, pipelines):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.endswith('__main__'):\n"
        "            importlib.import_module(found.name)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]
