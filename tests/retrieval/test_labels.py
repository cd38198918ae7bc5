"""Each rule that gives photos their labels, and what it refuses."""

from __future__ import annotations

import codecs
import re
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.gallery.labels import as_labels, assign_labels
from retrieval.storage import write_bytes

IDS = ["a.jpg", "b/b 2.jpg", "é.jpg"]


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def labels_of(rule, ids=IDS):
    labels = assign_labels(ids, str(rule))
    assert labels.type == pa.string()
    return labels.to_pylist()


@pytest.fixture
def csv(tmp_path):
    """Writes a file of labels, and gives its name."""

    def write(content):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_none_labels_nothing():
    assert labels_of("none") == [None, None, None]
    assert labels_of("none", []) == labels_of("folder", []) == []


def test_folder_is_the_first_folder_of_the_id():
    ids = ["12/a/b.jpg", "12/c.jpg", "none.jpg", "é ü/x", "007/x"]
    assert labels_of("folder", ids) == ["12", "12", None, "é ü", "007"]
    assert labels_of("folder", ["/a.jpg", "/b/c.jpg"]) == [None, None]  # as of a manifest
    assert labels_of("folder", ["a.jpg"]) == [None]  # a gallery of distractors is allowed


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (r"class_(\d+)_", ["07", "12", None]),
        (r"no_(\d+).*\.(\w+)", ["1", "2", None]),  # the first group
        (r"no_(\d+).*\.(?P<label>\w+)", ["jpg", "png", None]),  # the one called label
        (r"^(?:class_)(\d+)", ["07", "12", None]),
        (r"(house|class)", ["class", "class", "house"]),  # the name, not the folder "house"
        (r"class_(\d+)|house", ["07", "12", None]),  # no part of the match
        (r"(\d*)\.jpg", ["1", None, None]),  # an empty match is no label
    ],
)
def test_a_pattern_is_searched_for_in_the_file_s_name(expression, expected):
    ids = ["house/class_07_no_1.jpg", "class_99_/class_12_no_2.png", "class_5_/a house.jpg"]
    assert labels_of(f"pattern:{expression}", ids) == expected


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (
            r"pattern:class_\d+",
            "has no group. Put the label into brackets, as in pattern:class_([0-9]+)_",
        ),
        ("pattern:", "has no group. Put the label into brackets, as in pattern:class_([0-9]+)_"),
        (
            "pattern:(a",
            "no valid regular expression (missing ), unterminated subpattern at position 0).",
        ),
        (
            "pattern:x(y)",
            "gives a label to none of the 3 photos, such as 'a.jpg'. Mend the rule, or use "
            "`labels` none.",
        ),
    ],
)
def test_a_pattern_that_cannot_label_is_refused(rule, problem):
    with pytest.raises(UsageError) as error:
        labels_of(rule)
    assert str(error.value).removeprefix(f"`labels` {rule}: ") == problem


@pytest.mark.parametrize(
    "content",
    [
        "image_id,label\na.jpg,007\nb/b 2.jpg,1e5\n",
        "image_id,label\r\na.jpg,007\r\nb/b 2.jpg,1e5\r\n",
        "image_id,label\na.jpg,007\nb/b 2.jpg,1e5",  # no last line break
        '"label","image_id"\n"007","a.jpg"\n1e5,"b/b 2.jpg"\n',
        codecs.BOM_UTF8 + b"image_id,label\na.jpg,007\nb/b 2.jpg,1e5\n",
        codecs.BOM_UTF8 + b'"image_id","label"\r\n"a.jpg",007\r\n"b/b 2.jpg",1e5\r\n',
        'split,"a ""note"", here",label,image_id\n1,x,007,a.jpg\n2,"y,z",1e5,b/b 2.jpg\n',
        "image_id,label\nunknown.jpg,8\na.jpg,007\nb/b 2.jpg,1e5\né.jpg,\n",  # an empty cell
        'image_id,label\na.jpg,007\nb/b 2.jpg,1e5\né.jpg,""\n',
    ],
)
def test_labels_in_csv_are_text_whatever_they_look_like(csv, content):
    assert labels_of(csv(content)) == ["007", "1e5", None]


