"""A night makes the index what the gallery is, does only what changed, and loses nothing."""

from __future__ import annotations

import random
from dataclasses import asdict, replace

import pytest

from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.index import open_index, publish, read_index
from retrieval.storage import list_files
from tests.conftest import make_spec
from tests.retrieval.nights import SPEC, Gallery, LoopExecutor, begin, check, one_night, rows_of


@pytest.fixture
def gallery():
    """Ten photos in two folders, one of which is bad, and one outside of any."""
    gallery = Gallery()
    for number in range(8):
        gallery.put(f"{number % 2}/{number}", b"photo %d" % number)
    gallery.put("1/broken", b"bad content")
    gallery.put("alone", b"no folder")
    return gallery


def counts(candidate):
    """The counts that are not zero, without the prefix."""
    return {
        name.removeprefix("num_"): value
        for name, value in asdict(candidate.counts).items()
        if name.startswith("num_") and value
    }


def test_the_first_night_embeds_all(tmp_path, gallery):
    executor, candidate = one_night(str(tmp_path), gallery)
    check(str(tmp_path), gallery)
    assert len(executor.embedded) == 10
    assert executor.hashed == []
    expected = {"listed": 10, "embedded": 9, "rejected": 1, "rejected_now": 1, "unlabelled": 1}
    assert counts(candidate) == expected


def test_a_night_without_a_change_reads_no_photo_and_commits_nothing(tmp_path, gallery):
    one_night(str(tmp_path), gallery)
    executor, candidate = one_night(str(tmp_path), gallery)
    assert (executor.embedded, executor.hashed) == ([], [])
    assert candidate.is_unchanged
    assert open_index(str(tmp_path)).version == 0
    assert counts(candidate) == {"listed": 10, "unchanged": 9, "rejected": 1, "unlabelled": 1}


