"""The commands that care for an index, and versions by name where an index is ranked."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from pipelines import rank
from retrieval.errors import MismatchError
from retrieval.evaluation import evaluate
from retrieval.index import open_index, read_index
from retrieval.index.staging import INDEX_REJECT_SCHEMA, stage
from retrieval.ranking.verification import verify
from retrieval.storage import remove_file
from tests.conftest import make_spec
from tests.pipelines.care_case import error_of, make_gallery, make_queries, report_of, some
from tests.retrieval.ranks import rows_of
from tests.versions import (
    DAY_S,
    commit,
    date_commit,
    date_file,
    entry,
)
from tests.versions import rows_of as index_rows


@pytest.fixture
def gallery(tmp_path):
    return make_gallery(tmp_path / "gallery")


@pytest.fixture
def queries(tmp_path):
    return make_queries(tmp_path / "queries")


def test_status_tells_what_is_there_and_what_the_last_runs_did(gallery):
    report = report_of("status", gallery)
    index = open_index(str(gallery))
    log = gallery / "_delta_log"
    assert report == {
        "index": str(gallery),
        "version": 2,
        "rows": 11,
        "bytes": sum((gallery / shard.path).stat().st_size for shard in index.shards),
        "shards": {"num": 3, "smallest_rows": 3, "median_rows": 4, "largest_rows": 4},
        "model": {
            "fingerprint": "f" * 64, "backbone": "fake", "weights": "none", "dim": 2,
            "dtype": "float16", "normalised": True,
        },
        "rejects": {"num": 0, "reasons": {}},
        "in_progress": {"num_receipts": 0, "num_shards": 0, "num_rows": 0},
        "readable": {"newest": 2, "oldest": 0, "num_versions": 3},
        "log": {"entries": 3, "bytes": sum(path.stat().st_size for path in log.iterdir())},
        "runs": report["runs"],
        "records": [],
    }  # fmt: skip
    newest, middle, first = report["runs"]
    assert newest.pop("created_at").endswith("Z")  # when the commit was made
    assert newest == {"version": 2, "run_id": "c", "num_listed": 11}
    assert (middle["version"], middle["num_rejected"]) == (1, 2)
    assert first == {
        "version": 0, "run_id": "a", "created_at": "2026-01-01", "num_listed": 8,
        "num_embedded": 8,
    }  # fmt: skip


def test_status_of_an_older_version(gallery):
    report = report_of("status", f"{gallery}@1")
    assert (report["version"], report["rows"], report["index"]) == (1, 12, str(gallery))
    assert report["rejects"] == {"num": 2, "reasons": {"truncated": 2}}
    assert [each["version"] for each in report["runs"]] == [1, 0]
    assert report["readable"]["newest"] == 2


def test_status_tells_of_the_last_ten_runs_and_reads_no_other_record(gallery, monkeypatch):
    shards = open_index(str(gallery)).shards
    for number in range(3, 15):
        commit(gallery, shards[: 1 + number % 2], run_id=f"r{number}")
    from retrieval.index import history

    read = []
    keep = history.read_commit
    monkeypatch.setattr(
        history, "read_commit", lambda uri, version: read.append(version) or keep(uri, version)
    )
    report = report_of("status", gallery)
    assert [each["version"] for each in report["runs"]] == list(range(14, 4, -1)) == read
    assert report["readable"]["num_versions"] == 15


def test_status_counts_work_in_progress(gallery):
    none = pa.table({name: [] for name in INDEX_REJECT_SCHEMA.names}).cast(INDEX_REJECT_SCHEMA)
    staged = [
        stage(str(gallery), make_spec(2), ("night", 1), index_rows(photos), none)
        for photos in ({"s1": "1", "s2": "2"}, {"s3": "3"})
    ]
    live = open_index(str(gallery)).shards
    commit(gallery, [*live, staged[1].shard])
    (gallery / "_staging" / "half.json").write_text("{")
    report = report_of("status", gallery)
    assert report["in_progress"] == {"num_receipts": 3, "num_shards": 1, "num_rows": 2}


def test_status_survives_damage_that_it_can_tell_of(gallery):
    (gallery / "_rejects" / "b" / "part-0.parquet").write_bytes(b"no Parquet")
    (gallery / open_index(str(gallery), 1).shards[0].path).unlink()
    report = report_of("status", f"{gallery}@1")
    assert report["rejects"]["num"] is None
    assert "part-0.parquet: these rejects cannot be read" in report["rejects"]["error"]
    assert report["readable"]["num_versions"] < 3


def test_a_named_version_is_ranked_recorded_verified_and_measured(gallery, queries, tmp_path):
    ranking = tmp_path / "ranking"
    report = report_of("rank", f"{queries}@0", f"{gallery}@1", ranking, "--top-k", 3)
    facts = json.loads((ranking / "_ranking.json").read_text())
    for side, path, version in (("queries", queries, 0), ("gallery", gallery, 1)):
        assert (facts[side]["uri"], facts[side]["version"]) == (str(path), version)
    assert report["num_gallery"] == 12
    assert verify.run(str(ranking))["is_exact"]
    named = evaluate(str(ranking), f"{queries}@0", f"{gallery}@1")
    assert named == evaluate(str(ranking), str(queries), str(gallery))
    assert named.top[1] == 1.0
    with pytest.raises(MismatchError, match="which is not among the gallery"):
        evaluate(str(ranking), str(queries), f"{gallery}@0")


def test_a_ranking_of_a_named_version_is_gone_on_from(gallery, queries, tmp_path):
    settings = {"top_k": 3, "num_threads": 1}
    names = [str(tmp_path / name) for name in ("first", "onwards", "anew")]
    rank.run(str(queries), f"{gallery}@0", names[0], rank.RankConfig(**settings))
    onwards = rank.RankConfig(**settings, previous=names[0])
    report = rank.run(f"{queries}@0", f"{gallery}@1", names[1], onwards)
    assert report["num_spared_queries"] == 3
    rank.run(str(queries), f"{gallery}@1", names[2], rank.RankConfig(**settings))
    assert rows_of(names[1]) == rows_of(names[2])


def test_verify_passes_a_sound_index_and_any_version_of_it(gallery):
    assert report_of("verify", gallery) == {
        "index": str(gallery), "version": 2, "rows": 11, "num_shards": 3, "num_rejected": 0,
        "is_sound": True,
    }  # fmt: skip
    assert report_of("verify", f"{gallery}@1")["num_rejected"] == 2


def test_verify_names_each_fault_and_ends_with_the_first(gallery):
    index = open_index(str(gallery))
    for shard in index.shards[:2]:
        remove_file(f"{gallery}/{shard.path}")
    faults = [
        f"{gallery}/{shard.path}: cannot be read (No such file or directory)."
        for shard in index.shards[:2]
    ]
    assert error_of("verify", gallery).splitlines() == [
        *faults,
        f"Error: {gallery}: version 2 has 2 faults: {faults[0]} Go back to a sound version: "
        f"retrieval-cli restore {gallery} VERSION",
    ]
    assert "--seed is for rankings" in error_of("verify", gallery, "--seed", 0, code=2)


def test_verify_still_proves_a_ranking(gallery, queries, tmp_path):
    report_of("rank", queries, gallery, tmp_path / "r#1", "--top-k", 2)
    report = report_of("verify", tmp_path / "r#1", "--sample", 2)
    assert (report["is_exact"], report["sample"]) == (True, 2)
    assert "no finished ranking there" in error_of("verify", tmp_path)


def test_restore_goes_back_and_diff_agrees(gallery):
    report = report_of("restore", gallery, 0)
    assert (report["version"], report["restored_version"], report["rows"]) == (3, 0, 8)
    assert sorted(read_index(str(gallery)).ids) == sorted(some(*range(8)))
    assert sum(report_of("diff", gallery, 0, 3)["counts"].values()) == 0
    assert report_of("status", gallery)["runs"][0]["restored_version"] == 0
    assert report_of("verify", gallery)["is_sound"]
    assert error_of("restore", gallery, 3).endswith("is the newest already. Name an older one.")
    for arguments in ((), (0, "--torn")):
        assert "one of the two" in error_of("restore", gallery, *arguments, code=2)


def test_restore_sets_a_torn_entry_aside(gallery):
    message = f"Error: {gallery}: no torn entry in its log, so there is none to set aside."
    assert error_of("restore", gallery, "--torn") == message
    entry(gallery, 2).write_bytes(b"")
    assert "--torn" in error_of("status", gallery)
    assert report_of("restore", gallery, "--torn") == {"index": str(gallery), "version": 1}
    assert open_index(str(gallery)).num_rows == 12


def test_vacuum_tells_first_and_then_removes(gallery):
    # The command takes the time from the clock, so that the files are made old instead.
    from time import time

    for version in range(3):
        date_commit(gallery, version, time() - (30 - version) * DAY_S)
    for path in gallery.rglob("*.parquet"):
        date_file(path, time() - 40 * DAY_S)
    before = sorted(gallery.rglob("*"))
    dry = report_of("vacuum", gallery, "--dry-run")
    assert sorted(gallery.rglob("*")) == before
    report = report_of("vacuum", gallery, "--keep-days", 7)
    assert report == {**dry, "dry_run": False}
    assert report["removed"]["shards"]["files"] == 1
    assert report["removed"]["rejects"]["files"] == 1
    assert (report["version"], report["oldest_readable"], report["keep_days"]) == (2, 2, 7)
    assert report_of("verify", gallery)["is_sound"]
    assert "cannot be restored" in error_of("restore", gallery, 1)
    assert (
        report_of("status", gallery)["readable"]["num_versions"] == 2
    )  # and that which the vacuum made
    assert "--force" in error_of("vacuum", gallery, "--keep-days", 0)
    assert report_of("vacuum", gallery, "--keep-days", 0, "--force")["removed"]["shards"] == {
        "files": 0, "bytes": 0,
    }  # fmt: skip
