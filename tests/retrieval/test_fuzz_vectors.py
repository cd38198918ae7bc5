"""Damage to pairs of .npy and Parquet files: see `tests.damage`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.vectors import open_source, read_blocks
from tests.damage import Target, count_outcomes

VECTORS = np.random.default_rng(7).normal(size=(50, 6))


def make_pair(version, order):
    def make(folder):
        folder.mkdir()
        pq.write_table(pa.table({"id": [f"g{n}" for n in range(50)]}), folder / "x.parquet")
        with (folder / "x.npy").open("wb") as file:
            vectors = VECTORS.astype(np.dtype("f4").newbyteorder(order))
            np.lib.format.write_array(file, vectors, version=version)
        return folder / "x.npy"

    return make


def read_rows(folder):
    """Number of rows and dimensions: a flipped bit of a vector cannot be told from a vector."""
    opened = open_source(str(folder))
    blocks = [block for file in opened.files for block in read_blocks(opened, file, 16)]
    return [(len(block.ids), *block.vectors.shape, opened.dtype) for block in blocks]


TARGETS = [
    Target("npy 1.0", make_pair((1, 0), "<"), read_rows),
    Target("npy 2.0", make_pair((2, 0), ">"), read_rows),
    Target("npy 3.0", make_pair((3, 0), "<"), read_rows),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_pair_is_read_right_or_refused(tmp_path, target):
    counts = count_outcomes(target, tmp_path / "whole", seed=1, number=150)
    assert min(counts["right"], counts["refused"]) > 10
