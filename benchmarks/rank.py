"""How fast is the exact ranking, side by side with faiss?

Both get the same float16 vectors in memory, faiss as the float32 that it wants (its `add` is
not counted); ours measures a sample, chooses its bound, widens, bounds and scores: all of it
counted. They take turns; the ratio is that of each round. What ours gives is compared, id by
id and bit by bit, with brute force in float64 on some queries.

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

from retrieval.search import (
    Candidates,
    CpuSearch,
    choose_basis,
    guess_floors,
    is_worth_a_sample,
    scan,
)
from retrieval.vectors import Sample, VectorBlock

_BLOCK_ROWS = 2048


def isotropic(num_rows: int, dim: int) -> NDArray[np.float16]:
    """Random directions: the case in which no bound is of use."""
    rng = np.random.default_rng(num_rows)
    rows = rng.standard_normal((num_rows, dim), dtype=np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def numbered(prefix: str, num_rows: int) -> NDArray[np.bytes_]:
    """Ids whose order is that of the rows."""
    return np.char.add(prefix.encode(), np.char.zfill(np.arange(num_rows).astype("S8"), 8))


def rank_ours(
    queries: VectorBlock, gallery: VectorBlock, k: int, num_threads: int
) -> tuple[Candidates, str]:
    """As the job does it, from vectors in memory; and the bound that was chosen."""
    num_rows = len(gallery.ids)
    stride = max(1, num_rows // 8192)
    sample = Sample(gallery.vectors[::stride], 1 / stride)
    choice = choose_basis(sample.vectors, queries.vectors, k, num_rows)
    search = CpuSearch(queries, k, "cosine", basis=choice.basis)
    if is_worth_a_sample(*queries.vectors.shape, num_rows):
        options = {"num_gallery": num_rows, "num_threads": num_threads}
        search.raise_floors(guess_floors(sample, queries.vectors, k, "cosine", **options))
    starts = range(0, num_rows, _BLOCK_ROWS)
    step = round(len(starts) * 0.618) | 1  # through the gallery in leaps, as the job goes
    while np.gcd(step, len(starts)) != 1:
        step += 2
    order = [starts[number * step % len(starts)] for number in range(len(starts))]
    slices = (slice(start, start + _BLOCK_ROWS) for start in order)
    blocks = (VectorBlock(gallery.ids[part], gallery.vectors[part]) for part in slices)
    scan(search, [blocks], num_threads)
    found = search.result()
    # The job would rank a query again whose guess was too high; none is here.
    assert (np.bincount(found.query, minlength=len(queries.ids)) == min(k, num_rows)).all()
    return found, search.method


def check(found: Candidates, queries: VectorBlock, gallery: VectorBlock, k: int) -> None:
    """Compare some queries with a float64 product of all pairs, which is exact for float16."""
    for query in range(0, len(queries.ids), max(1, len(queries.ids) // 8)):
        ours = queries.vectors[query].astype(np.float64)
        scores = np.empty(len(gallery.ids))
        for start in range(0, len(scores), 50_000):
            theirs = gallery.vectors[start : start + 50_000].astype(np.float64)
            squares = np.einsum("nd,nd->n", theirs, theirs)
            scores[start : start + 50_000] = (theirs @ ours) / np.sqrt(ours @ ours * squares)
        order = np.lexsort((gallery.ids, -scores))[:k]
        rows = found.query == query
        assert (found.ids[rows] == gallery.ids[order]).all(), f"ids of query {query}"
        assert found.scores[rows].tobytes() == scores[order].tobytes(), f"bits of query {query}"


def load(args: argparse.Namespace) -> tuple[NDArray[np.float16], NDArray[np.float16], str]:
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
    gallery_rows, query_rows, kind = load(args)
    gallery = VectorBlock(numbered("g", len(gallery_rows)), gallery_rows)
    faiss.omp_set_num_threads(args.threads)
    faiss.cvar.distance_compute_blas_threshold = 1000
    index = faiss.IndexFlatIP(gallery_rows.shape[1])
    index.add(gallery_rows.astype(np.float32))
    shape = f"{len(gallery_rows):,} × {gallery_rows.shape[1]}"
    print(f"# exact ranking and faiss IndexFlatIP, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{kind}: {shape} float16; {args.threads} threads, faiss {faiss.__version__}, ", end="")
    print(f"NumPy {np.__version__}, Python {platform.python_version()}; {args.rounds} rounds.\n")
    print("| queries | k | first bound | ours, s | faiss, s | ratio (from – to) |")
    print("|---|---|---|---|---|---|", flush=True)
    for num_queries in map(int, args.queries.split(",")):
        vectors = query_rows[:num_queries]
        queries = VectorBlock(numbered("q", num_queries), vectors)
        for k in map(int, args.top_k.split(",")):
            measure(queries, gallery, index, k, args)


def measure(
    queries: VectorBlock,
    gallery: VectorBlock,
    index: faiss.IndexFlatIP,
    k: int,
    args: argparse.Namespace,
) -> None:
    """One line of the table."""
    theirs_input = queries.vectors.astype(np.float32)
    few = VectorBlock(gallery.ids[:4096], gallery.vectors[:4096])
    rank_ours(queries, few, min(k, 4096), args.threads)  # compiled, or loaded, before the clock
    found, method = rank_ours(queries, gallery, k, args.threads)
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
        f"| {len(queries.ids):,} | {k:,} | {method} | "
        f"{statistics.median(ours):.2f} | {statistics.median(theirs):.2f} | "
        f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} – {ratios[-1]:.2f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
