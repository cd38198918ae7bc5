"""How does the cost of the exact ranking grow, and where does faiss stand?

One picture of four lines: seconds against queries, gallery rows, k and dimensions, ours and
faiss side by side, on crops of real photos (or random vectors of their spectrum for the
dimensions). Writes the picture and prints the figures.

    python benchmarks/rank_growth.py VECTORS PICTURE.png
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import matplotlib as mpl
import numpy as np
from rank import Rows, rank_ours

mpl.use("Agg")
import matplotlib.pyplot as plt

THREADS = os.cpu_count() or 1
QUERIES, GALLERY, K = 300, 250_000, 10


def projected(rows: Rows, dim: int) -> Rows:
    """The same rows turned at random and cut to fewer dimensions, of length one again."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(rows.shape[1], dim)))[0].astype(np.float32)
    turned = rows.astype(np.float32) @ turn
    return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float16)


def cases(gallery: Rows, queries: Rows) -> Iterator[tuple[str, int, Rows, Rows, int]]:
    """What is varied, its value, queries, gallery and k."""
    few, some = queries[:QUERIES], gallery[:GALLERY]
    for count in (1, 3, 10, 30, 100, 300, 1000):
        yield "queries", count, queries[:count], some, K
    for count in (30_000, 100_000, 300_000, 1_000_000):
        if count <= len(gallery):
            yield "gallery rows", count, few, gallery[:count], K
    for count in (1, 10, 100, 1000, 10_000):
        yield "k", count, few, some, count
    for count in (64, 128, 256, 512):
        yield "dimensions", count, projected(few, count), projected(some, count), K


def seconds(queries: Rows, gallery: Rows, k: int) -> tuple[float, float]:
    """Ours and faiss: the smaller of three runs in turns."""
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.astype(np.float32))
    wide = queries.astype(np.float32)
    ours, theirs = [], []
    for _ in range(3):
        begin = time.perf_counter()
        rank_ours(queries, gallery, k, THREADS)
        middle = time.perf_counter()
        index.search(wide, k)
        ours.append(middle - begin)
        theirs.append(time.perf_counter() - middle)
    return min(ours), min(theirs)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    faiss.omp_set_num_threads(THREADS)
    faiss.cvar.distance_compute_blas_threshold = 1000
    gallery = np.load(args.vectors / "gallery.npy")
    queries = np.load(args.vectors / "queries.npy")
    rank_ours(queries[:10], gallery[:9000], K, THREADS)
    lines: dict[str, list[tuple[int, float, float]]] = {}
    print("| varied | value | ours, s | faiss, s | ratio |\n|---|---|---|---|---|")
    for what, value, some_queries, some_rows, k in cases(gallery, queries):
        ours, theirs = seconds(some_queries, some_rows, k)
        lines.setdefault(what, []).append((value, ours, theirs))
        print(
            f"| {what} | {value:,} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |", flush=True
        )
    draw(lines, args.picture, gallery.shape[1])


def draw(lines: dict[str, list[tuple[int, float, float]]], picture: Path, dim: int) -> None:
    """Four panels, both axes logarithmic: a slope of one is a cost in proportion."""
    figure, panels = plt.subplots(1, 4, figsize=(16, 4), sharey=True, layout="constrained")
    for panel, (what, points) in zip(panels, lines.items(), strict=True):
        values, ours, theirs = zip(*points, strict=True)
        panel.loglog(values, theirs, "o--", color="#888888", label="faiss IndexFlatIP")
        panel.loglog(values, ours, "o-", color="#1b6ca8", label="retrieval-cli, exact")
        panel.set_xticks(values, [f"{value:,}" for value in values], rotation=30)
        panel.minorticks_off()
        panel.set_xlabel(what)
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("seconds")
    panels[0].legend()
    figure.suptitle(
        f"{THREADS} cores; where not varied: {QUERIES} queries × {GALLERY:,} rows × {dim}, k = {K}"
    )
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
