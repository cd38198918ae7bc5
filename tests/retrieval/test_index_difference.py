"""What becomes of each photo, by hand, and against the definition in plain loops."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from retrieval.errors import StorageError, UsageError
from retrieval.index.gallery_diff import CARRIED_SCHEMA, LISTED_SCHEMA, open_difference
from retrieval.index.staging import INDEX_REJECT_SCHEMA
from tests.retrieval.differences import (
    SETTLED_US,
    STORED_SCHEMA,
    batches,
    compare,
    photo,
    refusal,
    state_of,
)

ROW = photo("a")
BAD = refusal("a")
CASES = {
    # what is listed, the row of that id, the refusal of it: the state, and whether it is hashed
    "unknown": (photo("a"), None, None, "new", False),
    "as it was": (photo("a"), ROW, None, "same", False),
    "other time, equal content": (photo("a", at=6), ROW, None, "same", True),
    "other time, other content": (photo("a", "xyz", at=6), ROW, None, "new", True),
    "an older file was put back": (photo("a", "xyz", at=4), ROW, None, "new", True),
    "other size, equal time": (photo("a", "abcd"), ROW, None, "new", False),
    "just before it was settled": (photo("a", at=99), photo("a", at=99), None, "same", False),
    "when it was settled": (photo("a", at=100), photo("a", at=100), None, "same", True),
    "after it was settled": (photo("a", "xyz", at=101), photo("a", at=101), None, "new", True),
    "time 0": (photo("a", at=0), photo("a", at=0), None, "same", True),
    "time 0, other content": (photo("a", "xyz", at=0), photo("a", at=0), None, "new", True),
    "before 1970": (photo("a", at=-7), photo("a", at=-7), None, "same", False),
    "other label and name": (photo("a", label=None, uri="b"), ROW, None, "same", False),
    "refused as it is": (photo("a"), None, BAD, "rejected", False),
    "refused with another size": (photo("a", "abcd"), None, BAD, "new", False),
    "refused with another time": (photo("a", at=6), None, BAD, "new", False),
    "refused before settled": (photo("a", at=99), None, refusal("a", at=99), "rejected", False),
    "refused when it was settled": (photo("a", at=100), None, refusal("a", at=100), "new", False),
    "refused with time 0": (photo("a", at=0), None, refusal("a", at=0), "new", False),
    "refused, but there is a row": (photo("a"), ROW, BAD, "same", False),
    "refused since the row": (photo("a", "abcd"), ROW, refusal("a", "abcd"), "new", False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_photo_has_the_state_that_its_size_time_and_content_give_it(case):
    listed, row, refused, state, is_hashed = CASES[case]
    found = compare([listed], [row] if row else [], refused=[refused] if refused else [])
    assert (state_of(found, "a"), found.hashed == ["a"]) == (state, is_hashed)
    assert found.states == {state: 1}


@pytest.mark.parametrize("case", CASES)
def test_by_content_neither_size_nor_time_nor_a_refusal_is_trusted(case):
    listed, row, refused, _, _ = CASES[case]
    is_same = row is not None and row["content_sha256"] == listed["content_sha256"]
    found = compare(
        [listed], [row] if row else [], refused=[refused] if refused else [], by_content=True
    )
    assert state_of(found, "a") == ("same" if is_same else "new")
    assert found.hashed == (["a"] if row and row["size_bytes"] == listed["size_bytes"] else [])


def test_a_photo_that_cannot_be_read_is_left_to_the_next_stage():
    listed = [photo("a", at=6), photo("b")]
    found = compare(listed, [ROW, photo("gone")], unreadable=["a", "b"])
    assert found.hashed == found.new == ["a", "b"]


@pytest.mark.parametrize(
    ("listed", "row", "num_touched"),
    [
        (photo("a"), photo("a"), 0),
        (photo("a", label=None), photo("a", label=None), 0),
        (photo("a", label="y"), photo("a"), 1),
        (photo("a", label=None), photo("a"), 1),
        (photo("a"), photo("a", label=None), 1),
        (photo("a", uri="/moved/a"), photo("a"), 1),
        (photo("a", at=6), photo("a"), 1),
    ],
)
def test_a_row_is_touched_if_the_listing_says_something_new_of_its_photo(listed, row, num_touched):
    found = compare([listed, photo("b")], [row, photo("b")], [photo("c")])
    assert found.kept_by_file == {0: (2, num_touched)}


def test_rows_have_the_numbers_that_they_have_in_the_whole_shard():
    names = ["e", "b", "gone", "d", "a", "also gone", "c"]
    listed = [photo(name, label=name) for name in "abcde"]
    found = compare([*listed, photo("f", "other")], [photo(name) for name in names])
    assert found.same == {"e": (0, 0), "b": (0, 1), "d": (0, 3), "a": (0, 4), "c": (0, 6)}
    (carried,) = found.carried
    assert carried.schema == CARRIED_SCHEMA
    assert carried["row"].to_pylist() == [0, 1, 3, 4, 6]
    assert carried["image_id"].to_pylist() == carried["label"].to_pylist() == list("ebdac")
    assert found.num_removed == [0, 2]


def test_an_empty_batch_between_others_moves_no_number():
    with open_difference() as difference:
        difference.add_listed(batches([photo("b")]))
        parts = [*batches([photo("a")], STORED_SCHEMA), *batches([photo("b")], STORED_SCHEMA)]
        parts.insert(1, parts[0].slice(0, 0))
        difference.add_stored(3, parts, SETTLED_US)
        difference.compare()
        difference.settle(pa.table({"image_id": pa.array([], pa.string()), "content_sha256": []}))
        assert difference.carried(3, "same")["row"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("live", "staged", "row", "hashed"),
    [
        # Both fit: the live one, so that its shard need not change.
        (photo("a"), photo("a"), (0, 1), []),
        # A killed run has embedded what the photo is now.
        (photo("a", "old!"), photo("a"), (1, 0), []),
        (photo("a", "old", at=4), photo("a"), (1, 0), []),
        # A killed run has embedded what the photo was for a while.
        (photo("a"), photo("a", "while", at=7), (0, 1), []),
        # Touched since: the content of the live one decides.
        (photo("a", at=4), photo("a", at=3), (0, 1), ["a"]),
    ],
)
def test_of_two_rows_of_an_id_the_fitting_one_is_taken_and_then_the_first(
    live, staged, row, hashed
):
    found = compare([photo("a")], [photo("b"), live], [staged])
    assert (found.same, found.hashed) == ({"a": row}, hashed)
    assert found.num_of_later == [1, row[0], 0]


def test_a_row_is_as_settled_as_its_own_shard():
    listed = [photo("a", at=40), photo("b", at=40)]
    found = compare(listed, [photo("a", at=40)], [photo("b", at=40)], settled_us=[40, 41])
    assert (found.hashed, found.states) == (["a"], {"same": 2})


def test_the_latest_refusal_of_a_photo_counts():
    listed, refused = [photo("a", at=7)], [refusal("a", at=5), refusal("a", at=7, reason="bomb")]
    found = compare(listed, refused=refused)
    assert found.still_refused["reason"].to_pylist() == ["bomb"]
    assert compare(listed, refused=[*refused, refusal("a", at=8)]).new == ["a"]


@pytest.mark.parametrize("step", [1, -1], ids=["in order", "in any order"])
def test_of_two_refusals_of_the_same_file_the_later_verdict_counts(step):
    """A killed run had tried it again, since it was young when it was refused first."""
    with open_difference() as difference:
        difference.add_listed(batches([photo("a", at=40)]))
        for reason, settled_us in [("bomb", 40), ("corrupt", 41)][::step]:
            bad = [refusal("a", at=40, reason=reason)]
            difference.add_refused(pa.Table.from_pylist(bad, INDEX_REJECT_SCHEMA), settled_us)
        difference.compare()
        assert difference.still_refused()["reason"].to_pylist() == ["corrupt"]


def test_what_is_refused_still_says_why_with_the_name_of_today():
    at = 253_402_300_799_000_001  # a microsecond past the last second of 9999 is no datetime
    found = compare(
        [photo("b", at=-1, uri="/new/b"), photo("a", at=3), photo("c", at=at)],
        refused=[refusal("b", at=-1), refusal("a", at=3, reason="bomb"), refusal("c", at=at)],
        settled_us=at + 1,
    )
    rejects = found.still_refused.cast(INDEX_REJECT_SCHEMA)
    assert rejects["modified_at"].cast(pa.int64()).to_pylist() == [3, -1, at]
    assert rejects.slice(1, 1).to_pylist() == [
        {
            "image_id": "b",
            "uri": "/new/b",
            "reason": "corrupt",
            "message": "corrupt!",
            "size_bytes": 3,
            "modified_at": datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1),
        }
    ]


def test_a_row_that_lost_its_place_gives_its_embedding_to_every_photo_of_its_content():
    rows = [photo("z/1", "one"), photo("stays", "two!"), photo("z/2", "other")]
    listed = [photo("new/2", "one"), photo("new/1", "one"), photo("stays", "two!")]
    found = compare([*listed, photo("copy", "two!")], rows)
    assert found.moved == {"new/1": (0, 0), "new/2": (0, 0)}
    assert found.new == ["copy"]  # the row of "stays" has its place
    assert found.hashed == ["new/1", "new/2"]  # no row of the size of "copy" is loose
    assert (found.num_removed, found.moved_by_file) == ([0, 1], {0: 2})


def test_of_several_rows_of_one_content_the_first_id_gives_and_the_others_are_removed():
    found = compare([photo("new")], [photo("c"), photo("b")], [photo("aa"), photo("é")])
    assert found.moved == {"new": (1, 0)}
    assert (found.num_removed, found.moved_by_file) == ([0, 2, 3], {1: 1})


def test_a_photo_that_was_only_touched_keeps_its_row_and_its_copy_is_embedded():
    found = compare([photo("a", at=6), photo("b")], [photo("a")])
    assert (found.hashed, found.same, found.new) == (["a", "b"], {"a": (0, 0)}, ["b"])


def test_photos_that_change_places_and_one_that_takes_the_place_of_another():
    rows = [photo("a", "one", at=1), photo("b", "two", at=2), photo("c", "old", at=3)]
    listed = [photo("a", "two", at=2), photo("b", "one", at=1)]
    found = compare([*listed, photo("c", "newer"), photo("d", "old")], rows)
    assert found.moved == {"a": (0, 1), "b": (0, 0), "d": (0, 2)}
    assert (found.new, found.num_removed) == (["c"], [0, 0])


def test_a_staged_row_gives_its_embedding_too_and_is_not_counted_as_removed():
    found = compare([photo("new"), photo("b", "four")], [photo("b", "four")], [photo("gone")])
    assert (found.moved, found.moved_by_file) == ({"new": (1, 0)}, {1: 1})
    gone = compare([photo("b")], [photo("b")], [photo("gone", "four")])
    assert gone.num_removed == [0, 0, 1]


def test_shards_that_give_rows_to_moved_photos_come_in_their_order():
    rows = [[photo("x", "one"), photo("y", "four")], [photo("z", "three")], [photo("p")]]
    names = {"1": "three", "2": "one", "3": "one", "4": "four", "5": "unlike"}
    found = compare([photo(name, content) for name, content in names.items()], *rows)
    assert list(found.moved_by_file.items()) == [(0, 3), (1, 1)]


def test_photos_without_a_label_are_counted_whatever_becomes_of_them():
    listed = [photo("a", label=None), photo("b", label=None), photo("c", label="")]
    assert compare(listed, [photo("a")], refused=[refusal("b")]).num_unlabelled == 2


@pytest.mark.parametrize("shards", [[], [[]], [[], []]])
def test_empty_sides(shards):
    nothing = compare([], *shards)
    assert (nothing.states, nothing.hashed, nothing.kept_by_file) == ({}, [], {})
    assert nothing.to_embed.schema == LISTED_SCHEMA
    all_new = compare([photo("a")], *shards)
    assert (all_new.states, all_new.same) == ({"new": 1}, {})
    all_gone = compare([], [photo("a")], *shards)
    assert (all_gone.states, all_gone.num_removed[-1]) == ({}, 1)


NAMES = [
    "", " ", '"', "'", "'; DROP TABLE listed; --", "A", "\\", "a", "a\nb", "a/b", "b%", "b_",
    "e\u0301", "z", "\u00e9", "\u732b", "\ufffd", "\U0001f431",
]  # fmt: skip


def test_ids_are_compared_and_ordered_by_their_bytes():
    assert sorted(NAMES, key=str.encode) == NAMES
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    listed = [photo(name, label=name, uri=name) for name in shuffled]
    new = compare(listed)
    assert new.new == NAMES
    assert new.to_embed["label"].to_pylist() == new.to_embed["uri"].to_pylist() == NAMES
    rows = [photo(name, at=6) for name in shuffled]
    touched = compare(listed, rows)
    assert touched.hashed == NAMES
    assert touched.same == {name: (0, row) for row, name in enumerate(shuffled)}
    assert compare(listed, refused=[refusal(name) for name in shuffled]).rejected == NAMES


def test_an_id_that_is_listed_twice_is_refused_by_name():
    with pytest.raises(UsageError) as error:
        compare([photo("c"), photo("é"), photo("b"), photo("é"), photo("b")])
    assert str(error.value) == (
        "'b': two photos are listed with this id. Each photo needs one of its own: rename one of "
        "them."
    )


def test_an_error_of_whoever_lists_comes_through_as_it_is():
    def listing():
        yield from batches([photo("a")])
        raise StorageError("the store is gone")

    with open_difference() as difference, pytest.raises(StorageError, match=r"^the store is gone$"):
        difference.add_listed(listing())
