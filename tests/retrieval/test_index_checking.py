"""Each fault of an index is found and named; a sound one has none."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from retrieval.index import commit_index, open_index
from retrieval.index.history import read_commit
from retrieval.index.shards import Shard, encode_parquet
from retrieval.maintenance import check_shard as checking
from retrieval.maintenance.check import check_index
from retrieval.maintenance.check_shard import length_tolerance
from retrieval.maintenance.restore import restore_index
from retrieval.storage import join, write_bytes
from tests.conftest import make_spec
from tests.versions import add_rejects, add_shard, commit, entry, rows_of


def sound(uri):
    """Three versions; the newest has two shards and two rejects."""
    shards = [add_shard(uri, {f"p{n}": "1", f"q{n}": "2"}) for n in range(4)]
    commit(uri, shards[:2], run_id="a", num_listed=4, num_rejected=0, rejects=None)
    commit(uri, shards[1:3], run_id="b")
    rejects = add_rejects(uri, "c", ["x", "y"])
    return commit(uri, shards[2:], run_id="c", num_listed=6, num_rejected=2, rejects=rejects)


def faults(index):
    return check_index(index).faults


def with_bytes(index, data, num_rows=None):
    """The index as it was committed with other bytes in the place of its first shard."""
    first, *others = index.shards
    write_bytes(join(index.uri, first.path), data)
    num_rows = first.num_rows if num_rows is None else num_rows
    made = Shard(first.path, num_rows, len(data), hashlib.sha256(data).hexdigest())
    return replace(index, shards=(made, *others))


def with_table(index, table, **settings):
    return with_bytes(index, bytes(encode_parquet(table)), **settings)


class Counted:
    """Keeps what is said of the progress, and how far it came."""

    def __init__(self):
        self.lines = []

    @contextmanager
    def line(self, verb, unit, total, done):
        yield
        self.lines.append((verb, unit, total, done()))


def test_a_sound_index_has_no_fault(tmp_path, s3):
    for uri in (str(tmp_path / "a"), f"{s3}/checked/a"):
        index, progress = sound(uri), Counted()
        found = check_index(index, progress)
        assert (found.faults, found.is_sound) == ([], True)
        assert found.to_json() == {
            "index": index.uri,
            "version": 2,
            "rows": index.num_rows,
            "num_shards": len(index.shards),
            "num_rejected": 2,
            "is_sound": True,
        }
        assert progress.lines == [("checked", "shards", len(index.shards), len(index.shards))]
        assert check_index(f"{uri}@2") == found
        for version in (0, 1):
            assert faults(open_index(uri, version)) == []
        assert faults(restore_index(uri, 0)) == []
        assert faults(restore_index(uri, 2)) == []


def test_a_shard_that_is_missing_cut_or_changed_is_named(tmp_path):
    index = sound(tmp_path)
    path = tmp_path / index.shards[0].path
    whole = path.read_bytes()
    for place in (4, len(whole) // 2, len(whole) - 9):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        message = f"{path}: not the bytes that were committed: their SHA-256 is another."
        assert faults(index) == [message]
    path.write_bytes(whole[:-1])
    assert faults(index) == [f"{path}: {len(whole) - 1} bytes, but {len(whole)} were committed."]
    path.unlink()
    other = tmp_path / index.shards[1].path
    other.write_bytes(b"")
    assert faults(index) == [
        f"{path}: cannot be read (No such file or directory).",
        f"{other}: 0 bytes, but {index.shards[1].size_bytes} were committed.",
    ]


def test_a_page_whose_checksum_is_wrong_is_named_without_a_hash_of_the_file(tmp_path):
    index = sound(tmp_path)
    first = index.shards[0]
    path = tmp_path / first.path
    file = pq.ParquetFile(path)
    column = file.metadata.row_group(0).column(8)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    path.write_bytes(data)
    unknown = replace(first, sha256="")  # as of a table that another tool committed
    (fault,) = faults(replace(index, shards=(unknown, index.shards[1])))
    assert fault.startswith(f"{path}: cannot be read as Parquet (could not verify page")


def test_columns_a_number_of_rows_and_a_make_that_are_not_the_indexs_are_named(tmp_path):
    index = sound(tmp_path)
    path = tmp_path / index.shards[0].path
    table = pq.read_table(path)
    assert faults(with_table(index, table.drop_columns(["label"]))) == [
        f"{path}: no column label of string; the index's columns are needed."
    ]
    (fault,) = faults(with_table(index, table.select(table.column_names[::-1])))
    assert fault.startswith(f"{path}: the columns embedding, label, height")
    assert faults(with_table(index, table, num_rows=3))[0] == (
        f"{path}: 2 rows, but 3 were committed."
    )
    other = rows_of({"o": "1", "p": "2"}, spec=make_spec(2, fingerprint="e" * 64))
    assert faults(with_table(index, other)) == [
        f"{path}: made by fake with fingerprint eeeeeeeeeeee, but the index by fake with "
        f"ffffffffffff."
    ]
    assert faults(with_bytes(index, b"PAR1 no Parquet PAR1")) != []
    names_differ = rows_of({"o": "1", "p": "2"}, spec=replace(make_spec(2), weights="moved"))
    assert faults(with_table(index, names_differ)) == []


@pytest.mark.parametrize(
    ("vector", "what"),
    [
        ([np.nan, 1], "row 1: the vector is NaN"),
        ([np.inf, 0], "row 1: the vector is infinite"),
        ([0, 0], "row 1: the vector is all zeros"),
        ([1.002, 0], "row 1: the vector has length 1.00195, but 1 is needed."),
        ([0.6, 0.79], "row 1: the vector has length 0.99"),
    ],
)
def test_a_vector_that_cannot_be_is_named(tmp_path, vector, what):
    index = sound(tmp_path)
    vectors = [np.float16([0.6, 0.8]), np.float16(vector)]
    table = rows_of({"o": "1", "p": "2"}, vectors=vectors)
    (fault,) = faults(with_table(index, table))
    path = tmp_path / index.shards[0].path
    assert fault.startswith(f"{path}, {what}")


def test_a_row_is_named_by_its_number_in_the_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "_BATCH_BYTES", 8)  # two rows
    vectors = [np.float16([0, 1])] * 4 + [np.float16([0, 1.5])]
    photos = {f"p{n}": "1" for n in range(5)}
    index = commit(tmp_path, [add_shard(tmp_path, photos, vectors=vectors)])
    assert "row 4: the vector has length 1.5" in faults(index)[0]


def test_vectors_that_are_not_normalised_may_have_any_length(tmp_path):
    spec, vectors = replace(make_spec(2), normalised=False), [np.float16([30, 40])]
    shard = add_shard(tmp_path, {"p": "1"}, spec=spec, vectors=vectors)
    assert faults(commit(tmp_path, [shard], spec=spec)) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dim", [1, 2, 512, 2048])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_unit_vectors_are_within_the_tolerance_and_it_is_no_wider_than_rounding(dim, dtype, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(200, dim)) * rng.exponential(size=dim) ** 4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = vectors.astype(dtype).astype(np.float32)
    errors = np.abs(np.sqrt(np.einsum("ij,ij->i", stored, stored)) - 1)
    tolerance = length_tolerance(dim, dtype)
    assert errors.max() <= tolerance
    assert tolerance < (7e-4 if dtype == "float16" else 7e-5)


def test_the_tolerance_of_float16_is_reached():
    # All components just below the middle between two neighbours: each is rounded the same way.
    middle = (1 + 2**-11) * 2.0**-5  # of 1,024 components
    vector = np.full(1024, middle * (1 - 1e-9))
    length = np.linalg.norm(vector.astype(np.float16).astype(np.float64)) / np.linalg.norm(vector)
    assert 1 - length > 0.99 * 2**-11
    assert 1 - length <= length_tolerance(1024, "float16")


def test_an_id_that_occurs_twice_is_named_with_both_places(tmp_path):
    index = sound(tmp_path)
    first, second = index.shards
    other = pq.read_table(tmp_path / second.path)["image_id"][1].as_py()
    made = with_table(index, rows_of({"new": "1", other: "2"}))
    assert faults(made) == [
        f"{tmp_path}: the id {other!r} occurs more than once, in {tmp_path}/{first.path}, row 1, "
        f"and {tmp_path}/{second.path}, row 1."
    ]


def test_an_id_in_the_index_and_among_the_rejects_is_named(tmp_path):
    index = sound(tmp_path)
    path = tmp_path / index.shards[0].path
    made = with_table(index, rows_of({"new": "1", "y": "2"}))
    assert faults(made) == [f"{path}: the id 'y' is among the rejects, too."]


def test_rejects_that_are_gone_damaged_or_repeated_are_named(tmp_path):
    index = sound(tmp_path)
    folder = tmp_path / "_rejects" / "c"
    part = folder / "part-0.parquet"
    whole = part.read_bytes()
    (folder / "part-1.parquet").write_bytes(whole)
    assert faults(index)[0] == f"{tmp_path}: 'x' is rejected more than once."
    (folder / "part-1.parquet").write_bytes(whole[:-5])
    assert faults(index)[0].startswith(f"{folder}/part-1.parquet: these rejects cannot be read")
    (folder / "part-1.parquet").unlink()
    part.unlink()
    assert faults(index)[0].startswith(f"{folder}: no rejects there, though version 2 names")
    said = f"{tmp_path}: the run of version 2 says"
    assert faults(index)[1:] == [
        f"{said} 2 rejects, but 0 are there.",
        f"{said} 6 photos were listed, but 4 rows and 0 rejects are there.",
    ]


def test_counts_that_do_not_add_up_are_named(tmp_path):
    index = sound(tmp_path)
    wrong = replace(index, run={**index.run, "num_listed": 7})
    assert faults(wrong) == [
        f"{tmp_path}: the run of version 2 says 7 photos were listed, but 4 rows and 2 rejects "
        f"are there."
    ]


def edit(path, change):
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    change(actions)
    path.write_text("".join(json.dumps(action) + "\n" for action in actions))


def test_a_log_that_does_not_lead_to_the_content_is_named(tmp_path):
    index = sound(tmp_path)
    whole = entry(tmp_path, 1).read_bytes()

    def rename_removed(actions):
        next(each for each in actions if "remove" in each)["remove"]["path"] = "shard-0.parquet"

    edit(entry(tmp_path, 1), rename_removed)
    (fault,) = faults(index)
    assert fault.startswith(f"{tmp_path}: the log's entry of version 0 does not lead to its con")

    def rename_added(actions):
        next(each for each in actions if "add" in each)["add"]["path"] = "shard-0.parquet"

    newest = entry(tmp_path, 2).read_bytes()
    kept = next(each.path for each in index.shards if each.path.encode() in whole)
    assert kept in read_commit(str(tmp_path), 1).added

    def remove_live(actions):
        next(each for each in actions if "remove" in each)["remove"]["path"] = kept

    entry(tmp_path, 1).write_bytes(whole)
    edit(entry(tmp_path, 2), remove_live)
    assert faults(index)[0].endswith(
        f"entry of version 2 does not lead to its content: {kept} is too much or missing."
    )
    entry(tmp_path, 2).write_bytes(newest)
    edit(entry(tmp_path, 1), rename_added)
    (fault,) = faults(index)
    assert "entry of version 1 does not lead to its content: shard-0.parquet is" in fault
    entry(tmp_path, 1).write_bytes(whole[:-30])
    (fault,) = faults(index)
    assert fault.startswith(f"{entry(tmp_path, 1)}: this entry of the log cannot be read")
    entry(tmp_path, 1).unlink()
    assert faults(index) == [f"{tmp_path}: the log lacks version 1."]


def test_a_commit_that_adds_again_what_stays_leads_back(s3):
    # On a store a commit that renames the model names every shard once more.
    uri = f"{s3}/again/a"
    shards = [add_shard(uri, {f"p{n}": "1"}) for n in range(2)]
    commit(uri, shards)
    index = commit(uri, shards[:1], spec=replace(make_spec(2), weights="moved"))
    newest = read_commit(uri, 1)
    assert newest.added & newest.removed == {shards[0].path}
    assert newest.before(newest.shards) == {shard.path for shard in shards}
    assert faults(index) == []


def test_a_shard_that_the_log_never_added_is_named(tmp_path):
    index = sound(tmp_path)

    def drop_add(actions):
        actions[:] = [each for each in actions if "add" not in each]
        info = next(each for each in actions if "commitInfo" in each)["commitInfo"]
        info.clear()

    edit(entry(tmp_path, 0), drop_add)
    (fault,) = faults(index)
    assert fault.startswith(f"{tmp_path}: the log never added shard-")


def test_a_log_whose_beginning_was_cleaned_up_is_sound(tmp_path):
    shards = [add_shard(tmp_path, {f"p{n}": "1"}) for n in range(12)]
    for number, shard in enumerate(shards):
        seen = number - 1 if number else None
        commit_index(str(tmp_path), make_spec(2), [shard], run={}, seen_version=seen)
    for version in range(9):
        entry(tmp_path, version).unlink()
    assert faults(open_index(str(tmp_path))) == []
