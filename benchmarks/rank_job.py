"""How long does the whole `rank` job take, from Parquet on a warm page cache?

Commands as a user gives them, each in a process of its own, in turns:

    alone     retrieval-cli rank, this machine alone, without Ray
    on Ray    retrieval-cli rank --address, on a Ray that this script starts beforehand
    faiss     pyarrow reads list<float32>, IndexFlatIP adds and searches, ids are looked up and
              the ranking written as Parquet

Ours reads the index's layout (fixed-size binary float16), faiss what other tools write. With
--sizes the gallery grows, under a limit on the memory of the process, to show that time is in
proportion to rows and memory is not: then there is no faiss, which needs all in memory.

    python benchmarks/rank_job.py [VECTORS] [--rounds 3] [--top-k 10]
    python benchmarks/rank_job.py [VECTORS] --sizes 1,2.5,5,10 --memory-gib 4
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BIN = Path(sys.executable).parent
Rows = NDArray[np.float16]

FAISS = """
import os, sys, faiss, numpy as np, pyarrow as pa, pyarrow.parquet as pq
queries, gallery, output, k = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
faiss.omp_set_num_threads(os.cpu_count()); faiss.cvar.distance_compute_blas_threshold = 1000
def read(path):
    table = pq.read_table(path)
    lists = table["embedding"].combine_chunks()
    return table["image_id"], lists.flatten().to_numpy().reshape(len(lists), -1)
ids, rows = read(gallery)
query_ids, query_rows = read(queries)
index = faiss.IndexFlatIP(rows.shape[1]); index.add(rows)
scores, found = index.search(query_rows, k)
pq.write_table(pa.table({"query_id": query_ids.take(pa.array(np.repeat(np.arange(len(found)), k))),
    "gallery_id": ids.take(pa.array(found.ravel())), "score": scores.ravel()}), output)
"""


def write_vectors(folder: Path, prefix: str, parts: Iterator[Rows], *, as_lists: bool) -> None:
    """Vectors in the layout of an index's shards, or as lists of float32; one file a part."""
    folder.mkdir(parents=True)
    first = 0
    for number, rows in enumerate(parts):
        ids = pa.array([f"{prefix}{row:08d}" for row in range(first, first + len(rows))])
        first += len(rows)
        path = folder / f"{number:03d}.parquet"
        if as_lists:
            offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
            lists = pa.ListArray.from_arrays(offsets, rows.astype(np.float32).ravel())
            table = pa.table({"image_id": ids, "embedding": lists})
            pq.write_table(table, path, compression="none", use_dictionary=False)
            continue
        kind = pa.binary(2 * rows.shape[1])
        column = pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(rows.tobytes())])
        field = pa.field("embedding", kind, nullable=False, metadata={"dtype": "float16"})
        names = pa.field("image_id", pa.string(), nullable=False)
        table = pa.table([ids, column], schema=pa.schema([names, field]))
        pq.write_table(
            table, path, compression="none", use_dictionary=False, row_group_size=2**16,
            write_page_checksum=True,
        )  # fmt: skip


