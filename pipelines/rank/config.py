"""Whether the settings of a ranking fit its two sides."""

from __future__ import annotations

from retrieval.errors import MismatchError, UsageError
from retrieval.ranking.settings import RankConfig
from retrieval.search import METRICS, minkowski_power
from retrieval.vectors import VectorSource

__all__ = ["choose_k"]


def choose_k(queries: VectorSource, gallery: VectorSource, config: RankConfig) -> int:
    """The k to rank; refuses sides that do not belong together.

    Raises:
        UsageError: no such metric, or k is outside the gallery.
        MismatchError: the sides are of different dimensions or models.
    """
    if config.metric not in METRICS and minkowski_power(config.metric) is None:
        raise UsageError(
            f"`metric` {config.metric}: unknown. Use one of {', '.join(METRICS)}, or minkowski:P "
            f"with P ≥ 1, as in minkowski:3."
        )
    if queries.dim != gallery.dim:
        raise MismatchError(
            f"{gallery.uri}: embeddings of {gallery.dim} dimensions, but those of {queries.uri} "
            f"have {queries.dim}. Embed both with the same model."
        )
    ours, theirs = queries.spec, gallery.spec
    if ours and theirs and ours.fingerprint != theirs.fingerprint:
        raise MismatchError(
            f"{gallery.uri}: made by {theirs.backbone} with fingerprint "
            f"{theirs.fingerprint[:12]}, but {queries.uri} by {ours.backbone} with "
            f"{ours.fingerprint[:12]}. Embed both with the same model, weights and preprocessing."
        )
    most = gallery.num_rows - config.exclude_self
    k = gallery.num_rows if config.top_k is None else config.top_k
    if config.top_k is not None and not 1 <= k <= most:
        without = " other than the query itself" if config.exclude_self else ""
        raise UsageError(
            f"`top_k` {k}: {gallery.uri} has {most} images{without}. Use 1 to {most}, or all."
        )
    return k
