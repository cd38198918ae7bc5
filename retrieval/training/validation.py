"""What an epoch is judged by; above all, how well the validation photos find each other.

Each photo is a query against all others. Ranked exactly, by cosine of the stored form of the
embeddings (float16, length 1), as `embed` and `rank` would do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import TrainingError
from retrieval.evaluation.metrics import score_queries, summarise
from retrieval.search import top_k
from retrieval.training.epochs import JudgedPhotos
from retrieval.vectors import VectorBlock

__all__ = ["RETRIEVAL_KS", "retrieval_accuracy", "validation_figures"]

RETRIEVAL_KS = (1, 3, 10)
_QUERIES_AT_ONCE = 1024  # bounds the score matrix: 1024 × 100,000 photos are 0.8 GB


def validation_figures(found: JudgedPhotos) -> dict[str, float | None]:
    """Loss, accuracy of the head and retrieval accuracy of the validation photos.

    Raises:
        TrainingError: the loss or a feature is no finite number.
    """
    loss = float(found.losses.mean())
    if not math.isfinite(loss):
        raise TrainingError(f"the validation loss is {loss}")
    return {
        "validation_loss": loss,
        "validation_accuracy": float(found.hits.mean()),
        **retrieval_accuracy(found.features, found.labels),
    }


def retrieval_accuracy(
    features: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, float | None]:
    """Top-1, top-3 and top-10 accuracy of each photo against the others.

    Args:
        features: float32 (N, D), not normalised.
        labels: int64 (N,).

    Returns:
        "top_1", "top_3", "top_10": share of the photos with a second one of their class, of
        which the first k others hold one; None where no class has two.

    Raises:
        TrainingError: a feature is no finite number.

    Cost: O(N² D).
    """
    if not np.isfinite(features).all():
        raise TrainingError("the network gives features that are not finite")
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    vectors = (features / np.where(lengths > 0, lengths, 1)).astype(np.float16)
    # A zero vector has no direction: it would be an error of the ranking, here it is a miss.
    has_direction = vectors.any(axis=1)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    has_match = counts[codes] > 1
    if not has_match.any():
        return {f"top_{k}": None for k in RETRIEVAL_KS}
    ids = np.char.zfill(np.arange(len(labels)).astype(bytes), 12)
    gallery = VectorBlock(ids[has_direction], vectors[has_direction])
    rows = np.flatnonzero(has_match & has_direction)
    blocks = (rows[n : n + _QUERIES_AT_ONCE] for n in range(0, len(rows), _QUERIES_AT_ONCE))
    found = [_hits(gallery, ids, vectors, labels, some) for some in blocks]
    found.append(np.zeros((int((has_match & ~has_direction).sum()), max(RETRIEVAL_KS)), np.bool_))
    hits = np.concatenate(found)
    scores = score_queries(hits, np.maximum(hits.sum(axis=1), 1), RETRIEVAL_KS)
    return {f"top_{k}": accuracy for k, accuracy in summarise(scores).top.items()}


def _hits(
    gallery: VectorBlock,
    ids: NDArray[np.bytes_],
    vectors: NDArray[np.float16],
    labels: NDArray[np.int64],
    rows: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """Bool (len(rows), 10): whether the photo at each rank is of the query's class."""
    depth = max(RETRIEVAL_KS)
    queries = VectorBlock(ids[rows], vectors[rows])
    found = top_k(queries, [gallery], depth, "cosine", exclude_self=True)
    is_hit = labels[found.ids.astype(np.int64)] == labels[rows[found.query]]
    starts = np.searchsorted(found.query, np.arange(len(rows)))
    rank = np.arange(len(found)) - starts[found.query]
    hits = np.zeros((len(rows), depth), np.bool_)
    hits[found.query, rank] = is_hit
    return hits