def test_words_that_others_take_for_missing_are_labels(csv):
    content = 'image_id,label\na.jpg,NA\nb/b 2.jpg,null\né.jpg,"St. ""Anna"", Ulm"\n'
    assert labels_of(csv(content)) == ["NA", "null", 'St. "Anna", Ulm']


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("image_id;label\na.jpg;7\n", "'image_id;label'"),
        ("image_id\tlabel\na.jpg\t7\n", r"'image_id\tlabel'"),
        ("image_id, label\na.jpg, 7\n", "'image_id', ' label'"),
        ("id,label,x\na.jpg,7,8\n", "'id', 'label', 'x'"),
        ("a.jpg,7\n", "'a.jpg', '7'"),
    ],
)
def test_missing_columns_are_told_with_those_that_are_there(csv, content, found):
    path = csv(content)
    message = (
        f"`labels` {path}: has the columns {found}; 'image_id' and 'label' are needed. In a CSV "
        f"file, separate columns by commas."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        labels_of(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Empty CSV file"),
        ("image_id,label\na.jpg,7,8\n", "CSV parse error: Expected 2 columns, got 3: a.jpg,7,8"),
        (
            "image_id,label\na.jpg,é\n".encode("latin-1"),
            "In CSV column #1: CSV conversion error to string: invalid UTF8 data",
        ),
        ("image_id,label,label\na.jpg,7,8\n", "'Field \"label\" exists 2 times in schema'"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named_with_the_reason(csv, content, reason):
    path = csv(content)
    message = (
        f"`labels` {path}: cannot be read as CSV or Parquet ({reason}). Write it again, as UTF-8, "
        f"with one row a photo."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        labels_of(path)


def test_a_photo_with_two_rows_is_refused(csv):
    path = csv("image_id,label\na.jpg,7\nb/b 2.jpg,8\na.jpg,7\n")
    message = f"`labels` {path}: 'a.jpg' has 2 rows; one row a photo is needed."
    with pytest.raises(IndexFormatError, match=line(message)):
        labels_of(path)


@pytest.mark.parametrize("content", ["image_id,label\n", "image_id,label\nA.JPG,7\na.jpg,\n"])
def test_a_file_that_labels_no_photo_is_refused(csv, content):
    path = csv(content)
    message = (
        f"`labels` {path}: gives a label to none of the 3 photos, such as 'a.jpg'. Mend the rule, "
        f"or use `labels` none."
    )
    with pytest.raises(UsageError, match=line(message)):
        labels_of(path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array(["007", None, "x"]), ["007", None, "x"]),
        (pa.array(["007", "", "x"], pa.large_string()), ["007", None, "x"]),
        (pa.array([7, None, 8]), ["7", None, "8"]),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
    ],
)
@pytest.mark.parametrize("name", ["labels.parquet", "labels"])
def test_labels_in_parquet_become_text(tmp_path, labels, expected, name):
    pq.write_table(pa.table({"image_id": IDS, "x": [1, 2, 3], "label": labels}), tmp_path / name)
    assert labels_of(tmp_path / name, IDS[::-1]) == expected[::-1]


def test_damaged_parquet_is_named(tmp_path):
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"image_id": IDS, "label": ["x"] * 3}), path)
    whole = path.read_bytes()
    for torn in (whole[:-9], whole[:4] + whole[40:], whole[:4]):
        path.write_bytes(torn)
        with pytest.raises(IndexFormatError, match=f"^`labels` {path}: cannot be read as CSV or P"):
            labels_of(path)
    pq.write_table(pa.table({"image_id": IDS, "label": [[1]] * 3}), path)
    with pytest.raises(IndexFormatError, match=r"\(Unsupported cast from list<element: int64> to"):
        labels_of(path)


def test_a_rule_that_is_no_rule_and_no_file_is_refused(tmp_path):
    advice = "Use folder, none, pattern:REGEX or the name of a CSV or Parquet file."
    for rule, reason in (("folders", "No such file or directory"), (tmp_path, "Is a directory")):
        message = f"`labels` {rule}: cannot be read ({reason}). {advice}"
        with pytest.raises(StorageError, match=line(message)):
            labels_of(rule)


def test_labels_are_read_from_s3(s3):
    rule = f"{s3}/labels/labels.csv"
    write_bytes(rule, b"image_id,label\na.jpg,007\n")
    assert labels_of(rule) == ["007", None, None]
    with pytest.raises(StorageError, match=f"^`labels` {s3}/nothing: cannot be read \\(No such f"):
        labels_of(f"{s3}/nothing")


