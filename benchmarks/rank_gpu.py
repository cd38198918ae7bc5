"""How fast is the exact GPU engine, against what one would write in torch?

All in one run, on one GPU, with the gallery on the device as float16 vectors of length one:

    GEMM            float16 products alone, tile by tile: the ceiling
    torch float32   matmul (TF32 off) and topk, merged: real float32, not exact in ties
    torch float16   matmul and topk: fast, and wrong where float16 scores are equal
    ours, torch     the exact engine with the plain filter
    ours, Triton    the exact engine with the fused filter

The ids of each are compared with float64 brute force on a sample of the queries. Needs torch
and NumPy, and neither pyarrow nor Ray: the GPU's machine may lack them.

    python benchmarks/rank_gpu.py [--queries 10000] [--gallery 4000000] [--dim 512] [--k 100]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
TILE = (2048, 65536)  # queries and rows of a tile of the plain versions: 512 MiB of float32


def import_engine() -> type:
    """Our engine without the packages around it, whose __init__ want pyarrow."""
    for name in ("retrieval", "retrieval.search"):
        package = types.ModuleType(name)
        package.__path__ = [str(ROOT.joinpath(*name.split(".")))]
        sys.modules[name] = package
    from retrieval.search.gpu import GpuSearch

    return GpuSearch


class Block(NamedTuple):
    """Stands in for retrieval.vectors.VectorBlock."""

    ids: np.ndarray
    vectors: np.ndarray


class Method(NamedTuple):
    """Something to measure: `run` gives ids of rows, int64 (Q, k), or None."""

    name: str
    run: Callable[[], np.ndarray | None]


def unit_rows(num_rows: int, dim: int, device: torch.device, seed: int) -> Tensor:
    """Random float16 vectors of length one, drawn on the device."""
    generator = torch.Generator(device).manual_seed(seed)
    rows = torch.empty(num_rows, dim, dtype=torch.float16, device=device)
    for part in rows.split(2**17):
        drawn = torch.randn(part.shape, device=device, generator=generator)
        part.copy_(torch.nn.functional.normalize(drawn))
    return rows


def multiply(queries: Tensor, gallery: Tensor) -> None:
    """All products, nothing else."""
    for ours in queries.split(TILE[0]):
        for theirs in gallery.split(TILE[1]):
            ours @ theirs.T


def plain(queries: Tensor, gallery: Tensor, k: int, dtype: torch.dtype) -> np.ndarray:
    """A matmul and a topk of each tile, and a topk of those."""
    found = []
    for ours in queries.to(dtype).split(TILE[0]):
        scores = torch.empty(len(ours), 0, dtype=dtype, device=ours.device)
        rows = torch.empty(len(ours), 0, dtype=torch.int64, device=ours.device)
        for start in range(0, len(gallery), TILE[1]):
            tile = ours @ gallery[start : start + TILE[1]].to(dtype).T
            best = tile.topk(min(k, tile.shape[1]), dim=1)
            scores = torch.cat([scores, best.values], dim=1)
            rows = torch.cat([rows, best.indices + start], dim=1)
            kept = scores.topk(min(k, scores.shape[1]), dim=1)
            scores, rows = kept.values, rows.gather(1, kept.indices)
        found.append(rows)
    return torch.cat(found).cpu().numpy()


def truth(queries: Tensor, gallery: Tensor, k: int, ids: np.ndarray) -> np.ndarray:
    """Rows by float64 dot products, which do not round for these vectors; ties by id."""
    scores = torch.cat(
        [queries.double() @ part.double().T for part in gallery.split(2**17)], dim=1
    ).cpu()
    answers = []
    for row in scores.numpy():
        near = np.flatnonzero(row >= np.partition(row, -k)[-k])
        answers.append(near[np.lexsort((ids[near], -row[near]))][:k])
    return np.stack(answers)


def clock(run: Callable[[], object], runs: int, device: torch.device) -> tuple[object, list[float]]:
    """The last result, and seconds of each run after one that does not count."""
    seconds, result = [], None
    for _ in range(runs + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return result, seconds[1:]


def report(
    methods: list[Method],
    args: argparse.Namespace,
    device: torch.device,
    sample: np.ndarray,
    expected: np.ndarray,
) -> None:
    """Measure each method and print its line."""
    print("| method | median s | runs | TFLOP/s | of GEMM | × float32 | right lists | right ids |")
    print("|---|---|---|---|---|---|---|---|")
    work, medians = 2e-12 * args.queries * args.gallery * args.dim, {}
    for method in methods:
        found, seconds = clock(method.run, args.runs, device)
        medians[method.name] = median = statistics.median(seconds)
        ratios = [
            f"{medians[base] / median:.2f}" if base in medians else ""
            for base in ("GEMM float16", "torch float32")
        ]
        right = ["", ""]
        if isinstance(found, np.ndarray):
            same = found[sample] == expected
            right = [f"{same.all(axis=1).mean():.3f}", f"{same.mean():.5f}"]
        runs = " ".join(f"{second:.3f}" for second in seconds)
        rate = f"{work / median:.3g}"
        print("|", " | ".join([method.name, f"{median:.3f}", runs, rate, *ratios, *right]), "|")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("--queries", 10_000),
        ("--gallery", 4_000_000),
        ("--dim", 512),
        ("--k", 100),
        ("--runs", 3),
        ("--sample", 64),
    ):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    gpu_search = import_engine()

    gallery = unit_rows(args.gallery, args.dim, device, 1)
    queries = unit_rows(args.queries, args.dim, device, 2)
    ids = np.array([b"%09d" % row for row in range(args.gallery)])
    block = Block(np.array([b"q%d" % n for n in range(args.queries)]), queries.cpu().numpy())
    certificates = {}

    def ours(use_triton: bool) -> np.ndarray:
        # Inner product: for it plain torch is right too, up to rounding.
        search = gpu_search(block, args.k, "ip", device=device, use_triton=use_triton)
        search.add_resident(ids, gallery)
        found = search.result()
        certificates[use_triton] = search.certificate()
        return found.ids.astype(np.int64).reshape(args.queries, args.k)

    methods = [
        Method("GEMM float16", lambda: multiply(queries, gallery)),
        Method("torch float32", lambda: plain(queries, gallery, args.k, torch.float32)),
        Method("torch float16", lambda: plain(queries, gallery, args.k, torch.float16)),
        Method("ours, torch", lambda: ours(False)),
    ]
    if device.type == "cuda":
        methods.append(Method("ours, Triton", lambda: ours(True)))

    sample = np.linspace(0, args.queries - 1, min(args.sample, args.queries)).astype(int)
    expected = truth(queries[torch.tensor(sample, device=device)], gallery, args.k, ids)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    shape = f"{args.queries} × {args.gallery} × {args.dim}, k={args.k}"
    print(f"{shape}, {where}, torch {torch.__version__}\n")
    report(methods, args, device, sample, expected)
    for certificate in certificates.values():
        print(f"\n{certificate}")


if __name__ == "__main__":
    main()
