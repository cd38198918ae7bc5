"""Which shards are written anew, and that their rows go on bit by bit."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError
from retrieval.index import index_schema
from retrieval.index.compaction import RowSlice, ShardUsage, compact, plan_shards
from retrieval.index.gallery_diff import CARRIED_SCHEMA
from retrieval.index.shards import Shard, write_shard
from tests.conftest import make_spec
from tests.retrieval.night_cases import rows

SPEC = make_spec(3)


def source(num_kept, *, of=None, touched=0, live=True):
    """A shard of `of` rows (by default of those that stay)."""
    return ShardUsage(Shard("shard", num_kept if of is None else of, 1), live, num_kept, touched)


STAGED = source(4, live=False)


@pytest.mark.parametrize(
    ("sources", "stay", "groups"),
    [
        ([], [], []),
        # Whole, half full and more: stay.
        ([source(10), source(5)], [0, 1], []),
        # A row has gone, or the listing says something new of one: written anew, alone.
        ([source(9, of=10), source(10, touched=1)], [], [[0], [1]]),
        # Without a row to keep: left out.
        ([source(0, of=10), source(10), source(0, of=3, live=False)], [1], []),
        # Less than half full: joined, in their order, up to a full one.
        ([source(4), source(10), source(4), source(4)], [1, 3], [[0, 2]]),
        ([source(4), source(4), source(2), source(1)], [3], [[0, 1, 2]]),
        ([source(4), source(4), source(3), source(3)], [], [[0, 1], [2, 3]]),
        # A small one alone: stays if it can.
        ([source(4)], [0], []),
        ([source(4, of=5)], [], [[0]]),
        ([source(4, of=10), source(4)], [], [[0, 1]]),
        # Those of killed runs are joined with each other alone.
        ([source(4), STAGED, source(2), STAGED], [], [[0, 2], [1, 3]]),
        ([source(4), STAGED], [0, 1], []),
        # Larger than full ones are now, as other settings made it: as it is.
        ([source(30)], [0], []),
        ([source(29, of=30), source(3), source(3)], [], [[0], [1, 2]]),
    ],
)  # fmt: skip
def test_full_shards_stay_changed_ones_are_rewritten_and_small_ones_joined(sources, stay, groups):
    found = plan_shards(sources, shard_rows=10)
    assert (sorted(found[0]), sorted(found[1])) == (stay, groups)


@pytest.mark.parametrize(("shard_rows", "is_joined"), [(7, True), (6, False)])
def test_half_a_shard_is_not_small(shard_rows, is_joined):
    stay, groups = plan_shards([source(3), source(3)], shard_rows)
    assert (stay, groups) == (([], [[0, 1]]) if is_joined else ([0, 1], []))


@pytest.mark.parametrize("shard_rows", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_kept_once_in_shards_that_are_not_too_large(seed, shard_rows):
    numbers = random.Random(seed)
    sources = []
    for _ in range(numbers.randint(0, 12)):
        num_rows = numbers.randint(1, shard_rows)
        kept = numbers.choice([num_rows, numbers.randint(0, num_rows)])
        touched = numbers.choice([0, numbers.randint(0, kept)])
        sources.append(source(kept, of=num_rows, touched=touched, live=numbers.random() < 0.6))
    stay, groups = plan_shards(sources, shard_rows)
    places = Counter([*stay, *(place for group in groups for place in group)])
    assert places == Counter(n for n, each in enumerate(sources) if each.num_kept)
    assert all(sources[place].is_whole for place in stay)
    for group in groups:
        assert len({sources[place].is_live for place in group}) == 1
        assert sum(sources[place].num_kept for place in group) <= shard_rows
        assert group == sorted(group)
        # No shard is rewritten for nothing.
        assert len(group) > 1 or not sources[group[0]].is_whole
    for is_live in (True, False):
        joined = sorted(
            group
            for group in [*groups, *([place] for place in stay)]
            if sources[group[0]].is_live == is_live and sources[group[0]].num_kept < shard_rows / 2
        )
        sizes = [sum(sources[place].num_kept for place in group) for group in joined]
        # What could have been one shard is no two.
        assert all(one + other > shard_rows for one, other in pairwise(sizes))


def carried(*items):
    """What is to stand at (row, new id): all else that a listing says is new as well."""
    listed = [
        {
            "row": row,
            "image_id": name,
            "uri": f"/new/{name}",
            "size_bytes": 1000 + row,
            "modified_at": datetime(2026, 2, 3, tzinfo=UTC),
            "label": f"new {name}" if name != "unlabelled" else None,
        }
        for row, name in items
    ]
    return pa.Table.from_pylist(listed, CARRIED_SCHEMA)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_listed_is_replaced_and_what_was_computed_goes_on_bit_by_bit(tmp_path, dtype):
    spec, uri = make_spec(3, dtype), str(tmp_path)
    before = rows("a", "b", "c", "d", spec=spec)
    shard = write_shard(uri, before)
    written = compact(
        uri, spec, [RowSlice(shard, carried((0, "a"), (2, "other"), (3, "unlabelled")))]
    )
    after = pq.read_table(tmp_path / written.path)
    assert after.schema.equals(index_schema(spec), check_metadata=True)
    kept = ["content_sha256", "width", "height", "embedding"]
    assert after.select(kept) == before.select(kept).take([0, 2, 3])
    names = ["a", "other", "unlabelled"]
    assert after["image_id"].to_pylist() == names
    assert after["uri"].to_pylist() == [f"/new/{name}" for name in names]
    assert after["size_bytes"].to_pylist() == [1000, 1002, 1003]
    assert set(after["modified_at"].to_pylist()) == {datetime(2026, 2, 3, tzinfo=UTC)}
    assert after["label"].to_pylist() == ["new a", "new other", None]
    assert written.num_rows == 3
    assert hashlib.sha256((tmp_path / written.path).read_bytes()).hexdigest() == written.sha256
    assert pq.read_table(tmp_path / shard.path) == before  # a shard never changes


def test_not_a_number_and_minus_zero_go_on_too(tmp_path):
    uri, odd = str(tmp_path), np.array([np.nan, -0.0, 6e-8], np.float16).tobytes()
    odd = odd[:1] + b"\x01" + odd[2:]
    before = rows("a")
    embedding = pa.array([odd], before.schema.field("embedding").type)
    table = before.set_column(8, before.schema.field("embedding"), embedding)
    written = compact(uri, SPEC, [RowSlice(write_shard(uri, table), carried((0, "a")))])
    assert pq.read_table(tmp_path / written.path)["embedding"].to_pylist() == [odd]


def test_pieces_of_several_shards_come_one_after_another(tmp_path):
    uri = str(tmp_path)
    first, second = write_shard(uri, rows("a", "b", "c")), write_shard(uri, rows("d", "e"))
    # One row may go to two photos.
    pieces = [
        RowSlice(second, carried((1, "e"))),
        RowSlice(first, carried((0, "a"), (0, "aa"), (2, "c"))),
    ]
    written = compact(uri, SPEC, [*pieces, RowSlice(second, carried((0, "d")))])
    found = pq.read_table(tmp_path / written.path)
    assert found["image_id"].to_pylist() == ["e", "a", "aa", "c", "d"]
    assert found["embedding"].to_pylist() == rows("e", "a", "a", "c", "d")["embedding"].to_pylist()
    assert written.num_rows == 5


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "another"])
def test_a_damaged_source_is_named_and_nothing_is_written(tmp_path, damage):
    uri = str(tmp_path)
    good, bad = write_shard(uri, rows("a")), write_shard(uri, rows("b", "c"))
    path = tmp_path / bad.path
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-9])
    elif damage == "flipped":
        place = content.index(rows("b")["embedding"][0].as_py())
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        path.write_bytes((tmp_path / good.path).read_bytes())
    files = sorted(tmp_path.iterdir())
    with pytest.raises(IndexFormatError) as error:
        compact(uri, SPEC, [RowSlice(good, carried((0, "a"))), RowSlice(bad, carried((0, "b")))])
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith(" Embed the photos again with `heal`.")
    assert sorted(tmp_path.iterdir()) == files
