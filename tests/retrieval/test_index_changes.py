"""What differs between two versions, against plain loops; shared shards stay closed."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.errors import IndexFormatError
from retrieval.index import open_index
from retrieval.maintenance.version_diff import STATES, compare_versions
from tests.versions import add_shard, commit


def versions(path, *contents):
    """A commit for each list of shards' photos; a shard of equal photos is the same file."""
    made = {}
    for content in contents:
        for photos in content:
            key = tuple(photos.items())
            made[key] = made.get(key) or add_shard(path, photos)
        commit(path, [made[tuple(photos.items())] for photos in content])
    return [open_index(str(path), number) for number in range(len(contents))]


def changes_by_loops(before, after):
    """The definition: each id in one state, a move takes the first ids of equal content."""
    found = {state: [] for state in STATES}
    gone = sorted(name for name in before if name not in after)
    for name in sorted(after):
        if name in before:
            (old, old_label), (new, new_label) = before[name], after[name]
            if old != new:
                found["changed"].append(name)
            elif old_label != new_label:
                found["relabelled"].append({"id": name, "from": old_label, "to": new_label})
            continue
        origin = next((other for other in gone if before[other][0] == after[name][0]), None)
        if origin is None:
            found["added"].append(name)
        else:
            gone.remove(origin)
            found["moved"].append({"from": origin, "to": name})
    found["removed"] = gone
    return found


def test_each_kind_of_change_is_told_apart(tmp_path):
    stay = {"stay": "1"}
    old = {"go": "2", "change": "3", "label": ("4", "red"), "a/move": "5", "same": ("6", "x")}
    new = {"come": "7", "change": "8", "label": ("4", None), "b/move": "5", "same": ("6", "x")}
    before, after = versions(tmp_path, [stay, old], [stay, new])
    found = compare_versions(before, after, 20)
    assert found.counts == dict.fromkeys(STATES, 1)
    assert found.examples == {
        "added": ["come"],
        "removed": ["go"],
        "moved": [{"from": "a/move", "to": "b/move"}],
        "changed": ["change"],
        "relabelled": [{"id": "label", "from": "red", "to": None}],
    }
    assert (found.num_shared_shards, found.num_rows_read) == (1, 10)
    back = compare_versions(after, before, 20)
    assert back.examples["added"] == ["go"]
    assert back.examples["moved"] == [{"from": "b/move", "to": "a/move"}]
    assert compare_versions(before, after).examples == {state: [] for state in STATES}


def test_a_copy_is_no_move_and_copies_move_one_by_one(tmp_path):
    before, after = versions(
        tmp_path,
        [{"a": "1", "keep": "2", "z": "3"}],
        [{"b": "1", "c": "1", "copy": "2", "keep": "2", "y": "3"}],
    )
    found = compare_versions(before, after, 5)
    assert found.examples["moved"] == [{"from": "a", "to": "b"}, {"from": "z", "to": "y"}]
    assert found.examples["added"] == ["c", "copy"]
    assert found.examples["removed"] == []


@pytest.mark.parametrize("seed", range(8))
def test_changes_are_those_of_plain_loops(tmp_path, seed):
    rng = np.random.default_rng(seed)

    def draw():
        names = [f"p{n}é猫"[: rng.integers(3, 6)] + str(n) for n in rng.permutation(60)[:40]]
        return {name: (str(rng.integers(25)), [None, "", "x"][rng.integers(3)]) for name in names}

    both = [draw(), draw()]
    cut = [
        [dict(list(photos.items())[start : start + 13]) for start in range(0, 40, 13)]
        for photos in both
    ]
    before, after = versions(tmp_path, *cut)
    expected = changes_by_loops(*both)
    found = compare_versions(before, after, 100)
    assert found.examples == expected
    assert found.counts == {state: len(expected[state]) for state in STATES}
    few = compare_versions(before, after, 3)
    assert few.examples == {state: names[:3] for state, names in expected.items()}
    assert few.counts == found.counts


def test_shards_that_both_versions_have_are_not_opened(tmp_path):
    shared, old, new = {"a": "1", "b": "2"}, {"c": "3"}, {"d": "4"}
    before, after = versions(tmp_path, [shared, old], [shared, new])
    (both,) = set(before.shards) & set(after.shards)
    (tmp_path / both.path).unlink()
    found = compare_versions(before, after, 20)
    assert (found.examples["added"], found.examples["removed"]) == (["d"], ["c"])
    assert compare_versions(after, after).counts == dict.fromkeys(STATES, 0)


def test_a_vacuumed_version_is_named(tmp_path):
    before, after = versions(tmp_path, [{"a": "1"}], [{"b": "2"}])
    gone = tmp_path / before.shards[0].path
    gone.unlink()
    with pytest.raises(IndexFormatError, match=f"^{gone}: this shard cannot be read"):
        compare_versions(before, after)
