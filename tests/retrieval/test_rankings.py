"""A ranking is there whole or not at all, and nothing else is ever removed for it."""

from __future__ import annotations

import json
import re

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, StorageError
from retrieval.ranking import ranking_writer as rankings
from retrieval.ranking.files import (
    RANKING_SCHEMA,
    RankingWriter,
    is_ranking,
    open_ranking,
    read_parts,
    remove_ranking,
)
from retrieval.storage import (
    entries,
    file_exists,
    list_files,
    read_bytes,
    remove_written,
    write_bytes,
)

FACTS = {
    "metric": "cosine",
    "top_k": 2,
    "queries": {"uri": "/é", "version": None},
    "s": [0.1, True],
}
ADVICE = "Choose a new folder, or one that holds a ranking to replace."


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def part(query, scores=(1.0, 0.5)):
    """The neighbours of one query."""
    return pa.table(
        {
            "query_id": [query] * len(scores),
            "rank": np.arange(1, len(scores) + 1),
            "gallery_id": [f"{query}-{n}" for n in range(len(scores))],
            "score": pa.array(scores, pa.float64()),
        }
    )


def write(uri, queries, facts=FACTS):
    writer = RankingWriter(str(uri))
    for query in queries:
        writer.write_part(part(query))
    writer.finish(facts)


def queries_of(uri):
    tables = read_parts(open_ranking(str(uri)))
    return [query for table in tables for query in table["query_id"].to_pylist()[::2]]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_ranking_comes_back_in_its_order_bit_for_bit(tmp_path):
    scores = [1.0, np.nextafter(0.5, 1), 5e-324, 0.0, -0.0, -1e300]
    writer = RankingWriter(f"{tmp_path}/ranking/")
    tables = [part(query, scores) for query in ("é/ü", "b", "a")]
    for table in tables:
        writer.write_part(table)
    writer.finish(FACTS)
    ranking = open_ranking(f"{tmp_path}/ranking/")
    assert (ranking.uri, ranking.facts) == (f"{tmp_path}/ranking", FACTS)
    assert [name[:11] for name in ranking.parts] == ["part-00000-", "part-00001-", "part-00002-"]
    for table, expected in zip(read_parts(ranking), tables, strict=True):
        assert table.schema.equals(RANKING_SCHEMA)
        assert table.equals(expected.cast(RANKING_SCHEMA))
        assert np.asarray(table["score"]).tobytes() == np.array(scores).tobytes()
    assert [table.column_names for table in read_parts(ranking, ["rank"])] == [["rank"]] * 3
    assert not list(tmp_path.glob("ranking/.*"))


def test_a_ranking_of_no_query_is_a_ranking(tmp_path):
    write(tmp_path, [])
    assert open_ranking(str(tmp_path)).parts == ()
    assert queries_of(tmp_path) == []


def test_the_manifest_is_what_a_person_can_read(tmp_path):
    write(tmp_path, ["a"])
    manifest = json.loads((tmp_path / "_ranking.json").read_text())
    assert manifest == FACTS | {"parts": list(open_ranking(str(tmp_path)).parts)}


def test_a_new_ranking_replaces_the_old_one_and_its_files(tmp_path):
    write(tmp_path, ["a", "b", "c"])
    write(tmp_path, ["x"], {"n": 2})
    assert queries_of(tmp_path) == ["x"]
    assert open_ranking(str(tmp_path)).facts == {"n": 2}
    assert names(tmp_path) == ["_ranking.json", *open_ranking(str(tmp_path)).parts]