def test_only_what_changed_is_embedded(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    gallery.put("0/new", b"something new")
    gallery.put("0/2", b"photo 2, edited")
    del gallery.photos["1/3"]
    gallery.move("0/4", "1/renamed")
    gallery.touch("1/5")
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert sorted(executor.embedded) == ["0/2", "0/new"]
    # 1/renamed and 1/5 alone could be photos that are known; 0/new has a size of its own.
    assert sorted(executor.hashed) == ["1/5", "1/renamed"]
    expected = {"listed": 10, "embedded": 2, "removed": 1, "moved": 1, "unchanged": 6}
    assert counts(candidate) == {**expected, "rejected": 1, "unlabelled": 1}


def test_a_renamed_class_keeps_all_its_embeddings(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    for name in [name for name in gallery.photos if name.startswith("1/")]:
        gallery.move(name, name.replace("1/", "one/"))
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert executor.embedded == ["one/broken"]  # there is no embedding of it to keep
    assert counts(candidate)["moved"] == 4


def test_photos_that_change_places_keep_their_embeddings(tmp_path):
    """The content of each is at another id, of equal size and with the times exchanged."""
    gallery, uri = Gallery(), str(tmp_path)
    for name, content in {"a": b"first", "b": b"other", "c": b"third"}.items():
        gallery.put(name, content)
    one_night(uri, gallery)
    a, b, c = (gallery.photos[name] for name in "abc")
    gallery.photos = {"a": b, "b": c, "c": a}
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert executor.embedded == []
    assert counts(candidate)["moved"] == 3


def test_a_photo_that_has_become_bad_is_rejected_and_one_that_was_mended_comes_back(
    tmp_path, gallery
):
    uri = str(tmp_path)
    one_night(uri, gallery)
    gallery.put("0/0", b"bad now")
    gallery.put("1/broken", b"mended")
    one_night(uri, gallery)
    check(uri, gallery)
    executor, _ = one_night(uri, gallery)
    assert executor.embedded == []


def test_rejects_are_tried_again_when_asked(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    executor, candidate = one_night(uri, gallery, retry_rejects=True)
    assert executor.embedded == ["1/broken"]
    assert candidate.is_unchanged


def test_a_reject_that_has_changed_is_tried_once(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    gallery.put("1/broken", b"bad in another way")
    executor, candidate = one_night(uri, gallery)
    assert (executor.embedded, candidate.is_unchanged) == (["1/broken"], False)
    executor, candidate = one_night(uri, gallery)
    assert (executor.embedded, candidate.is_unchanged) == ([], True)


def test_a_change_within_a_tick_of_the_last_listing_is_found_by_its_content(tmp_path, gallery):
    """Same size and same time: only the moment tells that there is reason to look."""
    uri = str(tmp_path)
    executor = LoopExecutor(uri, gallery)
    publish(begin(uri, gallery, executor))  # listed at the very moment of the last change
    content, changed_at = gallery.photos["alone"]
    gallery.photos["alone"] = (b"NO FOLDER", changed_at)
    assert len(content) == len(b"NO FOLDER")
    executor, _ = one_night(uri, gallery)
    check(uri, gallery)
    assert executor.embedded == ["1/broken", "alone"]  # the reject is as young
    executor, _ = one_night(uri, gallery)
    assert (executor.embedded, executor.hashed) == ([], [])


def test_content_decides_alone_when_asked(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    content, changed_at = gallery.photos["0/6"]
    gallery.photos["0/6"] = (content.upper(), changed_at)  # by somebody who sets the time back
    executor, candidate = one_night(uri, gallery)
    assert (executor.embedded, candidate.is_unchanged) == ([], True)
    executor, _ = one_night(uri, gallery, by_content=True)
    check(uri, gallery)
    assert executor.embedded == ["0/6", "1/broken"]
    assert len(executor.hashed) == 9


def test_another_model_embeds_all_and_the_old_version_stays_readable(tmp_path, gallery):
    uri, other = str(tmp_path), make_spec(3, fingerprint="another")
    one_night(uri, gallery)
    before = rows_of(uri, 0)
    executor, candidate = one_night(uri, gallery, other)
    check(uri, gallery, other)
    assert len(executor.embedded) == 10
    assert counts(candidate)["embedded"] == 9
    assert rows_of(uri, 0) == before
    assert read_index(uri, 0).index.spec.fingerprint == SPEC.fingerprint


def test_another_name_of_the_same_network_is_no_other_model(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    executor, candidate = one_night(uri, gallery, replace(SPEC, weights="copy.safetensors"))
    assert (executor.embedded, candidate.is_unchanged) == ([], True)


def test_an_id_twice_is_refused(tmp_path, gallery):
    class Twice(Gallery):
        def listed(self):
            yield from super().listed()
            yield from super().listed()

    with pytest.raises(UsageError, match=r"^'0/0': two photos are listed with this id\."):
        one_night(str(tmp_path), Twice(gallery.photos))


def test_the_second_of_two_nights_fails_and_its_work_is_not_lost(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    gallery.put("0/new", b"new photo")
    first, second = LoopExecutor(uri, gallery), LoopExecutor(uri, gallery)
    candidates = [begin(uri, gallery, executor) for executor in (first, second)]
    assert publish(candidates[0]) == 1
    with pytest.raises(MismatchError, match="another run has committed version 1 meanwhile"):
        publish(candidates[1])
    check(uri, gallery)
    executor, _ = one_night(uri, gallery)
    assert executor.embedded == []
    assert not list_files(f"{uri}/_staging")


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 12))]
)
def test_a_fortnight_of_random_nights_is_the_gallery_each_morning(tmp_path, seed):
    """Against a plain dictionary; and the rows are those of an index made from nothing."""
    numbers, gallery, uri = random.Random(seed), Gallery(), str(tmp_path / "index")
    for number in range(12):
        gallery.put(f"{number % 4}/{number}", b"photo %d" % number)
    for _ in range(14):
        executor, _ = one_night(uri, gallery)
        check(uri, gallery)
        before = open_index(uri).version
        gallery.change(numbers)
        embedded_at_most = sum(at[1] > gallery.now_us - 10**9 for at in gallery.photos.values())
        executor, candidate = one_night(uri, gallery)
        check(uri, gallery)
        assert candidate.is_unchanged == (open_index(uri).version == before)
        assert len(executor.embedded) <= max(embedded_at_most, 5)
    scratch = str(tmp_path / "scratch")
    one_night(scratch, gallery)

    def by_id(row):
        return row["image_id"]

    assert sorted(rows_of(uri), key=by_id) == sorted(rows_of(scratch), key=by_id)
    sizes = sorted(shard.num_rows for shard in open_index(uri).shards)
    assert sum(size < 2 for size in sizes) <= 2  # small shards are joined


def test_a_damaged_shard_stops_the_night_and_heal_embeds_again_what_it_held(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    shards = open_index(uri).shards
    damaged = tmp_path / shards[0].path
    content = damaged.read_bytes()
    damaged.write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])
    gallery.put("0/new", b"something new")
    with pytest.raises(IndexFormatError) as failed:
        one_night(uri, gallery)
    assert str(failed.value).startswith(f"{damaged}: this shard cannot be read (")
    assert str(failed.value).endswith("embed with `heal` what it held.")
    assert open_index(uri).version == 0
    executor, _ = one_night(uri, gallery, heal=True)
    check(uri, gallery)
    assert len(executor.embedded) == shards[0].num_rows + 1
    executor, candidate = one_night(uri, gallery, heal=True)
    assert (executor.embedded, candidate.is_unchanged) == ([], True)


def test_a_shard_that_is_gone_is_damaged_too(tmp_path, gallery):
    uri = str(tmp_path)
    one_night(uri, gallery)
    shard = open_index(uri).shards[1]
    (tmp_path / shard.path).unlink()
    with pytest.raises(IndexFormatError, match="this shard cannot be read"):
        one_night(uri, gallery)
    executor, _ = one_night(uri, gallery, heal=True)
    check(uri, gallery)
    assert len(executor.embedded) == shard.num_rows
