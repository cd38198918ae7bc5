"""Modules by the names that they had before, for one release: importing one warns and gives it.

`CHANGELOG.md` has the moves for a reader. This goes with the release after the next.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

__all__ = ["MOVED", "keep_old_names"]

MOVED: Final[Mapping[str, str]] = {
    "retrieval.augmentations.catalogue": "retrieval.augmentations.registry",
    "retrieval.augmentations.guard": "retrieval.augmentations.quality_filter",
    "retrieval.backbones": "retrieval.models.backbones",
    "retrieval.breakpoints": "retrieval.failpoints",
    "retrieval.catalogue": "retrieval.gallery.listing",
    "retrieval.churn": "retrieval.evaluation.overlap",
    "retrieval.drawn.render": "retrieval.drawn.photo",
    "retrieval.embedding": "retrieval.models.embedder",
    "retrieval.fetching": "retrieval.images.fetch",
    "retrieval.fusion": "retrieval.models.fusion",
    "retrieval.image_colours": "retrieval.images.colours",
    "retrieval.image_reasons": "retrieval.images.reasons",
    "retrieval.image_structure": "retrieval.images.structure",
    "retrieval.image_structure.bmp": "retrieval.images.structure.other_formats",
    "retrieval.image_structure.gif": "retrieval.images.structure.other_formats",
    "retrieval.image_structure.tiff": "retrieval.images.structure.other_formats",
    "retrieval.image_structure.webp": "retrieval.images.structure.other_formats",
    "retrieval.index.asking": "retrieval.index.delta_retry",
    "retrieval.index.carrying": "retrieval.index.compaction",
    "retrieval.index.changes": "retrieval.maintenance.version_diff",
    "retrieval.index.checking": "retrieval.maintenance.check",
    "retrieval.index.columns": "retrieval.index.schema",
    "retrieval.index.comparing": "retrieval.index.update_plan",
    "retrieval.index.difference": "retrieval.index.gallery_diff",
    "retrieval.index.local_log": "retrieval.index.delta_log_writer",
    "retrieval.index.night": "retrieval.index.update",
    "retrieval.index.outlook": "retrieval.index.update_estimate",
    "retrieval.index.restoring": "retrieval.maintenance.restore",
    "retrieval.index.rubbish": "retrieval.maintenance.unneeded_files",
    "retrieval.index.vacuum": "retrieval.maintenance.vacuum",
    "retrieval.inference": "retrieval.models.inference",
    "retrieval.isolation": "retrieval.images.subprocess_decode",
    "retrieval.labels": "retrieval.gallery.labels",
    "retrieval.large_photos": "retrieval.images.memory_lock",
    "retrieval.manifest": "retrieval.gallery.manifest",
    "retrieval.metrics": "retrieval.evaluation.metrics",
    "retrieval.model_folder": "retrieval.models.folder",
    "retrieval.network_input": "retrieval.models.network_input",
    "retrieval.own_networks": "retrieval.models.own_networks",
    "retrieval.provenance": "retrieval.index.records",
    "retrieval.ranges": "retrieval.settings",
    "retrieval.ranked_sides": "retrieval.ranking.sides",
    "retrieval.ranking_manifest": "retrieval.ranking.manifest",
    "retrieval.ranking_parts": "retrieval.ranking.parts",
    "retrieval.rankings": "retrieval.ranking.files",
    "retrieval.search.candidates": "retrieval.search.merge",
    "retrieval.search.cpu": "retrieval.search.cpu_engine",
    "retrieval.search.exact_pairs": "retrieval.search.rescoring",
    "retrieval.search.few_products": "retrieval.search.small_gemm",
    "retrieval.search.filtering": "retrieval.search.prefilter_pairs",
    "retrieval.search.gpu.filtering": "retrieval.search.gpu.prefilter",
    "retrieval.search.gpu.pool": "retrieval.search.gpu.top_k_buffer",
    "retrieval.search.gpu.search": "retrieval.search.gpu.engine",
    "retrieval.search.gpu.sizes": "retrieval.search.gpu.block_sizes",
    "retrieval.search.guessing": "retrieval.search.initial_thresholds",
    "retrieval.search.half": "retrieval.search.gallery_block",
    "retrieval.search.neighbours": "retrieval.search.top_k_buffer",
    "retrieval.search.passes": "retrieval.search.prefilter",
    "retrieval.search.plan": "retrieval.search.block_sizes",
    "retrieval.storage.contents": "retrieval.storage.places",
    "retrieval.storage.litter": "retrieval.storage.listing",
    "retrieval.storage.new_name": "retrieval.storage.writing",
    "retrieval.storage.trial": "retrieval.storage.clients",
    "retrieval.table_format": "retrieval.format_version",
    "retrieval.text_columns": "retrieval.storage.text_columns",
    "retrieval.training.optimisation": "retrieval.training.optimizer",
    "retrieval.vectors.delta": "retrieval.vectors.opening",
    "retrieval.verification": "retrieval.ranking.verification",
    "retrieval.watchdog": "retrieval.images.watchdog",
    "retrieval.weights": "retrieval.models.weights",
}


class _OldNames(MetaPathFinder, Loader):
    """Finds a module, or one inside a package, by a name of a table."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        self._moved = moved

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        return None if self._new_name(name) is None else ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, so that there is one of it."""
        new = self._new_name(spec.name) or spec.name
        warnings.warn(
            f"{spec.name} is {new} now; the old name goes with the release after the next.",
            DeprecationWarning,
            stacklevel=2,
        )
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give it its own spec back, which `importlib` has replaced."""
        spec = module.__spec__
        module.__spec__ = None if spec is None else spec.loader_state

    def _new_name(self, name: str) -> str | None:
        head, tail = name, ""
        while head:
            if head in self._moved:
                return self._moved[head] + tail
            head, _, last = head.rpartition(".")
            tail = f".{last}{tail}"
        return None


def keep_old_names(moved: Mapping[str, str]) -> None:
    """Have imports find modules by their old names too."""
    sys.meta_path.insert(0, _OldNames(moved))