def test_until_the_new_ranking_is_finished_the_old_one_is_whole(tmp_path, monkeypatch):
    write(tmp_path, ["a", "b"])
    RankingWriter(str(tmp_path)).write_part(part("killed"))  # never finished
    assert queries_of(tmp_path) == ["a", "b"]

    steps = []

    def write_and_tell(uri, data):
        steps.append(("write", uri.rsplit("/", 1)[-1][:5], queries_of(tmp_path)))
        write_bytes(uri, data)

    def remove_and_tell(folder, names):
        steps.extend(("remove", name[:5], queries_of(tmp_path)) for name in names)
        remove_written(folder, names)

    monkeypatch.setattr(rankings, "write_bytes", write_and_tell)
    monkeypatch.setattr(rankings, "remove_written", remove_and_tell)
    write(tmp_path, ["x"])
    assert steps == [
        ("write", "part-", ["a", "b"]),
        ("write", "_rank", ["a", "b"]),
        *[("remove", "part-", ["x"])] * 3,  # those of the killed run too
    ]
    assert names(tmp_path) == ["_ranking.json", *open_ranking(str(tmp_path)).parts]


def test_a_reader_that_opened_the_old_ranking_is_told_that_it_has_gone(tmp_path):
    write(tmp_path, ["a"])
    old = open_ranking(str(tmp_path))
    write(tmp_path, ["b"])
    message = (
        f"{tmp_path}/{old.parts[0]}: this part cannot be read (No such file or directory). "
        f"Rank again."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        list(read_parts(old))


def test_a_run_goes_on_after_the_parts_of_the_same_run_alone(tmp_path):
    write(tmp_path, ["old"])
    killed = RankingWriter(str(tmp_path), "0123456789ab")
    killed.write_part(part("a"))
    killed.write_part(part("b"))
    RankingWriter(str(tmp_path), "ba9876543210").write_part(part("other"))
    assert queries_of(tmp_path) == ["old"]

    writer = RankingWriter(str(tmp_path), "0123456789ab")
    assert [writer.resume(), writer.resume(), writer.resume()] == [True, True, False]
    writer.write_part(part("c"))
    assert (writer.num_parts, writer.num_rows, writer.num_resumed) == (3, 6, 2)
    writer.finish({})
    assert queries_of(tmp_path) == ["a", "b", "c"]
    assert names(tmp_path) == ["_ranking.json", *open_ranking(str(tmp_path)).parts]
    again = RankingWriter(str(tmp_path), "0123456789ab")
    assert [again.resume() for _ in range(4)] == [True, True, True, False]


def test_a_part_that_is_damaged_or_strange_is_not_gone_on_from(tmp_path):
    RankingWriter(str(tmp_path), "0123456789ab").write_part(part("a"))
    (path,) = tmp_path.glob("part-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert not RankingWriter(str(tmp_path), "0123456789ab").resume()
    pq.write_table(pa.table({"x": [1]}), path)
    assert not RankingWriter(str(tmp_path), "0123456789ab").resume()
    path.write_bytes(whole)
    assert RankingWriter(str(tmp_path), "0123456789ab").resume()


@pytest.mark.parametrize(
    "strange",
    [
        "notes.txt",
        "ranking.json.bak",
        "sub/ranking.json",
        # As Spark, pandas and Ray name shards: a gallery must never be taken for a ranking.
        "part-00000-36b2f1f0-6a2c-4c5e-9b1e-0123456789ab-c000.snappy.parquet",
        "part-00000-36b2f1f0-6a2c-4c5e-9b1e-0123456789ab-c000.parquet",
        "part-0.parquet",
        "part-00000.parquet",
        "part-00000-0123456789ab/photo.parquet",
        "part-00000-0123456789ab.parquet.crc",
    ],
)
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, strange):
    folder = tmp_path / "folder"
    write(folder, ["a"])
    (folder / strange).parent.mkdir(exist_ok=True)
    (folder / strange).write_bytes(b"precious")
    message = f"{folder}: holds {strange}, which is no part of a ranking. {ADVICE}"
    with pytest.raises(StorageError, match=line(message)):
        RankingWriter(str(folder))
    assert (folder / strange).read_bytes() == b"precious"
    assert queries_of(folder) == ["a"]


def test_others_read_the_folder_as_one_of_parquet(tmp_path):
    """The manifest and hidden files of others are passed over; see docs/formats.md."""
    folder = tmp_path / "ranking"
    write(folder, ["a", "b", "c"])
    (folder / ".gitignore").write_bytes(b"*")
    (folder / "_notes").mkdir()
    (folder / "_notes" / "x.txt").write_bytes(b"x")
    expected = pa.concat_tables(read_parts(open_ranking(str(folder)))).to_pylist()
    assert len(expected) == 6
    assert pads.dataset(str(folder)).to_table().to_pylist() == expected
    assert pq.read_table(folder).to_pylist() == expected
    assert pandas.read_parquet(folder).to_dict("records") == expected
    for named in (folder, f"{folder}/*.parquet"):
        rows = duckdb.sql(f"FROM read_parquet('{named}')").fetchall()
        assert rows == [tuple(row.values()) for row in expected]
    assert polars.read_parquet(folder / "*.parquet").to_dicts() == expected


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_a_ranking_of_the_first_releases_is_read_and_replaced(tmp_path, request, place):
    """Theirs is ranking.json; of two manifests the newer name's is the last that was written."""
    folder = str(tmp_path / "r") if place == "disk" else f"{request.getfixturevalue('s3')}/first"
    write(folder, ["a", "b"])
    old = read_bytes(f"{folder}/_ranking.json")
    write_bytes(f"{folder}/ranking.json", old)
    remove_written(folder, ["_ranking.json"])
    opened = open_ranking(folder)
    assert (queries_of(folder), opened.manifest) == (["a", "b"], f"{folder}/ranking.json")
    assert is_ranking(folder)
    killed = RankingWriter(folder, "0123456789ab")
    killed.write_part(part("x"))
    assert queries_of(folder) == ["a", "b"]

    writer = RankingWriter(folder, "0123456789ab")
    assert writer.resume()
    writer.finish(FACTS)
    assert queries_of(folder) == ["x"]
    assert sorted(entry.path for entry in entries(folder)) == [
        "_ranking.json", *open_ranking(folder).parts
    ]  # fmt: skip

    write_bytes(f"{folder}/ranking.json", old)  # as a kill before it was removed leaves it
    assert queries_of(folder) == ["x"]
    write(folder, ["y"])
    assert queries_of(folder) == ["y"]
    assert not file_exists(f"{folder}/ranking.json")
    write_bytes(f"{folder}/ranking.json", old)
    remove_ranking(folder)
    assert not is_ranking(folder)
    assert not list(entries(folder))


@pytest.mark.parametrize("name", ["_ranking.json", "ranking.json"])
@pytest.mark.parametrize("kind", ["folder", "link", "of somebody else"])
def test_a_manifest_that_no_job_has_written_is_left_alone(tmp_path, name, kind):
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path)
    else:
        path.write_bytes(b'{"my": "results"}')
    with pytest.raises(StorageError, match=f"holds {name}, which is no part of a ranking"):
        RankingWriter(str(path.parent))


