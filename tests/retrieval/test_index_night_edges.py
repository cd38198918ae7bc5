"""Nights after which something was left, or whose executor do not do what they should."""

from __future__ import annotations

from contextlib import suppress

import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, RetrievalError, StorageError
from retrieval.images import Reason
from retrieval.index import publish
from retrieval.storage import DAMAGED_PARQUET, list_files
from tests.conftest import make_spec
from tests.retrieval.night_cases import RefusingExecutor, gallery_of, killed_night, shards_of
from tests.retrieval.nights import DAY_US, LoopExecutor, begin, check, one_night


def flip(path, place):
    """Damage a byte of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def flip_silently(path, name):
    """Damage a column so that only its checksum tells."""
    chunks = pq.read_metadata(path).row_group(0)
    (chunk,) = [
        chunks.column(number)
        for number in range(chunks.num_columns)
        if chunks.column(number).path_in_schema == name
    ]
    end = chunk.data_page_offset + chunk.total_compressed_size
    before = pq.read_table(path, columns=[name])
    for place in range(end - 1, chunk.data_page_offset, -1):
        flip(path, place)
        with suppress(*DAMAGED_PARQUET):
            if pq.read_table(path, columns=[name]) != before:
                return
        flip(path, place)
    raise AssertionError("no such byte")


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("is_killed", [False, True])
def test_what_may_have_passed_by_tomorrow_is_tried_again_and_nothing_else(
    tmp_path, reason, is_killed
):
    gallery, uri = gallery_of(2), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("b", b"new photo")
    executor = RefusingExecutor(uri, gallery)
    executor.reason = str(reason)
    candidate = killed_night(uri, gallery, executor)
    assert candidate.counts.reject_reasons == {str(reason): 1}
    if not is_killed:
        publish(candidate)
    executor, candidate = one_night(uri, gallery)
    is_passing = reason in ("missing", "unreadable")
    assert executor.embedded == (["b"] if is_passing else [])
    assert candidate.counts.num_rejected == (0 if is_passing else 1)


def test_a_photo_that_is_neither_embedded_nor_refused_ends_the_night(tmp_path):
    class Losing(LoopExecutor):
        def embed(self, photos, options):
            return super().embed(photos.slice(1), options)

    gallery, uri = gallery_of(3), str(tmp_path)
    with pytest.raises(RetrievalError) as error:
        begin(uri, gallery, Losing(uri, gallery))
    assert str(error.value) == (
        "3 photos were to be embedded, but 2 are and 0 were refused. This is a defect of the job; "
        "nothing was committed."
    )


def test_a_photo_that_is_embedded_twice_ends_the_night(tmp_path):
    class Doubling(LoopExecutor):
        def embed(self, photos, options):
            return [*super().embed(photos, options), *super().embed(photos.slice(0, 1), options)]

    gallery, uri = gallery_of(3), str(tmp_path)
    with pytest.raises(RetrievalError, match=r"^3 photos were to be embedded, but 4 are"):
        begin(uri, gallery, Doubling(uri, gallery))


def test_a_first_night_that_was_killed_is_resumed(tmp_path):
    gallery, uri = gallery_of(6), str(tmp_path)
    gallery.put("bad", b"bad")
    killed_night(uri, gallery)
    gallery.put("new", b"one more")
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert (executor.embedded, executor.hashed) == (["new"], [])
    assert {name: getattr(candidate.counts, name) for name in ("num_resumed", "num_embedded")} == {
        "num_resumed": 6,
        "num_embedded": 1,
    }
    assert candidate.counts.num_unchanged == candidate.counts.num_rejected_now == 0
    assert list_files(f"{uri}/_staging") == []


def test_the_work_of_a_killed_night_is_as_settled_as_its_own_listing(tmp_path):
    """Photos changed a second before it listed may have changed again since; earlier ones not."""
    gallery, uri = gallery_of(2), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("early", b"early")
    gallery.put("early bad", b"bad, early")
    gallery.now_us += DAY_US - 1_000_000
    gallery.put("late", b"late")
    gallery.photos["late bad"] = (b"bad", gallery.now_us)
    gallery.now_us += 1_000_000
    begin(uri, gallery, LoopExecutor(uri, gallery))
    gallery.photos["late"] = (b"LATE", gallery.photos["late"][1])
    gallery.photos["late bad"] = (b"not", gallery.photos["late bad"][1])
    executor, _ = one_night(uri, gallery)
    check(uri, gallery)
    assert (executor.embedded, executor.hashed) == (["late", "late bad"], ["late"])


def test_work_of_another_model_is_taken_away_by_a_commit(tmp_path):
    gallery, uri = gallery_of(2), str(tmp_path)
    begin(uri, gallery, LoopExecutor(uri, gallery, make_spec(3, fingerprint="another")))
    assert len(list_files(f"{uri}/_staging")) == 1
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert (len(executor.embedded), candidate.counts.num_resumed) == (2, 0)
    assert list_files(f"{uri}/_staging") == []


def test_a_photo_that_a_killed_night_embedded_may_be_renamed_before_the_next(tmp_path):
    gallery, uri = gallery_of(1), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("c", b"something new")
    killed_night(uri, gallery)
    gallery.move("c", "d")
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert (executor.embedded, candidate.counts.num_moved) == ([], 1)


def test_heal_also_embeds_again_what_a_damaged_shard_of_a_killed_night_held(tmp_path):
    gallery, uri = gallery_of(4), str(tmp_path)
    one_night(uri, gallery)
    for name in ("b", "c"):
        gallery.put(name, name.encode() * 5)
    gallery.put("bad", b"bad")
    killed_night(uri, gallery)
    (staged,) = {path.name for path in tmp_path.glob("shard-*")} - shards_of(uri).keys()
    flip(tmp_path / staged, 99)
    executor, _ = one_night(uri, gallery, heal=True)
    check(uri, gallery)
    assert executor.embedded == ["b", "bad", "c"]
    assert list_files(f"{uri}/_staging") == []


def test_heal_keeps_the_work_of_a_killed_night_that_is_whole(tmp_path):
    gallery, uri = gallery_of(4), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("b", b"new photo")
    killed_night(uri, gallery)
    gallery.put("bad", b"bad")
    killed_night(uri, gallery)  # its receipt names no shard
    executor, _ = one_night(uri, gallery, heal=True)
    check(uri, gallery)
    assert executor.embedded == []


@pytest.mark.parametrize("name", ["image_id", "content_sha256", "modified_at"])
def test_what_a_shard_says_of_its_photos_is_checked_before_it_is_believed(tmp_path, name):
    gallery, uri = gallery_of(1), str(tmp_path)
    one_night(uri, gallery)
    (path,) = shards_of(uri)
    flip_silently(tmp_path / path, name)
    with pytest.raises(IndexFormatError, match="this shard cannot be read"):
        one_night(uri, gallery)


def test_a_commit_stands_though_its_receipts_cannot_be_taken_away(tmp_path, monkeypatch):
    """And the next night finds nothing to do but that; small shards are no reason to commit."""
    gallery, uri = gallery_of(1), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("b", b"second")

    def refuse(index_uri, receipts):
        raise StorageError("cannot be removed")

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.index.update.discard", refuse)
        one_night(uri, gallery)
    check(uri, gallery)
    before = shards_of(uri)
    assert list(before.values()) == [1, 1]
    assert len(list_files(f"{uri}/_staging")) == 1
    executor, candidate = one_night(uri, gallery)
    assert (executor.embedded, candidate.is_unchanged, shards_of(uri)) == ([], True, before)
    assert list_files(f"{uri}/_staging") == []


def test_work_that_nobody_needs_any_more_is_no_reason_to_commit(tmp_path):
    gallery, uri = gallery_of(1), str(tmp_path)
    one_night(uri, gallery)
    gallery.put("b", b"second")
    one_night(uri, gallery)
    gallery.put("c", b"third!!")
    killed_night(uri, gallery)
    del gallery.photos["c"]
    executor, candidate = one_night(uri, gallery)
    assert (executor.embedded, candidate.is_unchanged) == ([], True)
    assert candidate.counts.num_removed == 0  # it never was in a version
    assert list_files(f"{uri}/_staging") == []


def test_an_executor_is_not_asked_for_work_that_there_is_none_of(tmp_path):
    """Where it is a cluster, asking starts it."""

    class IdleExecutor(LoopExecutor):
        hash_photos = embed = compact = None

    gallery, uri = gallery_of(8), str(tmp_path)
    one_night(uri, gallery)
    for number in range(4):  # all of a shard
        del gallery.photos[f"a/{number:02d}"]
    publish(killed_night(uri, gallery, IdleExecutor(uri, gallery)))
    check(uri, gallery)
    assert killed_night(uri, gallery, IdleExecutor(uri, gallery)).is_unchanged
