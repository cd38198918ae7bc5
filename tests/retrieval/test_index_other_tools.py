"""What tools for Delta Lake make of an index, in their usual care of a table, stays an index."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from retrieval.errors import IndexFormatError
from retrieval.index import open_index, read_index, set_torn_entry_aside, update_plan
from retrieval.maintenance.check import check_index
from retrieval.vectors import open_source, read_blocks
from tests.retrieval.night_cases import gallery_of
from tests.retrieval.nights import SPEC, check, one_night, vector_of
from tests.retrieval.plain_difference import plain_difference


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(update_plan, "open_difference", plain_difference)


@pytest.fixture
def index(tmp_path):
    """An index of three shards, and its gallery."""
    uri, gallery = str(tmp_path / "index"), gallery_of(7)
    one_night(uri, gallery)
    gallery.put("new/8", b"eight")
    one_night(uri, gallery)
    return uri, gallery


def rewritten(uri, change, **options):
    """Every shard written anew by pyarrow, as another tool may, and committed by deltalake."""
    table = DeltaTable(uri)
    actions = []
    for number, file in enumerate(pa.table(table.get_add_actions(flatten=True)).to_pylist()):
        name = f"other-{number}.parquet"
        pq.write_table(change(pq.read_table(f"{uri}/{file['path']}")), f"{uri}/{name}", **options)
        size = len((pa.OSFile(f"{uri}/{name}")).read())
        stats = json.dumps({"numRecords": file["num_records"]}) if number else None
        actions += [
            AddAction(name, size, {}, 1, True, stats),
            RemoveAction(file["path"], True, 1, size=file["size_bytes"], partition_values={}),
        ]
    table.create_write_transaction(actions, mode="append", schema=table.schema())


def with_type(name, kind):
    def change(table):
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, table[name].cast(kind))

    return change


def cleaned_up(uri):
    table = DeltaTable(uri)
    table.create_checkpoint()
    table.cleanup_metadata()


TOOLS = {
    "compact": lambda uri: DeltaTable(uri).optimize.compact(),
    "z-order": lambda uri: DeltaTable(uri).optimize.z_order(["image_id"]),
    "delete, restore": lambda uri: (DeltaTable(uri).delete(), DeltaTable(uri).restore(1)),
    "compact, vacuum": lambda uri: (
        DeltaTable(uri).optimize.compact(),
        DeltaTable(uri).vacuum(0, dry_run=False, enforce_retention_duration=False),
    ),
    "checkpoint": cleaned_up,
    "compact, checkpoint": lambda uri: (DeltaTable(uri).optimize.compact(), cleaned_up(uri)),
    "polars": lambda uri: pl.read_delta(uri).write_delta(uri, mode="overwrite"),
    "large": lambda uri: rewritten(uri, with_type("embedding", pa.large_binary())),
    "views": lambda uri: rewritten(uri, with_type("embedding", pa.binary_view())),
    "dictionaries": lambda uri: rewritten(
        uri, with_type("label", pa.dictionary(pa.int32(), pa.string())), use_dictionary=True
    ),
    "row groups": lambda uri: rewritten(uri, lambda table: table, row_group_size=1),
    "brotli": lambda uri: rewritten(uri, lambda table: table, compression="brotli"),
    "nanoseconds": lambda uri: rewritten(uri, with_type("modified_at", pa.timestamp("ns", "UTC"))),
    "more columns": lambda uri: rewritten(
        uri, lambda table: table.append_column("more", pa.nulls(len(table)))
    ),
    "other order": lambda uri: rewritten(uri, lambda table: table.select(table.column_names[::-1])),
}


def check_read(uri, gallery):
    """Whoever reads the index finds the gallery."""
    good = gallery.good()
    rows = read_index(uri)
    assert rows.ids == sorted(good)
    assert rows.embeddings.tolist() == [vector_of(good[name]).tolist() for name in rows.ids]
    source = open_source(uri)
    blocks = [block for file in source.files for block in read_blocks(source, file, 3)]
    found = {
        name.decode(): vector.tolist()
        for block in blocks
        for name, vector in zip(block.ids, block.vectors, strict=True)
    }
    assert found == {name: vector_of(content).tolist() for name, content in good.items()}
    # The vectors of these tests are not of length 1.
    assert not [fault for fault in check_index(rows.index).faults if "has length" not in fault]


@pytest.mark.parametrize("heal", [False, True])
@pytest.mark.parametrize("tool", TOOLS)
def test_the_night_after_a_tools_care_of_the_table_is_right(index, tool, heal):
    uri, gallery = index
    TOOLS[tool](uri)
    check_read(uri, gallery)
    gallery.photos.pop(sorted(gallery.good())[1])
    gallery.put("new/9", b"nine")
    executor, _ = one_night(uri, gallery, heal=heal)
    assert executor.embedded == ["new/9"]  # nothing else is embedded again
    check(uri, gallery)
    check_read(uri, gallery)
    one_night(uri, gallery)
    check(uri, gallery)


def test_rows_that_deltalake_has_deleted_are_embedded_again(index):
    uri, gallery = index
    gone = sorted(gallery.good())[0]
    DeltaTable(uri).delete(f"image_id = '{gone}'")
    assert gone not in read_index(uri).ids
    executor, _ = one_night(uri, gallery)
    assert executor.embedded == [gone]
    check(uri, gallery)


@pytest.mark.parametrize("damage", ["short", "long", "empty", "no text"])
def test_a_shard_of_others_that_does_not_fit_is_named_and_healed(index, damage):
    uri, gallery = index

    def change(table):
        if damage == "no text":
            broken = pa.array([b"\xff"] * len(table)).view(pa.string())
            return table.set_column(3 - 1, "content_sha256", broken)
        width = SPEC.row_bytes
        bad = {"short": b"\1" * (width - 1), "long": b"\1" * (width + 2), "empty": None}[damage]
        values = [bad, *table["embedding"].to_pylist()[1:]]
        return with_type("embedding", pa.binary())(table).set_column(
            table.schema.get_field_index("embedding"), "embedding", pa.array(values, pa.binary())
        )

    rewritten(uri, change)
    assert check_index(open_index(uri)).faults
    if damage != "no text":  # which read_index does not read
        with pytest.raises(IndexFormatError, match=r"other-\d.parquet: this shard cannot be read"):
            read_index(uri)
    gallery.photos.pop(sorted(gallery.good())[1])
    with pytest.raises(IndexFormatError, match="`heal`"):
        one_night(uri, gallery)
    one_night(uri, gallery, heal=True)
    check(uri, gallery)
    check_read(uri, gallery)


def test_the_example_of_the_docs_reads_what_the_index_holds(index, monkeypatch):
    uri, gallery = index
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found = {}
    monkeypatch.chdir(Path(uri).parent)
    exec(example, found)
    rows = dict(zip(found["rows"]["image_id"], found["vectors"].tolist(), strict=True))
    good = gallery.good()
    assert rows == {name: vector_of(content).tolist() for name, content in good.items()}
    assert sorted(found["same"]) == sorted(found["rows"].rows())
    with pytest.raises(pl.exceptions.PolarsError):  # which is why the docs do not say so
        pl.read_parquet(uri)
    gallery.photos.pop(sorted(good)[0])
    one_night(uri, gallery)
    assert pq.read_table(uri).num_rows > len(gallery.good())


def test_what_others_commit_is_not_ours_to_set_aside(index):
    uri, _ = index
    DeltaTable(uri).optimize.compact(min_commit_interval=timedelta(0))
    with pytest.raises(Exception, match="no torn entry"):
        set_torn_entry_aside(uri)
    assert np.isfinite(read_index(uri).embeddings).all()
