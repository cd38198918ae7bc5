"""What a killed run has left: found if it can be used, told apart, taken away."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import StorageError
from retrieval.index import stage
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.index.staging import (
    INDEX_REJECT_SCHEMA,
    Receipt,
    discard,
    read_receipts,
    read_rejects,
    rejects_folder,
    write_rejects,
)
from retrieval.storage import join, list_files
from tests.conftest import make_spec
from tests.retrieval.differences import refusal
from tests.retrieval.night_cases import rows

SPEC = make_spec(3)
RUN = ("20260101T000000-abc", 1_700_000_000_000_000)


def rejects(*names):
    return pa.Table.from_pylist([refusal(name) for name in names], INDEX_REJECT_SCHEMA)


def staged(uri, *good, bad=(), spec=SPEC, run=RUN):
    return stage(str(uri), spec, run, rows(*good, spec=spec), rejects(*bad))


def files(uri):
    """All files of a folder by their path inside it, hidden ones too."""
    return sorted(str(path.relative_to(uri)) for path in uri.rglob("*") if path.is_file())


def test_a_receipt_says_whose_work_it_is_and_where(tmp_path):
    receipt = staged(tmp_path, "a", "b", bad=["c"])
    assert receipt == Receipt(
        path=receipt.path,
        run_id=RUN[0],
        listed_us=RUN[1],
        fingerprint="f" * 64,
        dim=3,
        dtype="float16",
        shard=receipt.shard,
        rejects=receipt.path.replace(".json", ".rejects.parquet"),
    )
    assert receipt.path.startswith(f"_staging/{RUN[0]}-")
    assert files(tmp_path) == sorted([receipt.path, receipt.rejects, receipt.shard.path])
    assert json.loads((tmp_path / receipt.path).read_bytes()) == asdict(receipt)
    assert receipt.shard.num_rows == 2
    assert pq.read_table(tmp_path / receipt.shard.path) == rows("a", "b")
    assert read_rejects(str(tmp_path), [receipt.rejects]) == rejects("c")


def test_only_what_there_is_is_written(tmp_path):
    only_good, only_bad, nothing = (
        staged(tmp_path, "a"),
        staged(tmp_path, bad=["b"]),
        staged(tmp_path),
    )
    assert (only_good.rejects, only_bad.shard) == (None, None)
    assert (nothing.shard, nothing.rejects) == (None, None)
    assert len(files(tmp_path)) == 5
    ours, others = read_receipts(str(tmp_path), SPEC)
    assert sorted(ours, key=repr) == sorted([only_good, only_bad, nothing], key=repr)
    assert others == []


def test_readers_of_tables_see_no_receipt(tmp_path):
    receipt = staged(tmp_path, "a", bad=["b"])
    write_rejects(str(tmp_path), "run", rejects("c"))
    assert list_files(str(tmp_path)) == [join(str(tmp_path), receipt.shard.path)]


def test_rows_that_do_not_fit_the_index_are_refused_before_a_receipt_is_there(tmp_path):
    with pytest.raises(pa.ArrowException):
        stage(str(tmp_path), SPEC, RUN, rows("a", spec=make_spec(4)), rejects())
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "other", [{"fingerprint": "e" * 64}, {"dim": 4}, {"dtype": "float32"}], ids=str
)
def test_work_of_another_make_is_told_apart(tmp_path, other):
    ours, strange = staged(tmp_path, "a"), staged(tmp_path, "b", spec=replace(SPEC, **other))
    assert read_receipts(str(tmp_path), SPEC) == ([ours], [strange])
    assert read_receipts(str(tmp_path), replace(SPEC, **other)) == ([strange], [ours])


def test_names_for_people_make_no_other_work(tmp_path):
    receipt = staged(tmp_path, "a")
    renamed = replace(SPEC, backbone="resnet18", weights="copy.safetensors")
    assert read_receipts(str(tmp_path), renamed) == ([receipt], [])


@pytest.mark.parametrize("damage", ["gone", "cut", "longer"])
def test_a_receipt_whose_shard_is_not_whole_is_of_no_use(tmp_path, damage):
    whole, broken = staged(tmp_path, "a"), staged(tmp_path, "b", bad=["c"])
    path = tmp_path / broken.shard.path
    content = path.read_bytes()
    path.write_bytes(content[:-1] if damage == "cut" else content + b"!")
    if damage == "gone":
        path.unlink()
    assert read_receipts(str(tmp_path), SPEC) == ([whole], [broken])


DAMAGED = {
    "empty": b"",
    "cut": b'{"path": "_staging/x.js',
    "a list": b"[]",
    "nothing": b"null",
    "a number": b"7",
    "no UTF-8": b'"\xff"',
    "no shard": b'{"path": "x"}',
    "a shard that is none": b'{"shard": "x"}',
    "a shard without its size": b'{"shard": {"path": "x", "num_rows": 1}}',
    "lacks its run": b'{"shard": null, "path": "x"}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_receipt_is_none(tmp_path, content):
    receipt = staged(tmp_path, "a", bad=["b"])
    (tmp_path / "_staging" / "0.json").write_bytes(content)
    assert read_receipts(str(tmp_path), SPEC) == ([receipt], [])


def test_a_receipt_of_a_later_make_with_one_more_entry_is_none(tmp_path):
    receipt = staged(tmp_path, "a")
    more = {**asdict(receipt), "colour": "red"}
    (tmp_path / receipt.path).write_text(json.dumps(more))
    assert read_receipts(str(tmp_path), SPEC) == ([], [])


def test_where_nothing_was_staged_there_is_nothing(tmp_path):
    assert read_receipts(str(tmp_path / "no folder"), SPEC) == ([], [])


def test_what_is_discarded_is_gone_and_the_shards_and_all_else_stay(tmp_path):
    kept, one, two = (
        staged(tmp_path, "a", bad=["b"]),
        staged(tmp_path, "c", bad=["d"]),
        staged(tmp_path, "e"),
    )
    (tmp_path / two.path).unlink()  # taken away before, by a run that was killed then
    discard(str(tmp_path), iter([one, two]))
    shards = [receipt.shard.path for receipt in (kept, one, two)]
    assert files(tmp_path) == sorted([kept.path, kept.rejects, *shards])
    assert read_receipts(str(tmp_path), SPEC) == ([kept], [])


def test_receipts_that_cannot_be_taken_away_are_an_error(tmp_path, monkeypatch):
    def refuse(folder, names):
        raise StorageError(f"{folder}: {names} cannot be removed")

    receipt = staged(tmp_path, "a")
    monkeypatch.setattr("retrieval.index.staging.remove_written", refuse)
    with pytest.raises(StorageError, match="cannot be removed"):
        discard(str(tmp_path), [receipt])


def test_rejects_are_read_from_files_and_from_folders(tmp_path):
    uri = str(tmp_path)
    receipt = staged(tmp_path, bad=["c", "b"])
    folder = write_rejects(uri, "run", rejects("é", "a"))
    assert folder == "_rejects/run"
    assert rejects_folder(uri, "run") == join(uri, folder)
    assert files(tmp_path / folder) == ["part-0.parquet"]
    write_rejects(uri, "another", rejects("z"))
    found = read_rejects(uri, [folder, receipt.rejects])
    assert found.schema == INDEX_REJECT_SCHEMA
    assert found == pa.concat_tables([rejects("é", "a"), rejects("c", "b")])


def test_without_rejects_no_folder_is_made_and_none_are_read(tmp_path):
    assert write_rejects(str(tmp_path), "run", rejects()) is None
    assert files(tmp_path) == []
    for paths in ([], ["_rejects/gone"], ["_staging/gone.rejects.parquet"]):
        assert read_rejects(str(tmp_path), paths) == rejects()


def as_parquet(table, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


@pytest.mark.parametrize(
    "table",
    [
        # As versions before this one were: without size and time.
        rejects("old").select(REJECT_SCHEMA.names),
        rejects("old").drop_columns(["size_bytes"]),
        rejects("old").drop_columns(["modified_at"]),
        rejects("old").set_column(4, "size_bytes", pa.array(["many"])),
        rejects("old").set_column(4, "size_bytes", pa.array([None], pa.int64())),
    ],
    ids=["older", "no size", "no time", "no number", "empty cell"],
)
def test_rejects_of_another_make_are_none_so_that_their_photos_are_tried_again(tmp_path, table):
    write_rejects(str(tmp_path), "run", rejects("a"))
    as_parquet(table, tmp_path / "_rejects" / "run" / "part-1.parquet")
    assert read_rejects(str(tmp_path), ["_rejects/run"]) == rejects("a")


def test_columns_in_another_order_and_more_of_them_do_no_harm(tmp_path):
    table = rejects("a").append_column("more", pa.array([1]))
    as_parquet(table.select(table.column_names[::-1]), tmp_path / "r" / "part.parquet")
    assert read_rejects(str(tmp_path), ["r"]) == rejects("a")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_rejects_are_none(tmp_path, damage):
    write_rejects(str(tmp_path), "run", rejects("a"))
    path = tmp_path / "_rejects" / "run" / "part-0.parquet"
    content = path.read_bytes()
    damaged = {"cut": content[:-20], "flipped": content[:60] + b"\xff" + content[61:], "empty": b""}
    path.write_bytes(damaged[damage])
    write_rejects(str(tmp_path), "other", rejects("b"))
    assert read_rejects(str(tmp_path), ["_rejects/run", "_rejects/other"]) == rejects("b")
