"""Rankings of release 0.1.0: read as they were written, and found again bit by bit."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from retrieval.ranking.files import RANKING_SCHEMA, open_ranking, read_parts
from retrieval.ranking.verification import (
    BruteForce,
    IdCounter,
    check_counts,
    check_repeats,
    compare,
    read_listing,
    relative_tolerance,
)
from retrieval.search import top_k
from retrieval.vectors import VectorBlock, VectorColumns, open_source, read_blocks
from tests.golden.contents import MADE_AT, contents

RANKINGS = contents("rankings")
METRICS = {"cosine", "ip", "l2", "l1", "minkowski:3"}
SIDES = ("queries", "gallery")


def rows_of(ranking):
    return [list(row.values()) for table in read_parts(ranking) for row in table.to_pylist()]


def source_of(v1, manifest, side):
    """What was ranked, where it lies now."""
    ranked = manifest[side]
    assert ranked["uri"].startswith(f"{MADE_AT}/")
    columns = VectorColumns(ranked["id_column"] or None, ranked["vector_column"] or None)
    place = str(v1) + ranked["uri"].removeprefix(MADE_AT)
    return open_source(place, columns, version=ranked["version"])


def blocks_of(source):
    for file in source.files:
        yield from read_blocks(source, file, 7)


def whole(source):
    blocks = list(blocks_of(source))
    ids = np.concatenate([block.ids for block in blocks])
    order = np.argsort(ids)
    return VectorBlock(ids[order], np.concatenate([block.vectors for block in blocks])[order])


def test_the_rankings_are_of_all_metrics_and_kinds():
    """What the golden files must hold, lest a test below passes by looking at nothing."""
    manifests = [known["manifest"] for known in RANKINGS.values()]
    of_dtype = {
        dtype: {m["metric"] for m in manifests if m["gallery"]["dtype"] == dtype}
        for dtype in ("float16", "float32")
    }
    assert of_dtype == {"float16": METRICS, "float32": {"cosine", "ip"}}
    assert {m["metric"] for m in manifests if m["gallery"]["version"] is not None} == METRICS
    for kind in ("exclude_self", "is_complete", "previous"):
        assert {bool(m[kind]) for m in manifests} == {True, False}
    assert all(m["certificate"] for m in manifests)


@pytest.mark.parametrize("name", RANKINGS)
def test_a_ranking_is_read_as_it_was_written(v1, name):
    known = RANKINGS[name]
    ranking = open_ranking(str(v1 / "rankings" / name))
    found = {**ranking.facts, "parts": list(ranking.parts)}
    assert {key: found[key] for key in known["manifest"]} == known["manifest"]
    assert all(table.schema == RANKING_SCHEMA for table in read_parts(ranking))
    found = [[query, rank, row, score.hex()] for query, rank, row, score in rows_of(ranking)]
    assert found == known["rows"]


@pytest.mark.parametrize("name", RANKINGS)
def test_it_is_found_again(v1, name):
    """The search of today, over the golden vectors: the same ids, and the bits of the scores."""
    manifest, rows = RANKINGS[name]["manifest"], RANKINGS[name]["rows"]
    queries, gallery = (source_of(v1, manifest, side) for side in SIDES)
    block = whole(queries)
    found = top_k(
        block,
        blocks_of(gallery),
        manifest["top_k"],
        manifest["metric"],
        exclude_self=manifest["exclude_self"],
    )
    queries_found = [block.ids[number].decode() for number in found.query]
    assert queries_found == [row[0] for row in rows]
    assert [name.decode() for name in found.ids.tolist()] == [row[2] for row in rows]
    scores = np.array([float.fromhex(row[3]) for row in rows])
    tolerance = relative_tolerance(manifest["metric"], gallery.dim)  # 0 but for powers
    np.testing.assert_allclose(found.scores, scores, rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", RANKINGS)
def test_it_is_verified(v1, name):
    ranking = open_ranking(str(v1 / "rankings" / name))
    facts = ranking.facts
    metric, exclude_self = facts["metric"], facts["exclude_self"]
    queries, gallery = (source_of(v1, facts, side) for side in SIDES)
    block = whole(queries)
    listing = read_listing(ranking, block.ids, block.ids, metric, exclude_self=exclude_self)
    tolerance = relative_tolerance(metric, gallery.dim)
    listed = listing.sample if tolerance else None
    search = BruteForce(block, facts["top_k"], metric, exclude_self=exclude_self, listed=listed)
    own, repeated = IdCounter(block.ids), IdCounter(listing.repeated_ids)
    for each in blocks_of(gallery):
        search.add(each)
        own.add(each.ids)
        repeated.add(each.ids)
    available = gallery.num_rows - exclude_self * own.counts(block.ids)
    check_counts(listing, facts["top_k"], available)
    check_repeats(listing, repeated)
    compare(
        ranking.uri,
        block.ids,
        listing.sample,
        search.nearest(),
        tolerance=tolerance,
        scored=search.scores_of_listed(),
    )


@pytest.mark.parametrize("name", RANKINGS)
def test_the_hash_of_an_index_is_that_of_its_shards_where_they_lay(v1, name):
    """Of version 1: the absolute name and the rows of each shard, in the order of their names."""
    manifest = RANKINGS[name]["manifest"]
    for side in SIDES:
        source, ranked = source_of(v1, manifest, side), manifest[side]
        if ranked["version"] is None:
            assert ranked["shards_sha256"] is None
            continue
        files = [[file.uri.replace(str(v1), MADE_AT, 1), file.num_rows] for file in source.files]
        assert hashlib.sha256(json.dumps(files).encode()).hexdigest() == ranked["shards_sha256"]