def test_hidden_files_beside_a_ranking_stay(tmp_path):
    (tmp_path / ".gitignore").write_bytes(b"*")
    write(tmp_path, ["a"])
    write(tmp_path, ["b"])
    assert names(tmp_path)[0] == ".gitignore"


def test_a_place_that_cannot_hold_a_ranking_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match=line(f"{tmp_path}/file: is a file. {ADVICE}")):
        RankingWriter(f"{tmp_path}/file")
    message = (
        f"{tmp_path}/file/below: cannot be written (Not a directory). Choose a folder that you may "
        f"write to and that has room."
    )
    with pytest.raises(StorageError, match=line(message)):
        RankingWriter(f"{tmp_path}/file/below")
    assert names(tmp_path) == ["file"]


def none_there(uri):
    return line(
        f"{uri}: no finished ranking there (no _ranking.json). Make one: retrieval-cli rank "
        f"QUERIES GALLERY {uri}"
    )


def test_what_is_no_finished_ranking_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    RankingWriter(f"{tmp_path}/half").write_part(part("a"))
    for name in ("missing", "half"):
        with pytest.raises(StorageError, match=none_there(f"{tmp_path}/{name}")):
            open_ranking(f"{tmp_path}/{name}")
    with pytest.raises(StorageError, match=r"no finished ranking there .*, but a file\. Name "):
        open_ranking(f"{tmp_path}/file")
    write(tmp_path / "half", ["b"])  # the next run finishes it
    assert queries_of(tmp_path / "half") == ["b"]
    assert len(names(tmp_path / "half")) == 2


