"""What an index is, as an object and as JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from retrieval.maintenance import describe_index
from retrieval.maintenance.status import LogSize, ReadableVersions, RejectCounts, ShardSizes
from tests.pipelines.care_case import make_gallery


def test_an_index_is_described_by_attributes_that_are_the_keys_of_its_json(tmp_path):
    uri = str(make_gallery(tmp_path / "gallery"))
    found = describe_index(f"{uri}@1")
    assert (found.index, found.version, found.rows) == (uri, 1, 12)
    assert found.shards == ShardSizes(3, 4, 4, 4)
    assert found.rejects == RejectCounts(2, {"truncated": 2})
    assert found.readable == ReadableVersions(newest=2, oldest=0, num_versions=3)
    assert found.log == LogSize(3, found.log.bytes)
    assert [run["version"] for run in found.runs] == [1, 0]
    with pytest.raises(FrozenInstanceError):
        found.rows = 3
    said = found.to_json()
    assert list(said) == [
        "index", "version", "rows", "bytes", "shards", "model", "rejects", "in_progress",
        "readable", "log", "runs", "records",
    ]  # fmt: skip
    assert list(said["shards"]) == ["num", "smallest_rows", "median_rows", "largest_rows"]
    assert list(said["model"])[:2] == ["fingerprint", "backbone"]
    assert said["rejects"] == {"num": 2, "reasons": {"truncated": 2}}
    assert list(said["in_progress"]) == ["num_receipts", "num_shards", "num_rows"]
    assert json.loads(json.dumps(said)) == said


def test_rejects_that_cannot_be_read_are_said(tmp_path):
    uri = make_gallery(tmp_path / "gallery")
    for part in (uri / "_rejects").rglob("*.parquet"):
        part.write_bytes(b"torn")
    found = describe_index(f"{uri}@1")
    assert found.rejects.num is None
    assert list(found.to_json()["rejects"]) == ["num", "error"]
