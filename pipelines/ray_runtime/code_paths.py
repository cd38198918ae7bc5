"""Where Ray's workers look for Python modules: where the driver does, and nowhere else.

By itself Ray puts the folder that one stands in before all else on the path of each worker, and
Python does so for a child that is started by `-c` or `-m`. A duckdb.py beside somebody's photos
would then be run, and one called numpy.py would break everything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import ray
from ray.job_config import JobConfig

__all__ = ["WorkersImportAsTheDriver", "named_folders", "no_folder_of_uv", "starting_here"]


def named_folders() -> list[str]:
    """Folders that Python was told of: of the script, of PYTHONPATH, of who runs this process.

    They are what comes before Python's own library. What lies behind it is installed, and each
    machine has its own.
    """
    library = Path(os.__file__).parent
    archive = library.with_name(library.name.replace(".", "") + ".zip")  # comes just before it
    own = {str(library), str(archive)}
    first = [Path(one).absolute() for one in takewhile(lambda one: one not in own, sys.path)]
    of_ray = Path(ray.__file__).parent  # has put a folder of its own there, as it does in a worker
    return [str(folder) for folder in first if of_ray not in folder.parents]


class WorkersImportAsTheDriver(JobConfig):
    """Settings of a job whose workers have `named_folders` first on their path."""

    def _serialize(self) -> str:
        # A job with a working directory has it in its PYTHONPATH, on each node another folder.
        if not self._runtime_env_has_working_dir():
            # Each is put before those that have been put there already.
            self._py_driver_sys_path = named_folders()[::-1]
        return super()._serialize()


@contextmanager
def starting_here() -> Iterator[None]:
    """The environment for the processes of a Ray that is started on this machine.

    PYTHONSAFEPATH keeps the current folder from the path of whatever they start in turn. A
    relative folder in PYTHONPATH means the same in all of them, wherever they go.
    """
    wanted = {"PYTHONSAFEPATH": "1"}
    if path := os.environ.get("PYTHONPATH"):
        wanted["PYTHONPATH"] = os.pathsep.join(
            str(Path(folder).absolute()) for folder in path.split(os.pathsep)
        )
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def no_folder_of_uv() -> None:
    """Under `uv run`, do not send the current folder to the workers as code; who asks for it may.

    Ray would send all of it, photos included.
    """
    if "RAY_ENABLE_UV_RUN_RUNTIME_ENV" not in os.environ:
        ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
