"""Which photos are held out: each source on one side, counts by class, and what may move it."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION, assign_sides, hold_out


@pytest.fixture(params=range(5), ids="seed{}".format)
def rng(request):
    return np.random.default_rng(request.param)


def split(photos, fraction=0.3, seed=0, limit=None):
    """Side of each of the photos (label, source, is_original)."""
    labels, sources, originals = map(list, zip(*photos, strict=True))
    held = hold_out(labels, sources, fraction=fraction, seed=seed)
    table = pa.table({"label": labels, "source": sources, "is_original": originals})
    return assign_sides(table, held, photos_per_class=limit, seed=seed).to_pylist()


def sides_of(photos, sides):
    """Source → its sides, sorted, one for each file."""
    found = {}
    for (_, source, _), side in zip(photos, sides, strict=True):
        found.setdefault(source, []).append(side)
    return {source: sorted(some) for source, some in found.items()}


def held_of(labels, sources, fraction=0.3, seed=0):
    """The sources that are held out."""
    held = hold_out(labels, sources, fraction=fraction, seed=seed)
    return {source for source, is_held in zip(sources, held, strict=True) if is_held}


def a_class(label, count, start=0):
    """Labels and sources of a class without copies."""
    return [label] * count, [f"{label}-{number}" for number in range(start, start + count)]


def random_photos(rng):
    """Classes of 1 to 30 sources; of each source up to three files, some of them copies."""
    photos = []
    for label in "abcdef":
        for number in range(rng.integers(1, 31)):
            source = hashlib.sha256(f"{label}{number}".encode()).hexdigest()
            photos.append((label, source, True))
            photos += [(label, source, bool(rng.integers(2))) for _ in range(rng.integers(3))]
    return [photos[row] for row in rng.permutation(len(photos))]


def lot(seed, source):
    return int(hashlib.sha256(f"{seed}/{source}".encode()).hexdigest(), 16)


@pytest.mark.parametrize(
    ("num_sources", "fraction", "expected"),
    [
        (1, 0.9, 0), (2, 0.01, 1), (2, 0.99, 1), (3, 0.01, 1), (3, 0.99, 1), (4, 0.01, 2),
        (4, 0.5, 2), (4, 0.75, 3), (4, 0.99, 3), (5, 0.99, 4), (10, 0.2, 2), (10, 0.24, 2),
        (10, 0.26, 3), (15, 0.5, 8), (100, 0.2, 20), (100, 0.999, 99),
    ],
)  # fmt: skip
def test_the_number_held_out_of_a_class_worked_by_hand(num_sources, fraction, expected):
    labels, sources = a_class("a", num_sources)
    assert len(held_of(labels, sources, fraction)) == expected


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.8])
def test_the_sources_held_out_are_those_of_the_smallest_hashes(rng, fraction):
    # Pinned down: with another choice no model could be compared with an older one.
    photos = random_photos(rng)
    labels, sources, _ = zip(*photos, strict=True)
    found = held_of(labels, sources, fraction, seed=7)
    for label in set(labels):
        rest = {source for name, source, _ in photos if name == label}
        num_sources = len(rest)
        if num_sources < 4:
            count = [0, 0, 1, 1][num_sources]
        else:
            count = sorted([2, round(fraction * num_sources), num_sources - 1])[1]
        for _ in range(count):
            least = min(rest, key=lambda source: lot(7, source))
            assert least in found
            rest.remove(least)
        assert not rest & found


def test_a_source_is_on_one_side_only_whatever_its_copies(rng):
    photos = random_photos(rng)
    found = sides_of(photos, split(photos))
    for sides in found.values():
        assert set(sides) == {TRAINING} or Counter(sides)[VALIDATION] == 1
        assert set(sides) in ({TRAINING}, {VALIDATION}, {VALIDATION, LEFT_OUT})
    assert {side for sides in found.values() for side in sides} == {TRAINING, VALIDATION, LEFT_OUT}


def test_only_originals_are_measured(rng):
    photos = random_photos(rng)
    sides = split(photos)
    measured = [photo for photo, side in zip(photos, sides, strict=True) if side == VALIDATION]
    assert measured
    assert all(is_original for _, _, is_original in measured)


def test_copies_and_second_files_of_what_is_measured_are_left_out_worked_by_hand():
    table = pa.table(
        {
            "label": ["a"] * 7,
            "source": ["1", "1", "1", "2", "2", "3", "2"],
            "is_original": [False, True, True, True, False, False, True],
        }
    )
    held = np.array([True, True, True, False, False, True, False])
    sides = assign_sides(table, held, photos_per_class=None, seed=0)
    assert sides.type == pa.string()
    # Source 1: the first original. Source 3: copies alone, so that nothing of it is measured.
    assert sides.to_pylist() == [
        LEFT_OUT, VALIDATION, LEFT_OUT, TRAINING, TRAINING, LEFT_OUT, TRAINING
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [None, 2])
def test_the_order_of_the_photos_does_not_matter(rng, limit):
    photos = random_photos(rng)
    mixed = [photos[row] for row in rng.permutation(len(photos))]
    found = sides_of(photos, split(photos, limit=limit))
    assert found == sides_of(mixed, split(mixed, limit=limit))


def test_photos_of_another_class_change_nothing_of_the_rest():
    labels, sources = a_class("m", 20)
    before = held_of(labels, sources)
    for other in "az":  # sorted before and after it
        more, others = a_class(other, 9)
        found = held_of(labels + more, sources + others)
        assert {source for source in found if source.startswith("m")} == before


def test_a_photo_more_moves_at_most_one_other_of_its_class(rng):
    count, seed = int(rng.integers(4, 60)), int(rng.integers(99))
    before = held_of(*a_class("a", count), seed=seed)
    after = held_of(*a_class("a", count + 1), seed=seed)
    assert len(before - after) <= 1
    assert len(after - before) <= 1


def test_copies_of_a_photo_do_not_count():
    labels, sources = a_class("a", 10)
    more = [source for source in sources for _ in range(5)]
    assert held_of(labels, sources) == held_of(["a"] * 50, more)


def test_another_seed_gives_another_split():
    labels, sources = a_class("a", 40)
    splits = {frozenset(held_of(labels, sources, seed=seed)) for seed in range(5)}
    assert len(splits) == 5
    assert {len(held) for held in splits} == {12}


def test_of_a_photo_in_two_classes_the_first_class_decides():
    labels, sources = a_class("a", 8)
    alone = held_of(labels, sources, fraction=0.5)
    others = a_class("b", 4)
    found = held_of(["b"] * 8 + others[0] + labels, sources + others[1] + sources, fraction=0.5)
    assert {source for source in found if source.startswith("a")} == alone
    # Of b only its own four photos were still to be decided.
    assert found - alone == held_of(*others, fraction=0.5)


def test_a_photo_in_two_classes_is_on_one_side_and_measured_once():
    photos = [(label, str(number), True) for label in "ab" for number in range(8)]
    found = sides_of(photos, split(photos))
    assert (
        sorted(map(tuple, found.values()))
        == [(LEFT_OUT, VALIDATION)] * 2 + [(TRAINING, TRAINING)] * 6
    )


def test_without_anything_held_out_all_is_trained_on():
    photos = [(label, label, True) for label in "abc"]
    assert split(photos) == [TRAINING] * 3


def test_the_limit_counts_sources_and_their_copies_stay_with_them(rng):
    photos = random_photos(rng)
    before, after = split(photos), split(photos, limit=3)
    # Whatever is held out stays as it was.
    assert [side for side in before if side == VALIDATION] == [
        side for side in after if side == VALIDATION
    ]
    for label in "abcdef":
        rows = [row for row in range(len(photos)) if photos[row][0] == label]
        trained = {photos[row][1] for row in rows if before[row] == TRAINING}
        kept = {photos[row][1] for row in rows if after[row] == TRAINING}
        assert kept <= trained
        assert len(kept) == min(3, len(trained))
        for row in rows:
            expected = TRAINING if photos[row][1] in kept else LEFT_OUT
            assert after[row] == (expected if before[row] == TRAINING else before[row])


def test_a_higher_limit_keeps_what_a_lower_one_kept_and_another_seed_draws_others():
    photos = [("a", str(number), True) for number in range(40)]
    labels, sources, originals = map(list, zip(*photos, strict=True))
    table = pa.table({"label": labels, "source": sources, "is_original": originals})
    nothing = np.zeros(40, bool)

    def kept(limit, seed):
        sides = assign_sides(table, nothing, photos_per_class=limit, seed=seed).to_pylist()
        return {row for row, side in enumerate(sides) if side == TRAINING}

    assert kept(5, 0) < kept(9, 0) < kept(40, 0) == kept(99, 0) == kept(None, 0)
    assert kept(5, 0) != kept(5, 1)
    assert kept(5, 0) == set(sorted(range(40), key=lambda number: lot(0, number))[:5])


def test_the_limit_holds_in_each_class_of_a_photo_that_lies_in_two():
    # In class a nothing else is to be drawn; in class b the photo is one of ten.
    photos = [("a", "shared", True)] + [("b", str(number), True) for number in range(9)]
    photos.append(("b", "shared", True))
    labels, sources, originals = map(list, zip(*photos, strict=True))
    table = pa.table({"label": labels, "source": sources, "is_original": originals})
    for seed in range(8):
        sides = assign_sides(table, np.zeros(11, bool), photos_per_class=2, seed=seed)
        trained = [
            label for label, side in zip(labels, sides.to_pylist(), strict=True) if side == TRAINING
        ]
        assert Counter(trained) == {"a": 1, "b": 2}


def test_no_photos_have_no_sides():
    columns = {"label": pa.string(), "source": pa.string(), "is_original": pa.bool_()}
    table = pa.schema(columns).empty_table()
    held = hold_out([], [], fraction=0.5, seed=0)
    assert (held.dtype, held.shape) == (np.bool_, (0,))
    assert assign_sides(table, held, photos_per_class=1, seed=0).to_pylist() == []