NAN = float("nan")
LABEL_COLUMNS = {
    "text": (["a", "", None, " "], ["a", None, None, " "]),
    "words": (["nan", "NA", "None", "null"], ["nan", "NA", "None", "null"]),
    "double": ([1.0, NAN, None, 2.5], ["1", None, None, "2.5"]),
    "integers": ([7, None, 0, -1], ["7", None, "0", "-1"]),
    "truth values": ([True, None, False, True], ["true", None, "false", "true"]),
    "large_string": (pa.array(["a", "", None, "b"], pa.large_string()), ["a", None, None, "b"]),
    "string_view": (pa.array(["a", "", None, "b"], pa.string_view()), ["a", None, None, "b"]),
    "half": (pa.array([1.0, NAN, None, 2.0], pa.float16()), ["1", None, None, "2"]),
    "dictionary": (pa.array(["a", "", None, "a"]).dictionary_encode(), ["a", None, None, "a"]),
    "dictionary of double": (
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0]), pa.array([3.0, NAN])),
        ["3", None, None, "3"],
    ),
    "time": (
        pa.array([0, None, 1, 2], pa.date32()),
        ["1970-01-01", None, "1970-01-02", "1970-01-03"],
    ),
    "bytes": (pa.array([b"a", b"", None, b"b"]), ["a", None, None, "b"]),
}


@pytest.mark.parametrize("kind", LABEL_COLUMNS)
def test_labels_of_every_type_are_text_and_none_where_there_is_none(tmp_path, kind):
    column, expected = LABEL_COLUMNS[kind]
    ids = list("wxyz")
    pq.write_table(pa.table({"image_id": ids, "label": column}), tmp_path / "labels.parquet")
    assert labels_of(tmp_path / "labels.parquet", ids) == expected
    column = pa.array(column) if isinstance(column, list) else column
    assert as_labels(column).to_pylist() == expected
    assert as_labels(pa.chunked_array([column[:2], column[2:]])).to_pylist() == expected


def test_ids_of_a_file_of_labels_may_be_of_any_type(tmp_path):
    for column in (pa.array(IDS).dictionary_encode(), pa.array(IDS, pa.large_string())):
        table = pa.table({"image_id": column, "label": [1, 2, 3]})
        pq.write_table(table, tmp_path / "labels.parquet")
        assert labels_of(tmp_path / "labels.parquet") == ["1", "2", "3"]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_cells_of_a_large_csv_may_hold_line_breaks_quotes_and_megabytes(csv, line_break):
    cell = f"two{line_break}lines, and ${line_break}"
    rows = ["image_id,label,more", f'a.jpg,"{cell}",1']
    rows += [f'{n}.jpg,"{n}{line_break}""x""",{n}' for n in range(60_000)]  # more than 1 MB
    rows += [f'é.jpg,"{"v" * 3_000_000}",text among numbers', ""]
    path = csv(line_break.join(rows))
    assert labels_of(path) == [cell, None, "v" * 3_000_000]
    assert labels_of(path, ["59999.jpg"]) == [f'59999{line_break}"x"']


def test_only_the_two_columns_are_read_and_a_repeated_label_is_held_once(tmp_path):
    num_rows, label = 20_000, "label" * 20_000
    columns = {
        "image_id": [f"{n}" for n in range(num_rows)],
        "label": pa.DictionaryArray.from_arrays(np.zeros(num_rows, np.int32), [label]),
        "more": ["y" * 2**20] * 200 + [""] * (num_rows - 200),
    }
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")  # 2 GB of labels, written out
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    pa.array([0])
    tracemalloc.start()
    assert labels_of(tmp_path / "labels.parquet", ["1", "7"]) == [label, label]
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()
    assert pool.max_memory() <= max(before, 200e6)


def test_columns_that_inflate_beyond_measure_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "labels.parquet"
    labels = pa.array(["\1" * 2**20]).take(pa.array(np.zeros(300, np.int64)))
    table = pa.table({"image_id": [f"{n}" for n in range(300)], "label": labels})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 2**20
    with pytest.raises(
        IndexFormatError, match=r"the column 'label' of row group 0 takes 3\d{8} by"
    ):
        labels_of(path)
