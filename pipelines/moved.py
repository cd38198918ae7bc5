"""Modules by the names that they had before; see `retrieval.moved`.

Jobs that are functions of the library now were modules with a function `run`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

__all__ = ["MOVED", "NOW_FUNCTIONS", "keep_old_jobs"]

MOVED: Final[Mapping[str, str]] = {
    "pipelines.cli.embed_options": "pipelines.cli.options",
    "pipelines.cli.home": "pipelines.cli.process",
    "pipelines.cli.numbers": "pipelines.cli.options",
    "pipelines.cli.streams": "pipelines.cli.process",
    "pipelines.cli.usage": "pipelines.cli.verbs",
    "pipelines.cluster": "pipelines.ray_runtime",
    "pipelines.cluster.ray_address": "pipelines.ray_runtime.cluster_options",
    "pipelines.cluster.site": "pipelines.ray_runtime.cluster_options",
    "pipelines.cluster.temp_folder": "pipelines.ray_runtime.session",
    "pipelines.cluster.tokens": "pipelines.ray_runtime.auth",
    "pipelines.cluster.waiting": "pipelines.ray_runtime.wait",
    "pipelines.embed.hands": "pipelines.embed.executor",
    "pipelines.embed.sink": "pipelines.embed.stages",
    "pipelines.forecast": "pipelines.dry_run",
    "pipelines.laps": "pipelines.metrics",
    "pipelines.opening": "pipelines.ray_runtime.decode_task",
    "pipelines.rank.config": "retrieval.ranking.plan",
    "pipelines.rank.folding": "retrieval.ranking.search_parts",
    "pipelines.rank.lineage": "retrieval.ranking.shard_lineage",
    "pipelines.rank.places": "retrieval.ranking.folder",
    "pipelines.rank.planning": "retrieval.ranking.plan",
    "pipelines.rank.pool": "pipelines.rank.actors",
    "pipelines.rank.previous": "retrieval.ranking.incremental",
    "pipelines.rank.queries": "retrieval.ranking.queries",
    "pipelines.rank.sharing": "retrieval.ranking.executor",
    "pipelines.reindex.places": "pipelines.reindex.sides",
    "pipelines.submit.outcome": "pipelines.submit.following",
    "pipelines.submit.packages": "pipelines.submit.environment",
    "pipelines.tally": "pipelines.ray_runtime.counter",
    "pipelines.train.ahead": "pipelines.train.prefetcher",
    "pipelines.train.connecting": "pipelines.train.trainer",
    "pipelines.train.photo_changes": "pipelines.train.publishing",
    "pipelines.verify": "retrieval.ranking.verification.verify",
}

NOW_FUNCTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "pipelines.diff": ("retrieval.maintenance.diff", "diff_versions"),
    "pipelines.evaluate": ("retrieval.evaluation", "evaluate"),
    "pipelines.report": ("retrieval.report_page", "write_report"),
    "pipelines.status": ("retrieval.maintenance.status", "describe_index"),
}


class _OldJob(ModuleType):
    """A module that is none any more; loads nothing until it is run."""

    def __init__(self, name: str, module: str, function: str) -> None:
        super().__init__(name, f"`{module}.{function}` now.")
        self._module, self._function = module, function

    def run(self, *args: object, **settings: object) -> dict[str, Any]:
        """What the function gives, as JSON's values."""
        warnings.warn(
            f"{self.__name__}.run is {self._module}.{self._function} now; the old name goes with "
            f"the release after the next.",
            DeprecationWarning,
            stacklevel=2,
        )
        function = getattr(importlib.import_module(self._module), self._function)
        return function(*args, **settings).to_json()


def keep_old_jobs(jobs: Mapping[str, tuple[str, str]]) -> None:
    """Have imports find them."""
    for name, (module, function) in jobs.items():
        sys.modules[name] = _OldJob(name, module, function)