@pytest.mark.parametrize(
    "content", [b"", b'{"parts": ["a"', b"[]", b"7", b"null", b"{}", b'{"parts": null}', b"\xff{}"]
)
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "_ranking.json").write_bytes(content)
    with pytest.raises(IndexFormatError) as error:
        open_ranking(str(tmp_path))
    path = re.escape(f"{tmp_path}/_ranking.json")
    assert re.fullmatch(rf"{path}: cannot be read \(.+\)\. Rank again\.", str(error.value))


def test_a_damaged_part_is_named_after_the_good_ones(tmp_path):
    write(tmp_path, ["a", "b"])
    ranking = open_ranking(str(tmp_path))
    path = tmp_path / ranking.parts[1]
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    end = column.dictionary_page_offset or column.data_page_offset
    end += column.total_compressed_size
    flipped = whole[: end - 1] + bytes([whole[end - 1] ^ 1]) + whole[end:]
    for content in (b"", whole[:-30], whole[30:], flipped):
        path.write_bytes(content)
        tables = read_parts(ranking)
        assert next(tables)["query_id"].to_pylist() == ["a", "a"]
        with pytest.raises(IndexFormatError) as error:
            next(tables)
        message = rf"{re.escape(str(path))}: this part cannot be read \(.+\)\. Rank again\."
        assert re.fullmatch(message, str(error.value))


@pytest.mark.parametrize("name", ["../part-00000-0123456789ab.parquet", "/etc/passwd", "a.parquet"])
def test_a_manifest_leads_to_no_file_that_is_no_part(tmp_path, name):
    write(tmp_path, ["a"])
    manifest = tmp_path / "_ranking.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "parts": [name]}))
    message = f"{manifest}: names {name!r}, which is no part of a ranking. Rank again."
    with pytest.raises(IndexFormatError, match=line(message)):
        open_ranking(str(tmp_path))


@pytest.mark.parametrize("said", [{"num_rows": 3}, {"num_rows": 5}, {"num_queries": 1}])
def test_parts_of_more_or_fewer_rows_than_the_manifest_says_are_noticed(tmp_path, said):
    write(tmp_path, ["a", "b"], {**FACTS, "num_rows": 4, "num_queries": 2})
    assert queries_of(tmp_path) == ["a", "b"]
    write(tmp_path, ["a", "b"], {**FACTS, "num_rows": 4, "num_queries": 2, **said})
    with pytest.raises(IndexFormatError, match=r"but its parts hold 4 of 2\. Rank again\.$"):
        queries_of(tmp_path)


def test_rows_that_are_no_ranking_are_not_written(tmp_path):
    writer = RankingWriter(str(tmp_path))
    with pytest.raises(ValueError, match="schema's field names are not matching"):
        writer.write_part(part("a").drop_columns(["rank"]))
    with pytest.raises(ValueError, match="null"):
        writer.write_part(part("a", (1.0, None)))
    assert names(tmp_path) == []


def test_a_ranking_lives_on_s3_too(s3):
    uri = f"{s3}/ranking of ü/x"
    with pytest.raises(StorageError, match=none_there(uri)):
        open_ranking(uri)
    write(uri, ["a", "b"])
    write(f"{uri}/", ["x", "y", "z"])
    assert queries_of(uri) == ["x", "y", "z"]
    assert len(list_files(uri)) == 3  # a name with "_" is hidden
    RankingWriter(uri, "0123456789ab").write_part(part("killed"))
    assert queries_of(uri) == ["x", "y", "z"]
    again = RankingWriter(uri, "0123456789ab")
    assert again.resume()
    again.finish({})
    assert queries_of(uri) == ["killed"]
    assert len(list_files(uri)) == 1
    write_bytes(f"{uri}/precious.parquet", b"x")
    with pytest.raises(StorageError, match=f"^{uri}: holds precious.parquet, which is no part"):
        RankingWriter(uri)
