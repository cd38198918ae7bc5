"""The comparison of two sides against its definition in plain dictionaries, on random galleries."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.retrieval.differences import compare, photo, refusal

SETTLED = (4, 2, 3)


def random_photo(numbers, listed=(), make=photo):
    """Few names, contents and times, so that all of them meet; often just as it is listed."""
    if listed and numbers.random() < 0.5:
        same = numbers.choice(listed)
        return make(same["image_id"], same["content_sha256"], same["modified_at"])
    content = numbers.choice(["a", "b", "ab", "ba", "abc"])
    return make(numbers.choice("pqrstuvwxyz"), content, numbers.randint(0, 4))


def distinct(photos, *names):
    return list({tuple(each[name] for name in names): each for each in photos}.values())


def random_case(seed):
    """A listing, three shards (each with a moment of its own) and refusals."""
    numbers = random.Random(seed)

    def some(most, *rest):
        return [random_photo(numbers, *rest) for _ in range(numbers.randint(0, most))]

    listed = distinct(some(20), "image_id")
    for each in listed:
        each["label"] = numbers.choice(["x", None])
    shards = [distinct(some(4, listed), "image_id") for _ in SETTLED]
    return listed, shards, distinct(some(12, listed, refusal), "image_id", "modified_at")


def definition(listed, shards, refused, by_content):
    """Each photo's state and row, and the photos that had to be read."""
    chosen = choose(listed, shards)
    state = {
        each["image_id"]: first_state(each, chosen, refused, by_content=by_content)
        for each in listed
    }
    loose = {name: row for name, row in chosen.items() if state.get(name) != "same"}
    sizes = {row["row"]["size_bytes"] for row in loose.values()}
    read = {
        each["image_id"]: each["content_sha256"]
        for each in listed
        if state[each["image_id"]] == "doubtful"
        or (state[each["image_id"]] == "new" and each["size_bytes"] in sizes)
    }
    for name, content in read.items():
        if state[name] == "doubtful" and content == chosen[name]["row"]["content_sha256"]:
            state[name] = "same"
            del loose[name]
    place = {name: chosen[name]["place"] for name in state if state[name] == "same"}
    for name in read.keys() - place.keys():
        donors = [id_ for id_ in loose if loose[id_]["row"]["content_sha256"] == read[name]]
        state[name] = "moved" if donors else "new"
        if donors:
            place[name] = loose[min(donors)]["place"]
    return state, place, set(read)


def first_state(listed, chosen, refused, *, by_content):
    """What can be said without reading a photo."""
    name, at, size = listed["image_id"], listed["modified_at"], listed["size_bytes"]
    is_trusted = not by_content and at != 0
    if name in chosen:
        row = chosen[name]["row"]
        if row["size_bytes"] != size:
            return "new"
        is_known = row["modified_at"] == at < chosen[name]["settled"]
        return "same" if is_trusted and is_known else "doubtful"
    tries = [bad for bad in refused if bad["image_id"] == name]
    last = max(tries, key=lambda bad: bad["modified_at"], default=None)
    is_known = last and (last["modified_at"], last["size_bytes"]) == (at, size)
    return "rejected" if is_trusted and is_known and at < SETTLED[0] else "new"


def choose(listed, shards):
    """The row of each id that counts: one that fits its photo before one that does not."""
    stamps = {each["image_id"]: (each["size_bytes"], each["modified_at"]) for each in listed}
    chosen = {}
    for fits in (True, False):
        for file, rows in enumerate(shards):
            for number, row in enumerate(rows):
                name, stamp = row["image_id"], (row["size_bytes"], row["modified_at"])
                if name not in chosen and fits in (stamps.get(name) == stamp, False):
                    chosen[name] = {"row": row, "place": (file, number), "settled": SETTLED[file]}
    return chosen


@pytest.mark.parametrize("by_content", [False, True], ids=["by time", "by content"])
@pytest.mark.parametrize("seed", range(30))
def test_every_photo_is_what_the_definition_says(seed, by_content):
    listed, shards, refused = random_case(seed)
    state, place, read = definition(listed, shards, refused, by_content)
    found = compare(
        listed, *shards, refused=refused, settled_us=list(SETTLED), by_content=by_content
    )
    assert found.hashed == sorted(read)
    for kind in ("new", "rejected"):
        assert getattr(found, kind) == sorted(name for name in state if state[name] == kind)
    for kind in ("same", "moved"):
        expected = {name: place[name] for name in place if state[name] == kind}
        assert getattr(found, kind) == expected
    assert found.states == Counter(state.values())
    assert found.num_unlabelled == sum(each["label"] is None for each in listed)
    taken = {place[name] for name in place if state[name] == "moved"}
    for num_live in range(4):
        gone = [
            (file, number)
            for file, rows in enumerate(shards[:num_live])
            for number, row in enumerate(rows)
            if row["image_id"] not in state and (file, number) not in taken
        ]
        assert found.num_removed[num_live] == len(gone)


def test_the_random_cases_hold_every_state_often():
    seen, places = Counter(), Counter()
    for seed in range(30):
        state, place, _ = definition(*random_case(seed), by_content=False)
        seen.update(state.values())
        places.update(place[name][0] for name in place if state[name] == "same")
    assert min(seen[kind] for kind in ("same", "moved", "rejected", "new")) > 10
    assert min(places[file] for file in range(3)) > 10


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_listing_is_of_no_consequence(seed):
    listed, shards, refused = random_case(seed)
    shuffled = random.Random(seed).sample(listed, len(listed))
    found, again = (compare(some, *shards, refused=refused) for some in (listed, shuffled))
    assert (found.same, found.moved, found.new, found.rejected) == (
        again.same,
        again.moved,
        again.new,
        again.rejected,
    )
    assert found.to_embed == again.to_embed
