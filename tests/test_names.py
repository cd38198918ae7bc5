"""What others name, photos above all, stays a name: no path out, no line of a log, no formula."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest

from pipelines.augment.plan import plan_classes
from pipelines.progress import announce
from retrieval.augmentations import load_recipe
from retrieval.augmentations.multiplying import Method
from retrieval.errors import UsageError
from retrieval.experiments import as_csv
from retrieval.one_line import one_line
from retrieval.storage import join_inside

OUTSIDE = ["../a.jpg", "a/../../b.jpg", "..", "/etc/a.jpg", "a/./b", "a\0b"]
INSIDE = ["a.jpg", "a/b..c", "..a/b", "a/...", "a//b", "a b#c?d%20é\n"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_a_folder_is_refused(name):
    with pytest.raises(UsageError, match="would be written outside s3://bucket/out"):
        join_inside("s3://bucket/out", name)


@pytest.mark.parametrize("name", INSIDE)
def test_other_names_are_not(name):
    assert join_inside("/out", name) == f"/out/{name}"


@pytest.mark.parametrize(("name", "rule"), [("../a.jpg", "folder"), ("a/../../b.jpg", "none")])
def test_augment_refuses_such_an_id_before_it_makes_anything(name, rule):
    photos = {
        "image_id": [name],
        "uri": ["s3://bucket/a.jpg"],
        "size_bytes": [1],
        "label": ["label"],
        "content_sha256": ["0" * 64],
    }
    method = Method(load_recipe("paper"), 0, 64, 90)
    with pytest.raises(UsageError, match="would be written outside the output"):
        plan_classes(pa.table(photos), rule, method, per_class=2, kind="jpeg")


def test_what_is_announced_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "a-secret-token")
    announce("class 'a\nError: \x1b[2Jb\r' has a-secret-token – × é")
    assert capsys.readouterr().err == "class 'a\\nError: \\x1b[2Jb\\r' has *** – × é\n"
    assert one_line("plain – text, × é") == "plain – text, × é"


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_cell_of_a_table_is_a_formula_or_a_new_line(start):
    row = {"text": f"{start}1+cmd", "plain": "a=b", "number": -0.5, "none": None, "two": "a\rb\nc"}
    data = as_csv([row])
    (row,) = csv.DictReader(io.StringIO(data.decode(), newline=""))
    expected = {
        "text": f"'{start}1+cmd",
        "plain": "a=b",
        "number": "-0.5",
        "none": "",
        "two": r"a\rb\nc",
    }
    assert row == expected
