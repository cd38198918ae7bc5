"""Cases and the reference that the GPU engine's tests share, with and without Triton."""

from __future__ import annotations

import itertools
import os

import numpy as np
import torch

from retrieval.search import Candidates, best, is_distance
from retrieval.search.gpu import GpuSearch
from retrieval.search.scores import Rows, pair_scores
from retrieval.vectors import VectorBlock

# Where there is a GPU the engine runs on it; Triton's interpreter is for the CPU.
ON_GPU = torch.cuda.is_available() and "TRITON_INTERPRET" not in os.environ
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
METRICS = ("cosine", "ip", "l2")
DTYPES = ("float16", "float32", "float64")


def block(vectors, prefix="g"):
    # Ids in an order of their own, of different lengths: position must not matter.
    order = np.random.default_rng(9).permutation(len(vectors))
    return VectorBlock(np.array([f"{prefix}{n * n}" for n in order], dtype="S"), vectors)


def unit_rows(rng, num_rows, dim, dtype):
    rows = rng.normal(size=(num_rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def split(gallery, bounds):
    edges = [0, *sorted(bounds), len(gallery.ids)]
    return [
        VectorBlock(gallery.ids[a:b], gallery.vectors[a:b]) for a, b in itertools.pairwise(edges)
    ]


def reference(queries, gallery, k, metric, *, exclude_self=False):
    """The canonical scores of all pairs, and the k best of them."""
    q, g = (n.ravel() for n in np.indices((len(queries.ids), len(gallery.ids))))
    if exclude_self:
        other = queries.ids[q] != gallery.ids[g]
        q, g = q[other], g[other]
    ours, theirs = Rows.prepare(queries.vectors).take(q), Rows.prepare(gallery.vectors).take(g)
    scores = pair_scores(metric, ours, theirs)
    found = Candidates(q.astype(np.int32), gallery.ids[g], scores)
    return best([found], k, smaller_is_nearer=is_distance(metric))


def search(queries, blocks, k, metric, **settings):
    found = GpuSearch(queries, k, metric, device=DEVICE, **settings)
    for part in blocks:
        found.add(part)
    return found


def bits(found):
    return [found.query.tolist(), found.ids.tolist(), found.scores.tobytes()]


def check(queries, gallery, k, metric, bounds=(), *, exclude_self=False, **settings):
    """Compare with the reference, and return the search."""
    done = search(queries, split(gallery, bounds), k, metric, exclude_self=exclude_self, **settings)
    expected = reference(queries, gallery, k, metric, exclude_self=exclude_self)
    assert bits(done.result()) == bits(expected)
    return done
