"""How fast is the exact ranking, side by side with faiss?

Both get the same float16 vectors in memory, faiss as the float32 that it wants (its `add` is
not counted), and give row numbers. Ours is `retrieval.ranking.rank`: it checks the vectors,
measures a sample, chooses its bound, widens, bounds and scores, all of it counted. They take
turns; the ratio is that of each round. What ours gives is compared, row by row and bit by bit,
with brute force in float64 on some queries.

faiss is tuned: its limit between two algorithms is meant for many cores and made it slow here
(faiss.cvar.distance_compute_blas_threshold = 1000).

    python benchmarks/photo_vectors.py PHOTOS vectors     # real photos' crops, once
    python benchmarks/rank.py [vectors] [--rounds 5] [--top-k 10,100,1000] [--queries 1000,10]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.ranking.rank import RankedLists, rank

Rows = NDArray[np.float16]


def isotropic(num_rows: int, dim: int) -> Rows:
    """Random directions: the case in which no bound is of use."""
    rng = np.random.default_rng(num_rows)
    rows = rng.standard_normal((num_rows, dim), dtype=np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def rank_ours(queries: Rows, gallery: Rows, k: int, num_threads: int) -> RankedLists:
    """The public function, as a notebook calls it."""
    return rank(queries, gallery, k, num_threads=num_threads)


def check(found: RankedLists, queries: Rows, gallery: Rows, k: int) -> None:
    """Compare some queries with a float64 product of all pairs, which is exact for float16."""
    for query in range(0, len(queries), max(1, len(queries) // 8)):
        ours = queries[query].astype(np.float64)
        scores = np.empty(len(gallery))
        for start in range(0, len(scores), 50_000):
            theirs = gallery[start : start + 50_000].astype(np.float64)
            squares = np.einsum("nd,nd->n", theirs, theirs)
            scores[start : start + 50_000] = (theirs @ ours) / np.sqrt(ours @ ours * squares)
        order = np.argsort(-scores, kind="stable")[:k]
        assert found.ids[query].tolist() == order.tolist(), f"ids of query {query}"
        assert found.scores[query].tobytes() == scores[order].tobytes(), f"bits of query {query}"


def load(args: argparse.Namespace) -> tuple[Rows, Rows, str]:
    """Gallery, queries, and what they are."""
    if args.vectors:
        gallery = np.load(args.vectors / "gallery.npy")[: args.gallery]
        return gallery, np.load(args.vectors / "queries.npy"), f"crops ({args.vectors.name})"
    rows = isotropic(args.gallery + 1000, args.dim)
    return rows[1000:], rows[:1000], "isotropic"


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path, nargs="?", help="folder of photo_vectors.py")
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512, help="of random vectors")
    parser.add_argument("--queries", default="1000")
    parser.add_argument("--top-k", default="10,100,1000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    gallery, query_rows, kind = load(args)
    faiss.omp_set_num_threads(args.threads)
    faiss.cvar.distance_compute_blas_threshold = 1000
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.astype(np.float32))
    shape = f"{len(gallery):,} × {gallery.shape[1]}"
    print(f"# exact ranking and faiss IndexFlatIP, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{kind}: {shape} float16; {args.threads} threads, faiss {faiss.__version__}, ", end="")
    print(f"NumPy {np.__version__}, Python {platform.python_version()}; {args.rounds} rounds.\n")
    print("| queries | k | first bound | ours, s | faiss, s | ratio (from – to) |")
    print("|---|---|---|---|---|---|", flush=True)
    for num_queries in map(int, args.queries.split(",")):
        for k in map(int, args.top_k.split(",")):
            measure(query_rows[:num_queries], gallery, index, k, args)


def measure(
    queries: Rows, gallery: Rows, index: faiss.IndexFlatIP, k: int, args: argparse.Namespace
) -> None:
    """One line of the table."""
    theirs_input = queries.astype(np.float32)
    # Compiled, or loaded, before the clock.
    rank_ours(queries, gallery[:4096], min(k, 4096), args.threads)
    found = rank_ours(queries, gallery, k, args.threads)
    check(found, queries, gallery, k)
    ours, theirs = [], []
    for _ in range(args.rounds):
        begin = time.perf_counter()
        rank_ours(queries, gallery, k, args.threads)
        middle = time.perf_counter()
        index.search(theirs_input, k)
        ours.append(middle - begin)
        theirs.append(time.perf_counter() - middle)
    ratios = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    print(
        f"| {len(queries):,} | {k:,} | {found.certificate[0]['bound']} | "
        f"{statistics.median(ours):.2f} | {statistics.median(theirs):.2f} | "
        f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} – {ratios[-1]:.2f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
