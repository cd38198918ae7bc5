"""Damage to the files of rejects: see `tests.damage`."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from retrieval.index import commit_index, open_index
from retrieval.index.rejects import reject_tables
from retrieval.index.staging import INDEX_REJECT_SCHEMA, write_rejects
from tests.conftest import make_index
from tests.damage import Target, count_outcomes

NAMES = INDEX_REJECT_SCHEMA.names


def make_rejects(folder):
    index = make_index(folder / "ix", ["a"], np.ones((1, 4), np.float16))
    when = datetime(2026, 1, 2, tzinfo=UTC)
    rows = [(f"b{n}.jpg", f"/p/b{n}.jpg", "truncated", "ends early", n, when) for n in range(9)]
    table = pa.Table.from_pylist(
        [dict(zip(NAMES, row, strict=True)) for row in rows], schema=INDEX_REJECT_SCHEMA
    )
    path = write_rejects(index.uri, "0123456789ab", table)
    run = {"rejects": path, "run_id": "0123456789ab", "num_rejected": 9}
    commit_index(index.uri, index.spec, index.shards, run=run, seen_version=index.version)
    (file,) = (folder / "ix" / path).iterdir()
    return file


def read_all(folder):
    return [table.to_pylist() for table in reject_tables(open_index(str(folder / "ix")), NAMES)]


def read_some(folder):
    tables = reject_tables(open_index(str(folder / "ix")), ["reason", "image_id"])
    return [sorted(table["image_id"].to_pylist()) for table in tables]


TARGETS = [
    Target("rejects", make_rejects, read_all),
    Target("rejects, two columns", make_rejects, read_some),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_rejects_are_read_right_or_refused(tmp_path, target):
    counts = count_outcomes(target, tmp_path, seed=1, number=100)
    assert min(counts["right"], counts["refused"]) > 10
