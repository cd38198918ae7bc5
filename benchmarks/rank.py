"""How long does `rank` take on a started Ray?

Starts a Ray of its own by `ray start`, then runs the command line against it, as a user does:
the time of the whole command (Python's start, reading, ranking, writing) and the time of the
ranking alone, from its report. The vectors are random, of length one, float16.

    python benchmarks/rank.py [--queries 100] [--gallery 10000] [--dim 512] [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BIN = Path(sys.executable).parent


def write_vectors(folder: Path, prefix: str, num_rows: int, dim: int, num_files: int) -> None:
    """Random unit vectors in the layout of an index's shards."""
    rng = np.random.default_rng(num_rows)
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(num_rows), num_files)):
        vectors = rng.normal(size=(len(rows), dim))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        kind = pa.binary(2 * dim)
        data = pa.py_buffer(vectors.astype("<f2").tobytes())
        column = pa.Array.from_buffers(kind, len(rows), [None, data])
        field = pa.field("embedding", kind, metadata={"dtype": "float16"})
        table = pa.table(
            [[f"{prefix}{row}" for row in rows], column],
            schema=pa.schema([pa.field("image_id", pa.string()), field]),
        )
        pq.write_table(table, folder / f"{number}.parquet", compression="none")


def measure(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of each run: the whole command, and the ranking alone."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    commands, rankings = [], []
    with tempfile.TemporaryDirectory() as scratch:
        queries, gallery = Path(scratch, "queries"), Path(scratch, "gallery")
        write_vectors(queries, "q", args.queries, args.dim, 1)
        write_vectors(gallery, "g", args.gallery, args.dim, args.files)
        # --block: the nodes are children of this process and end with it.
        start = [str(BIN / "ray"), "start", "--head", "--block", "--port=0"]
        start += ["--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        start += [f"--temp-dir={scratch}/ray"]
        cluster = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL)
        try:
            address = wait_for_address(Path(scratch, "ray"))
            command = [str(BIN / "retrieval-cli"), "rank", str(queries), str(gallery)]
            command += [f"{scratch}/ranking", "--top-k", args.top_k, "--address", address]
            for _ in range(args.runs):
                begin = time.monotonic()
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                commands.append(time.monotonic() - begin)
                rankings.append(json.loads(done.stdout)["seconds"]["rank"])
        finally:
            cluster.terminate()
            cluster.wait()
    return commands, rankings


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--gallery", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--top-k", default="10")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    commands, rankings = measure(args)
    print(f"# rank on a started Ray, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{args.queries} queries × {args.gallery} × {args.dim}, float16 in {args.files} files,")
    print(f"k = {args.top_k}; {os.cpu_count()} cores, Python {platform.python_version()}.\n")
    print("| seconds | smallest | median | largest |\n|---|---|---|---|")
    for name, values in (("whole command", commands), ("ranking alone", rankings)):
        figures = (min(values), statistics.median(values), max(values))
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in figures) + " |")


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


if __name__ == "__main__":
    main()
