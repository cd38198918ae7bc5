"""The Triton kernels, interpreted on the CPU: what plain torch finds, bit for bit.

Triton reads TRITON_INTERPRET when it is imported, and other tests may have imported it: the
cases run in a process of their own. What the interpreter cannot show are the GPU's own sums.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

_START = """
import numpy as np, torch
from retrieval.search.gpu import block_sizes as sizes, prefilter as filtering
from retrieval.search.gpu import scan, triton_dots, triton_filter
from retrieval.search.scores import Rows, pair_scores
from tests.retrieval.gpu_cases import *

rng = np.random.default_rng(3)
plan = sizes.Sizes.__init__

def small(self, *rest):
    plan(self, *rest)
    self.first_rows, self.chunk_rows, self.sample_rows, self.survivors = 64, 150, 16, SURVIVORS

sizes.Sizes.__init__ = small
SURVIVORS = 4000
"""

_SAME = """
for metric in METRICS:
    for dtype in DTYPES:
        for exclude_self in (False, True):
            queries, gallery = (block(unit_rows(rng, n, 37, dtype)) for n in (19, 330))
            found = [
                check(queries, gallery, 4, metric, [50], exclude_self=exclude_self, use_triton=use)
                for use in (False, True)
            ]
            plain, kernel = (one.certificate() for one in found)
            assert (plain.pop("engine"), kernel.pop("engine")) == ("torch", "triton")
            # Their float32 sums may differ in the last bits.
            assert abs(plain["survivors"] - kernel["survivors"]) <= 3
"""

_TIES = """
SURVIVORS = 60
for metric in METRICS:
    rows = np.repeat(unit_rows(rng, 20, 8, "float16"), 12, axis=0)
    done = check(block(rows[:30:7], "q"), block(rows), 13, metric, use_triton=True)
    assert done.certificate()["repeats"] > 0, "the buffer has overflowed"
    assert done.certificate()["largest_buffer"] <= 60
"""

_SHAPES = """
for num_queries, num_rows, dim in ((1, 1, 1), (16, 64, 16), (17, 65, 33), (3, 200, 130)):
    for power in (-18, -6, 0, 6):  # subnormal, exact, and too large for the exact kernel
        for metric in METRICS:
            make = lambda n: (unit_rows(rng, n, dim, "float64") * 2.0**power).astype("float16")
            queries, gallery = block(make(num_queries), "q"), block(make(num_rows))
            check(queries, gallery, 5, metric, use_triton=True)
"""

_EXACT = """
def forbidden(*_):
    raise AssertionError("the exact kernel should score these")

for metric in METRICS:
    queries, gallery = (block(unit_rows(rng, n, 70, "float16")) for n in (5, 200))
    expected = bits(reference(queries, gallery, 6, metric))
    scan.pair_keys = forbidden
    assert bits(search(queries, [gallery], 6, metric, use_triton=True).result()) == expected
"""

_STRIDES = """
# One query makes numbers that torch expands, without memory for each of them.
queries, rows = (torch.tensor(unit_rows(rng, n, 70, "float16")) for n in (3, 200))
query, row = torch.tensor([2]).expand(100), torch.arange(200)[::2]
dots, squares = triton_dots.exact_sums(queries, rows, query, row)
assert torch.equal(dots, rows[::2].double() @ queries[2].double())
assert torch.equal(squares, (rows[::2].double() ** 2).sum(1))
every_other = torch.tensor(unit_rows(rng, 400, 70, "float16"))[::2]
dots, _ = triton_dots.exact_sums(queries, every_other, query, row)
assert torch.equal(dots, every_other[::2].double() @ queries[2].double())

