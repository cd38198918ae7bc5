"""How fast are vectors read, and how near to the speed of memory is that?

Writes one set of random vectors of length one in each layout, then reads it from the page cache:
blocks as `rank` does, with every vector checked, whole indexes as `read_index` does, and the ids
alone. Beside them the ceilings: the same bytes by one read into memory that is used again (what
a scan could do) or that is new (what a whole array needs), and by a copy.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/scan.py [--rows 200000] [--dim 512] [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.index import EmbeddingSpec, commit_index, index_schema, read_index, write_shard
from retrieval.vectors import find_duplicate, open_source, read_ahead, read_blocks

Measure = tuple[str, int, Callable[[], object]]  # name, bytes of the vectors, what to time


def unit_vectors(num_rows: int, dim: int) -> np.ndarray:
    """Random float32 (N, D) of length one."""
    vectors = np.random.default_rng(0).standard_normal((num_rows, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def write_index(folder: str, ids: list[str], vectors: np.ndarray, num_shards: int) -> None:
    """An index whose shards hold shuffled ids, or one sorted shard."""
    spec = EmbeddingSpec(fingerprint="f", backbone="random", weights="none", dim=vectors.shape[1])
    order = np.arange(len(ids))
    if num_shards > 1:
        np.random.default_rng(1).shuffle(order)
    shards = []
    for rows in np.array_split(order, num_shards):
        some, num_rows = [ids[row] for row in rows], len(rows)
        data = pa.py_buffer(vectors[rows].astype("<f2").tobytes())
        columns = {
            "image_id": some,
            "uri": some,
            "content_sha256": ["0" * 64] * num_rows,
            "size_bytes": [1] * num_rows,
            "modified_at": [datetime(2026, 1, 1, tzinfo=UTC)] * num_rows,
            "width": [1] * num_rows,
            "height": [1] * num_rows,
            "label": [row_id.partition("/")[0] for row_id in some],
            "embedding": pa.Array.from_buffers(pa.binary(spec.row_bytes), num_rows, [None, data]),
        }
        shards.append(write_shard(folder, pa.table(columns).cast(index_schema(spec))))
    commit_index(folder, spec, shards, run={}, seen_version=None)


def write_foreign(folder: str, ids: list[str], vectors: np.ndarray) -> None:
    """The vectors as other tools write them."""
    dim, half = vectors.shape[1], vectors.astype(np.float16)
    offsets = pa.array(np.arange(0, vectors.size + 1, dim), pa.int32())
    layouts = {
        "fixed": pa.FixedSizeListArray.from_arrays(pa.array(half.ravel()), dim),
        "list": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
    }
    for name, column in layouts.items():
        table = pa.table({"id": ids, "embedding": column})
        path = f"{folder}/{name}.parquet"
        pq.write_table(table, path, use_dictionary=False, compression="none")
    Path(folder, "pair").mkdir()
    np.save(f"{folder}/pair/x.npy", half)
    pq.write_table(pa.table({"id": ids}), f"{folder}/pair/x.parquet")


def scan(uri: str, block_rows: int, *, ahead: bool = False) -> None:
    """Read all blocks of a source and let them go."""
    source = open_source(uri)
    for file in source.files:
        blocks = read_blocks(source, file, block_rows)
        for _ in read_ahead(blocks) if ahead else blocks:
            pass


def read_into(path: str, piece: np.ndarray) -> None:
    """Read a file through a buffer that stays in the cache."""
    with Path(path).open("rb", 0) as stream:
        while stream.readinto(piece):
            pass


def measures(folder: str, args: argparse.Namespace) -> list[Measure]:
    """What to measure, the ceilings first."""
    half, block = args.rows * args.dim * 2, args.block_rows
    piece, flat = np.empty(2**20, np.uint8), f"{folder}/pair/x.npy"
    new, old = np.ones(half, np.uint8), np.ones(half, np.uint8)
    one, many = f"{folder}/one", f"{folder}/many"
    ids = open_source(one)
    return [
        ("ceiling: read into 1 MiB, used again", half, lambda: read_into(flat, piece)),
        ("ceiling: np.fromfile", half, lambda: np.fromfile(flat, np.uint8)),
        ("ceiling: copy in memory", half, lambda: np.copyto(new, old)),
        ("blocks: index (bytes, float16, checksums)", half, lambda: scan(one, block)),
        ("the same, read ahead", half, lambda: scan(one, block, ahead=True)),
        ("blocks: its shard without checksums", half, lambda: scan(f"{one}/*.parquet", block)),
        ("blocks: .npy pair (float16)", half, lambda: scan(f"{folder}/pair", block)),
        (
            "blocks: fixed_size_list (float16)",
            half,
            lambda: scan(f"{folder}/fixed.parquet", block),
        ),
        ("blocks: list (float32)", 2 * half, lambda: scan(f"{folder}/list.parquet", block)),
        ("read_index, one sorted shard", half, lambda: read_index(one)),
        ("read_index, four shuffled shards", half, lambda: read_index(many)),
        ("find_duplicate (ids alone)", 0, lambda: find_duplicate(ids, 2**30)),
    ]


def seconds(act: Callable[[], object], runs: int) -> float:
    """Median of some runs, after one that is not counted."""
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--block-rows", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    ids = [f"class_{row // 100:05}/photo_{row:08}.jpg" for row in range(args.rows)]
    with tempfile.TemporaryDirectory() as folder:
        vectors = unit_vectors(args.rows, args.dim)
        write_index(f"{folder}/one", ids, vectors, 1)
        write_index(f"{folder}/many", ids, vectors, 4)
        write_foreign(folder, ids, vectors)
        del vectors
        found = [
            (name, size, seconds(act, args.runs)) for name, size, act in measures(folder, args)
        ]
    print(f"# Reading vectors from the page cache, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{args.rows} × {args.dim}, blocks of {args.block_rows} rows, median of {args.runs};")
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} of {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"pyarrow {pa.__version__}, NumPy {np.__version__}.\n")
    print("| what | ms | million rows/s | GB/s | of np.fromfile |\n|---|---|---|---|---|")
    fromfile = found[1][1] / found[1][2]
    for name, size, took in found:
        speed = f"{size / took / 1e9:.2f} | {size / took / fromfile:.2f}" if size else "– | –"
        print(f"| {name} | {took * 1e3:.0f} | {args.rows / took / 1e6:.2f} | {speed} |")


if __name__ == "__main__":
    main()
