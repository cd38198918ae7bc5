"""What the next version is before it is committed, and in which shards it lies."""

from __future__ import annotations

from dataclasses import replace

from retrieval.index import open_index, publish
from tests.retrieval.night_cases import (
    RefusingExecutor,
    gallery_of,
    ids_by_shard,
    killed_night,
    shards_of,
)
from tests.retrieval.nights import SPEC, check, one_night


def test_a_candidate_is_the_version_that_its_commit_makes(tmp_path):
    gallery, uri = gallery_of(9), str(tmp_path)
    for version in (0, 1):
        gallery.put("bad", b"bad %d" % version)
        candidate = killed_night(uri, gallery, recorded={"photos": "/photos"})
        assert publish(candidate) == candidate.index.version == version
        committed = open_index(uri)
        assert replace(committed, run={}) == replace(candidate.index, run={})
        said = {**candidate.index.run, "rejects": f"_rejects/{candidate.index.run['run_id']}"}
        assert committed.run == said
        assert said["photos"] == "/photos"


def test_another_name_of_the_same_network_renames_nothing(tmp_path):
    gallery, uri = gallery_of(3), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("b", b"something new")
    one_night(uri, gallery, replace(SPEC, weights="copy.safetensors"))
    check(uri, gallery)
    assert open_index(uri).spec == SPEC


def test_a_new_version_says_which_live_shards_its_rewritten_ones_are_made_of(tmp_path):
    """Of shards with photos 0 to 3, 4 to 7 and 8 and 9, and of the next night's 10 and 11."""
    gallery, uri = gallery_of(10), str(tmp_path)
    one_night(uri, gallery)
    for number in (10, 11):
        gallery.put(f"a/{number}", b"photo %d" % number)
    killed_night(uri, gallery)
    gallery.put("a/12", b"photo 12")
    for number in (0, 8, 11):
        del gallery.photos[f"a/{number:02d}"]
    gallery.move("a/09", "b")
    old = ids_by_shard(uri, shards_of(uri))
    one_night(uri, gallery)
    check(uri, gallery)
    new = ids_by_shard(uri, shards_of(uri))
    sources = open_index(uri).run["sources"]
    assert {new[made]: [old[path] for path in paths] for made, paths in sources.items()} == {
        ("a/01", "a/02", "a/03"): [("a/00", "a/01", "a/02", "a/03")]
    }
    # Those that stay, and what was staged, moved or embedded, come from no live shard.
    others = [("a/04", "a/05", "a/06", "a/07"), ("a/10",), ("a/12",), ("b",)]
    assert sorted(new[path] for path in new.keys() - sources.keys()) == others


def test_small_live_shards_are_joined_in_their_order_by_a_night_that_commits(tmp_path):
    gallery, uri = gallery_of(1), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("b", b"second")
    one_night(uri, gallery)
    before = sorted(shards_of(uri))
    gallery.put("c", b"third!!")
    one_night(uri, gallery)
    check(uri, gallery)
    assert sorted(shards_of(uri).values()) == [1, 2]
    assert list(open_index(uri).run["sources"].values()) == [before]


def test_a_renamed_class_is_cut_into_shards_that_are_not_too_large(tmp_path):
    gallery, uri = gallery_of(12), str(tmp_path)
    one_night(uri, gallery)
    for name in sorted(gallery.photos):
        gallery.move(name, name.replace("a/", "b/"))
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert (executor.embedded, candidate.counts.num_moved) == ([], 12)
    assert list(shards_of(uri).values()) == [4, 4, 4]


def test_refusals_of_two_nights_are_the_same_in_whichever_order_they_come(tmp_path):
    gallery, uri = gallery_of(2), str(tmp_path)
    gallery.put("z", b"bad")
    one_night(uri, gallery)
    gallery.put("0", b"new photo")
    for is_unchanged in (False, True):  # "0" is tried each night, "z" is not
        executor = RefusingExecutor(uri, gallery)
        executor.reason = "missing"
        candidate = killed_night(uri, gallery, executor)
        assert candidate.rejects["image_id"].to_pylist() == ["0", "z"]
        assert candidate.is_unchanged == is_unchanged
        publish(candidate)