ones = torch.ones(1)
expanded = [ones.expand(200), (0 * ones).expand(200)]
task = filtering.Task(queries[::2], every_other, -ones.expand(2), *expanded)
query, row = triton_filter.begin(task, sizes.Sizes(2, 70, 2, 5, 2**26))()
assert len(query) == 400  # all products are above -1
task = filtering.Task(queries[::2], every_other, ones.expand(2) * 0.05, *expanded)
query, row = triton_filter.begin(task, sizes.Sizes(2, 70, 2, 5, 2**26))()
high = (queries[::2].float() @ every_other.float().T >= 0.05).nonzero().tolist()
assert sorted(zip(query.tolist(), row.tolist())) == [tuple(pair) for pair in high]
"""

_FILTER = """
# Against a loop over all pairs; the guesses are sums of few bits, so that all orders agree.
queries, rows = (torch.tensor(rng.integers(-8, 9, (n, 40)), dtype=torch.float16) for n in (21, 83))
limits = torch.tensor(rng.integers(-100, 400, 21), dtype=torch.float32)
limits[4], limits[5] = -torch.inf, torch.inf
factors = torch.tensor(rng.choice([0.5, 1.0, 2.0], 83), dtype=torch.float32)
offsets = torch.tensor(rng.integers(-50, 50, 83), dtype=torch.float32)
task = filtering.Task(queries, rows, limits, factors, offsets)
plan_ = sizes.Sizes(21, 40, 2, 5, 2**26)
expected = {
    (q, r)
    for q in range(21)
    for r in range(83)
    if float(queries[q].float() @ rows[r].float()) >= float(limits[q] * factors[r] + offsets[r])
}
for room, fits in ((len(expected), True), (len(expected) - 1, False)):
    plan_.survivors = room
    for module in (filtering, triton_filter):
        found = module.begin(task, plan_)()
        assert (found is not None) == fits
        if fits:
            assert set(zip(*(part.tolist() for part in found))) == expected
            assert len(found[0]) == room
"""

_SPARSE = """
# One pair in each 16 rows: what finds no place in the buffer is a pair that nothing else shows.
rows = torch.zeros(83, 40, dtype=torch.float16)
rows[::16] = 1.0
ones, none = torch.ones(83), torch.zeros(83)
task = filtering.Task(torch.ones(21, 40, dtype=torch.float16), rows, ones[:21] * 40, ones, none)
plan_ = sizes.Sizes(21, 40, 2, 5, 2**26)
plan_.survivors = 21 * 6
query, row = triton_filter.begin(task, plan_)()
expected = [(q, r) for q in range(21) for r in range(0, 83, 16)]
assert sorted(zip(query.tolist(), row.tolist())) == expected
plan_.survivors -= 1
assert triton_filter.begin(task, plan_)() is None
"""

_COMPILED = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from retrieval.search.gpu import triton_dots, triton_filter

def ptx(kernel, types, constants, **options):
    names = [parameter.name for parameter in kernel.params]
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if types[place].startswith("*") or name == "dim"
    }
    source = ASTSource(kernel, dict(zip(names, types)), constants, aligned)
    options["enable_fp_fusion"] = False
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]

types = ["*fp16"] * 2 + ["*fp32"] * 3 + ["*i64"] * 2 + ["i32"] * 4 + ["constexpr"] * 3
tile = {"BLOCK_Q": 128, "BLOCK_N": 256, "BLOCK_D": 64}
code = ptx(triton_filter._kernel, types, tile, num_warps=8, num_stages=3)
assert "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16" in code  # float32 accumulation
assert len(re.findall(r"atom\\.global", code)) == 8  # of a thread, not one a pair
types = ["*fp16"] * 2 + ["*i64"] * 2 + ["*fp64"] * 2 + ["i32"] * 2 + ["constexpr"] * 2
assert "add.rn.f64" in ptx(triton_dots._kernel, types, {"PAIRS": 16, "DIMS": 64})
"""


def run(code, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_kernels_compile_for_hopper_without_one():
    run(_COMPILED)


@pytest.mark.parametrize(
    "case",
    [_SAME, _TIES, _SHAPES, _EXACT, _STRIDES, _FILTER, _SPARSE],
    ids=["same as torch", "overflow", "shapes", "exact kernel", "strides", "filter", "sparse"],
)
def test_interpreted_kernels(case):
    run(_START + case, TRITON_INTERPRET="1")
