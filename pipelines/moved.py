"""Modules by the names that they had before; see `retrieval.moved`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["MOVED"]

MOVED: Final[Mapping[str, str]] = {
    "pipelines.cluster": "pipelines.ray_runtime",
    "pipelines.cluster.ray_address": "pipelines.ray_runtime.address",
    "pipelines.cluster.site": "pipelines.ray_runtime.cluster_options",
    "pipelines.cluster.tokens": "pipelines.ray_runtime.auth",
    "pipelines.cluster.waiting": "pipelines.ray_runtime.wait",
    "pipelines.embed.hands": "pipelines.embed.executor",
    "pipelines.forecast": "pipelines.dry_run",
    "pipelines.laps": "pipelines.step_timer",
    "pipelines.opening": "pipelines.ray_runtime.decode_task",
    "pipelines.rank.config": "retrieval.ranking.plan",
    "pipelines.rank.folding": "retrieval.ranking.search_parts",
    "pipelines.rank.lineage": "retrieval.ranking.shard_lineage",
    "pipelines.rank.places": "retrieval.ranking.places",
    "pipelines.rank.planning": "retrieval.ranking.plan",
    "pipelines.rank.previous": "retrieval.ranking.incremental",
    "pipelines.rank.queries": "retrieval.ranking.queries",
    "pipelines.rank.sharing": "retrieval.ranking.executor",
    "pipelines.tally": "pipelines.ray_runtime.counter",
    "pipelines.train.ahead": "pipelines.train.prefetcher",
    "pipelines.train.connecting": "pipelines.train.torch_backend",
    "pipelines.verify": "retrieval.ranking.verification.verify",
}
