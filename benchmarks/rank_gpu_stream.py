"""How near does the GPU engine come to what feeds it, when the gallery streams from Parquet?

Writes an index of random float16 vectors of length one, and then, with a warm page cache:

    read      the gallery read as `rank` reads it, and let go
    copy      as many bytes from pinned memory to the GPU
    search    read, copied and searched: at best as fast as the slower of the two

    python benchmarks/rank_gpu_stream.py [--queries 10000] [--gallery 2000000] [--k 100]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scan import write_index

from retrieval.search import top_k
from retrieval.search.gpu import GpuSearch
from retrieval.vectors import VectorBlock, open_source, read_ahead, read_blocks

BLOCK_ROWS, NUM_SHARDS = 16_384, 8


def unit_rows(num_rows: int, dim: int, seed: int) -> np.ndarray:
    """Random float16 vectors of length one, drawn on the GPU."""
    generator = torch.Generator("cuda").manual_seed(seed)
    rows = torch.randn(num_rows, dim, device="cuda", generator=generator)
    return torch.nn.functional.normalize(rows).half().cpu().numpy()


def gallery_blocks(folder: str) -> Iterator[VectorBlock]:
    """All rows, as a job reads them."""
    source = open_source(folder)
    parts = (block for file in source.files for block in read_blocks(source, file, BLOCK_ROWS))
    return read_ahead(parts)


def search(queries: VectorBlock, folder: str, k: int) -> GpuSearch:
    """The whole search."""
    done = GpuSearch(queries, k, "cosine", device=torch.device("cuda"))
    for block in gallery_blocks(folder):
        done.add(block)
    done.result()
    return done


def copy(num_bytes: int, piece_bytes: int = 2**26) -> None:
    """From pinned memory to the GPU, piece by piece."""
    pinned = torch.empty(piece_bytes, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(piece_bytes, dtype=torch.uint8, device="cuda")
    for _ in range(-(-num_bytes // piece_bytes)):
        there.copy_(pinned, non_blocking=True)
    torch.cuda.synchronize()


def clock(run: Callable[[], object], runs: int) -> list[float]:
    """Seconds of each run after one that does not count."""
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("--queries", 10_000),
        ("--gallery", 2_000_000),
        ("--dim", 512),
        ("--k", 100),
        ("--runs", 3),
    ):
        parser.add_argument(name, type=int, default=default)
    args = parser.parse_args()
    num_bytes = args.gallery * args.dim * 2
    names = np.array([b"q%05d" % n for n in range(args.queries)])
    queries = VectorBlock(names, unit_rows(args.queries, args.dim, 2))
    with tempfile.TemporaryDirectory() as folder:
        ids = [f"class_{row // 100:05}/photo_{row:08}.jpg" for row in range(args.gallery)]
        write_index(folder, ids, unit_rows(args.gallery, args.dim, 1), NUM_SHARDS)
        seconds = {
            "read": clock(lambda: sum(len(b.ids) for b in gallery_blocks(folder)), args.runs),
            "copy": clock(lambda: copy(num_bytes), args.runs),
            "search": clock(lambda: search(queries, folder, args.k), args.runs),
        }
        done = search(queries, folder, args.k)
        some = VectorBlock(names[:20], queries.vectors[:20])
        expected = top_k(some, gallery_blocks(folder), args.k, "cosine")
        same = (done.result().ids[: len(expected)] == expected.ids).all()
    shape = f"{args.queries} × {args.gallery} × {args.dim}, k={args.k}"
    print(f"{shape}, {torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| what | median s | runs | GB/s | million rows/s |\n|---|---|---|---|---|")
    for name, taken in seconds.items():
        median, runs = statistics.median(taken), " ".join(f"{second:.2f}" for second in taken)
        rates = f"{num_bytes / median / 1e9:.2f} | {args.gallery / median / 1e6:.2f}"
        print(f"| {name} | {median:.2f} | {runs} | {rates} |")
    ceiling = max(statistics.median(seconds[name]) for name in ("read", "copy"))
    print(f"\nOf the slower of both: {ceiling / statistics.median(seconds['search']):.2f}")
    print(f"As the CPU engine, for 20 queries: {bool(same)}\n\n{done.certificate()}")


if __name__ == "__main__":
    main()
