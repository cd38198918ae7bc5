"""Indexes of release 0.1.0: every version is read as it was written, and nights go on."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from retrieval.index import (
    EmbeddingSpec,
    UpdateOptions,
    finish,
    index_schema,
    last_check_us,
    open_index,
    plan_update,
    publish,
    read_index,
    read_records,
)
from retrieval.index.compaction import compact
from retrieval.index.gallery_diff import LISTED_SCHEMA
from retrieval.index.history import oldest_readable, read_commits, read_log
from retrieval.index.reading import read_columns
from retrieval.index.rejects import rejects_path
from retrieval.index.staging import read_receipts, read_rejects
from retrieval.maintenance.check import check_index
from retrieval.maintenance.restore import restore_index
from retrieval.maintenance.version_diff import compare_versions
from tests.golden.contents import contents, has_all, hash_of_files, plain_rows

INDEXES = contents("indexes")
VERSIONS = [(name, int(number)) for name in INDEXES for number in INDEXES[name]["versions"]]
NEWEST = max(number for name, number in VERSIONS if name == "index")
COLUMNS = INDEXES["index"]["columns"]


def version_of(name, number):
    return INDEXES[name]["versions"][str(number)]


def spec_of(name):
    return EmbeddingSpec.from_metadata(INDEXES[name]["spec"], name)


def as_rows(index):
    columns = [field.name for field in index_schema(index.spec)]
    assert columns[: len(COLUMNS)] == COLUMNS
    return sorted(plain_rows(read_columns(index, COLUMNS)))


def test_the_golden_files_are_those_that_were_made():
    """A later format gets a folder of its own: this hash is never changed."""
    known = "c39cea2aeca4ec8105727e56195debc82897c114f3f12bebbdce5c6fd49c2e3f"
    assert hash_of_files() == known


def test_the_index_has_all_that_versions_can_differ_by():
    """What the golden files must hold, lest a test below passes by looking at nothing."""
    versions = INDEXES["index"]["versions"]
    runs = [version["run"] for version in versions.values()]
    assert len(versions) > 10
    assert INDEXES["index"]["checkpoints"]
    assert any(run.get("num_moved") for run in runs)
    assert any(run.get("sources") for run in runs)
    assert any("restored_version" in run for run in runs)
    assert all(len(version["rejects"]) > 1 for version in versions.values())
    labels = [{row[0]: row[7] for row in version["rows"]} for version in versions.values()]
    assert any(
        before.get(name) not in (None, label)
        for before, now in pairwise(labels)
        for name, label in now.items()
        if name in before
    )
    assert {record["status"] for record in INDEXES["index"]["records"]} == {
        "committed",
        "unchanged",
    }
    assert {record["status"] for record in INDEXES["gated"]["records"]} == {"committed", "refused"}


@pytest.mark.parametrize(("name", "number"), VERSIONS)
def test_a_version_is_read_as_it_was_written(v1, name, number):
    index, known = open_index(str(v1 / name), number), version_of(name, number)
    assert index.version == number
    assert index.spec == spec_of(name)
    assert index.spec.to_metadata() == INDEXES[name]["spec"]
    shards = [[s.path, s.num_rows, s.size_bytes, s.sha256] for s in index.shards]
    assert shards == known["shards"]
    said = {key: value for key, value in known["run"].items() if key != "commit_id"}
    assert index.run == said
    assert as_rows(index) == known["rows"]
    path = rejects_path(index.run)
    rejects = read_rejects(index.uri, [path] if path else [])
    assert plain_rows(rejects) == known["rejects"][1:]


@pytest.mark.parametrize("name", INDEXES)
def test_arrays_have_the_bits(v1, name):
    found = read_index(str(v1 / name))
    rows = version_of(name, found.index.version)["rows"]
    rows = sorted(rows, key=lambda row: row[0].encode())
    assert found.ids == [row[0] for row in rows]
    assert found.labels == [row[7] for row in rows]
    kind = np.dtype(INDEXES[name]["spec"]["dtype"]).newbyteorder("<")
    for row, vector in zip(rows, found.embeddings, strict=True):
        np.testing.assert_array_equal(vector, np.frombuffer(bytes.fromhex(row[-1]), kind))


@pytest.mark.parametrize("name", INDEXES)
def test_records_of_runs_are_read(v1, name):
    index, known = open_index(str(v1 / name)), INDEXES[name]["records"]
    assert list(read_records(index.uri, 100)) == known[::-1]
    lately = [r["listed_us"] for r in known if r.get("version_after") == index.version]
    assert last_check_us(index) == max([index.run["listed_us"], *lately[-1:]])


def test_the_log_tells_its_history(v1):
    uri, versions = str(v1 / "index"), INDEXES["index"]["versions"]
    log = read_log(uri)
    assert log.entries == tuple(range(NEWEST + 1))
    assert log.checkpoints == tuple(INDEXES["index"]["checkpoints"])
    before = set()
    for commit in read_commits(uri, range(NEWEST + 1)):
        known = versions[str(commit.version)]
        now = {shard[0] for shard in known["shards"]}
        assert commit.shards == now
        assert commit.before(now) == before
        assert commit.run["run_id"] == known["run"]["run_id"]
        assert commit.timestamp_ms is not None
        before = now
    index = open_index(uri)
    assert (
        oldest_readable(index, {shard[0] for v in versions.values() for shard in v["shards"]}) == 0
    )


@pytest.mark.parametrize("name", INDEXES)
def test_the_check_finds_nothing(v1, name):
    index = open_index(str(v1 / name))
    found = check_index(index)
    assert found.faults == []
    rejects = version_of(name, index.version)["rejects"]
    assert found.num_rejected == max(0, len(rejects) - 1)


class Idle:
    """May rewrite rows and tell hashes, and must embed nothing."""

    def __init__(self, uri, spec, hashes=()):
        self.uri, self.spec, self.hashes = uri, spec, dict(hashes)

    def hash_photos(self, photos):
        ids = photos["image_id"].to_pylist()
        hashes = [self.hashes[image_id] for image_id in ids]
        return pa.table({"image_id": ids, "content_sha256": pa.array(hashes, pa.string())})

    def run(self, plan):
        plan.settle(self.hash_photos(plan.to_hash))
        assert plan.to_embed()["image_id"].to_pylist() == []
        return finish(plan, [], [compact(self.uri, self.spec, group) for group in plan.rewrites])


def listing(rows, rejects):
    """The gallery as it was listed when these rows and rejects were written."""
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    if rejects:
        names, *refused = rejects
        found += [dict(zip(names, row, strict=True)) | {"label": None} for row in refused]
    photos = [
        {name: photo[name] for name in LISTED_SCHEMA.names}
        | {"modified_at": datetime.fromisoformat(photo["modified_at"])}
        for photo in found
    ]
    return pa.Table.from_pylist(photos, LISTED_SCHEMA).to_batches()


def next_night(uri, batches, hashes=()):
    seen = open_index(uri)
    options = UpdateOptions(
        run_id="20270101T000000-00000000",
        listed_us=seen.run["listed_us"] + 10**12,
        shard_rows=6,
        settled_us=last_check_us(seen),
    )
    with plan_update(uri, seen, seen.spec, batches, options) as plan:
        return Idle(uri, seen.spec, hashes).run(plan)


@pytest.mark.parametrize("name", INDEXES)
def test_a_night_without_a_change_leaves_the_index_as_it_is(v1, name):
    uri = str(v1 / name)
    index = open_index(uri)
    known = version_of(name, index.version)
    candidate = next_night(uri, listing(known["rows"], known["rejects"]))
    assert candidate.is_unchanged
    assert publish(candidate) == index.version
    assert open_index(uri) == index


def test_a_night_takes_rows_of_the_old_shards_along(v1):
    uri, known = str(v1 / "index"), version_of("index", NEWEST)
    _, moved, *others = known["rows"]
    renamed = ["a new name", "/elsewhere/a new name", *moved[2:]]
    batches = listing([renamed, *others], known["rejects"])
    candidate = next_night(uri, batches, {"a new name": moved[2]})
    assert (candidate.counts.num_moved, candidate.counts.num_embedded) == (1, 0)
    assert publish(candidate) == NEWEST + 1
    index = open_index(uri)
    assert as_rows(index) == sorted([renamed, *others])
    assert index.run["sources"]
    assert check_index(index).faults == []
    for number in range(NEWEST + 1):
        assert as_rows(open_index(uri, number)) == version_of("index", number)["rows"]


def test_a_night_takes_up_what_a_killed_run_has_staged(v1):
    uri = str(v1 / "killed")
    (known,) = contents("waiting")["receipts"].values()
    ours, others = read_receipts(uri, spec_of("killed"))
    assert (len(ours), others) == (1, [])
    receipt = known["receipt"]
    assert has_all(ours[0], {name: receipt[name] for name in receipt if name != "shard"})
    assert has_all(ours[0].shard, receipt["shard"])
    assert plain_rows(read_rejects(uri, [ours[0].rejects])) == known["rejects"][1:]
    before = version_of("killed", 0)["rows"]
    candidate = next_night(uri, listing([*before, *known["rows"]], known["rejects"]))
    assert candidate.counts.num_resumed == len(known["rows"])
    assert (candidate.counts.num_embedded, candidate.counts.num_rejected) == (0, 1)
    assert publish(candidate) == 1
    index = open_index(uri)
    assert as_rows(index) == sorted([*before, *known["rows"]])
    assert known["receipt"]["shard"]["path"] in {shard.path for shard in index.shards}
    assert plain_rows(candidate.rejects) == known["rejects"][1:]
    assert list((v1 / "killed/_staging").iterdir()) == []
    assert check_index(index).faults == []


def test_a_refused_candidate_opens_as_an_index(v1):
    known = contents("waiting")["candidate"]
    found = open_index(str(v1 / "gated/_candidates" / known["name"]))
    said = known["candidate"]
    assert found.version == said["version"]
    assert has_all(found.spec, said["spec"])
    assert all(map(has_all, found.shards, said["shards"]))
    assert len(found.shards) == len(said["shards"])
    assert found.run == said["run"]


def test_the_night_after_takes_a_refused_candidate_without_embedding(v1):
    uri, known = str(v1 / "gated"), contents("waiting")["candidate"]
    (receipt,), _ = read_receipts(uri, spec_of("gated"))
    refused = read_rejects(uri, [receipt.rejects])
    rejects = [refused.column_names, *plain_rows(refused)]
    candidate = next_night(uri, listing(known["rows"], rejects))
    paths = [shard["path"] for shard in known["candidate"]["shards"]]
    assert [shard.path for shard in candidate.index.shards] == paths
    assert publish(candidate) == known["candidate"]["version"]
    assert as_rows(open_index(uri)) == known["rows"]


@pytest.mark.parametrize("number", [0, 2, 9])
def test_an_old_version_can_be_restored(v1, number):
    uri = str(v1 / "index")
    index = restore_index(uri, number)
    assert index.version == NEWEST + 1
    assert as_rows(open_index(uri)) == version_of("index", number)["rows"]
    assert index.run["restored_version"] == number


def test_two_versions_are_compared(v1):
    uri = str(v1 / "index")
    counts = compare_versions(open_index(uri, 0), open_index(uri, NEWEST)).counts
    before, now = ({row[0]: row[2] for row in version_of("index", n)["rows"]} for n in (0, NEWEST))
    moved = {before[name] for name in before.keys() - now} & {
        now[name] for name in now.keys() - before
    }
    assert counts == {
        "added": len(now.keys() - before) - len(moved),
        "removed": len(before.keys() - now) - len(moved),
        "moved": 1,
        "changed": sum(now.get(name, content) != content for name, content in before.items()),
        "relabelled": 1,
    }