def gallery_parts(base: Rows, num_rows: int) -> Iterator[Rows]:
    """Any number of rows like those of `base`: itself, then mixtures of two of its rows."""
    rng = np.random.default_rng(0)
    for start in range(0, num_rows, 2**16):
        count = min(2**16, num_rows - start)
        if start + count <= len(base):
            yield base[start : start + count]
            continue
        near = rng.integers(0, len(base) - 32, count)
        other = near + rng.integers(1, 32, count)
        share = rng.uniform(0.3, 0.7, (count, 1)).astype(np.float32)
        rows = base[near].astype(np.float32) * share + base[other].astype(np.float32) * (1 - share)
        yield (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@contextmanager
def started_ray(scratch: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a Ray that ends with the body."""
    # --block: the nodes are children of this process and end with it.
    start = [str(BIN / "ray"), "start", "--head", "--block", "--port=0", f"--temp-dir={scratch}"]
    start += ["--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    ray = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield wait_for_address(scratch)
    finally:
        ray.terminate()
        ray.wait()


def wait_for_address(folder: Path) -> str:
    """HOST:PORT of the cluster whose files are in a folder, once it is up."""
    for _ in range(600):
        found = list(folder.glob("session_2*/gcs_server_port_*")) or list(
            folder.glob("ray_current_cluster")
        )
        if found:
            text = found[0].read_text().strip()
            return text if ":" in text else f"127.0.0.1:{text}"
        time.sleep(0.1)
    sys.exit("Ray did not start within a minute")


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Seconds of a command, and what it printed."""
    begin = time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return time.monotonic() - begin, done.stdout


def compare(args: argparse.Namespace, base: Rows, queries: Rows) -> None:
    """Print the table of the three commands."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for side, rows in (("q", queries), ("g", base)):
            for layout in ("ours", "lists"):
                parts = gallery_parts(rows, len(rows))
                write_vectors(scratch / layout / side, side, parts, as_lists=layout == "lists")
        sides = [str(scratch / "ours" / side) for side in ("q", "g")]
        ours = [str(BIN / "retrieval-cli"), "rank", *sides]
        lists = [str(scratch / "lists" / side) for side in ("q", "g")]
        faiss = [sys.executable, "-c", FAISS, *lists, f"{scratch}/faiss.parquet", str(args.top_k)]
        seconds: dict[str, list[float]] = {"alone": [], "on Ray": [], "faiss": []}
        inside: dict[str, list[float]] = {"alone": [], "on Ray": []}
        with started_ray(scratch / "ray", environment) as address:
            for turn in range(args.rounds + 1):  # the first warms page cache, compiler and Ray
                for name, more in (("alone", []), ("on Ray", ["--address", address])):
                    ranking = f"{scratch}/ranking-{name}-{turn}"
                    command = [*ours, ranking, "--top-k", str(args.top_k), *more]
                    taken, printed = timed(command, environment)
                    seconds[name].append(taken)
                    inside[name].append(json.loads(printed)["seconds"]["rank"])
                seconds["faiss"].append(timed(faiss, environment)[0])
    print(
        "| command | whole, s | ranking alone, s | faiss / whole (from – to) |\n|---|---|---|---|"
    )
    for name, values in seconds.items():
        ratios = sorted(f / v for f, v in zip(seconds["faiss"][1:], values[1:], strict=True))
        part = f"{statistics.median(inside[name][1:]):.2f}" if name in inside else ""
        print(
            f"| {name} | {statistics.median(values[1:]):.2f} | {part} | "
            f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} – {ratios[-1]:.2f}) |"
        )


def limit_memory(num_bytes: int) -> Callable[[], None]:
    """For a child process: no more address space than this."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def grow(args: argparse.Namespace, base: Rows, queries: Rows) -> None:
    """Print the table of the sizes."""
    print("| gallery rows | bytes | whole, s | ranking, s | s per million rows | peak, MiB |")
    print("|---|---|---|---|---|---|", flush=True)
    for millions in args.sizes.split(","):
        num_rows = int(float(millions) * 1e6)
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            scratch = Path(folder)
            write_vectors(scratch / "q", "q", iter([queries]), as_lists=False)
            write_vectors(scratch / "g", "g", gallery_parts(base, num_rows), as_lists=False)
            command = [str(BIN / "retrieval-cli"), "rank", f"{scratch}/q", f"{scratch}/g"]
            command += [f"{scratch}/ranking", "--top-k", str(args.top_k)]
            begin = time.monotonic()
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                preexec_fn=limit_memory(int(args.memory_gib * 2**30)),
            )
            printed = child.stdout.read() if child.stdout else b""
            _, status, usage = os.wait4(child.pid, 0)
            taken = time.monotonic() - begin
            if status:
                sys.exit(f"rank ended with status {status}")
            ranking = json.loads(printed)["seconds"]["rank"]
        print(
            f"| {num_rows:,} | {num_rows * base.shape[1] * 2:,} | {taken:.1f} | {ranking:.1f} | "
            f"{ranking / num_rows * 1e6:.2f} | {usage.ru_maxrss / 1024:.0f} |",
            flush=True,
        )


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path, nargs="?", help="folder of photo_vectors.py")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", help="millions of rows, as 1,2.5,5,10")
    parser.add_argument("--memory-gib", type=float, default=4.0)
    parser.add_argument("--scratch", type=Path, help="folder with room for the largest gallery")
    args = parser.parse_args()
    if args.vectors:
        base = np.load(args.vectors / "gallery.npy")[: args.gallery]
        queries = np.load(args.vectors / "queries.npy")[: args.queries]
    else:
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(min(args.gallery, 100_000) + args.queries, 512))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        base, queries = np.split(rows.astype(np.float16), [-args.queries])
    print(f"# the whole rank job, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{len(queries):,} queries × {len(base):,} × {base.shape[1]}, k = {args.top_k}; ", end="")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}.\n")
    (grow if args.sizes else compare)(args, base, queries)


if __name__ == "__main__":
    main()
