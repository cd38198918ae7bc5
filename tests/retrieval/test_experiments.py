"""The paper's table, the choice of queries, and the comparison in its three forms."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random

import pytest

from retrieval.errors import UsageError
from retrieval.experiments import (
    PAPER_BASIS,
    ROWS,
    Facts,
    Measured,
    Outcome,
    as_csv,
    as_json,
    as_markdown,
    chance_accuracy,
    choose_queries,
    choose_rows,
    record,
)
from retrieval.models.backbones import BACKBONES
from retrieval.models.folder import MODES

# As the report prints them, in per mille.
PRINTED = """
Resnet18_small-df                   830 864 920
Resnet18-full_layer-1               864 909 932
Resnet18-full_layer-2               852 909 943
Resnet18-full_layer-not_pretrained  511 670 852
Resnet18-last_layer                 852 886 932
Resnet50-full_layer                 784 886 932
Resnet50-last_layer                 830 898 932
Resnet101-full_layer-not_pretrained 409 580 693
Resnet101-last_layer                841 898 909
Resnet152-full_layer                865 886 909
Resnet152-last_layer                852 932 932
Resnet152-full_layer-not_pretrained 443 648 739
Resnext101_32x8d-full_layer         795 886 909
Resnext101_32x8d-last_layer         898 932 943
Wide_resnet101_2-not_pretrained     273 409 682
Wide_resnet101_2-last_layer         842 989 955
GoogleNet-full_layer                818 886 932
"""
FACTS = Facts(
    scale="small", epochs=1, image_size=64, batch_size=32, seed=0, per_class=24,
    photos="/data/a|b", num_queries=4, num_gallery=9, num_classes=3, num_query_classes=2,
    chance=(0.25, 0.5, 1.0),
)  # fmt: skip
MEASURED = Measured(
    top_1=0.75, top_3=0.9166666, top_10=1.0, map=0.5, epochs=3, best_epoch=2, training_s=12.5,
    num_queries=4, num_classes=2, num_gallery=9,
)  # fmt: skip


def test_the_table_has_the_17_rows_of_the_report_with_its_figures():
    printed = [line.split() for line in PRINTED.split("\n") if line]
    assert len(ROWS) == len(printed) == 17
    for row, (name, *figures) in zip(ROWS, printed, strict=True):
        assert row.name == name
        assert [round(1000 * figure) for figure in row.paper] == list(map(int, figures))
    assert PAPER_BASIS == {"num_queries": 100, "num_classes": 22, "num_gallery": 600}


def test_a_row_s_name_tells_its_network_and_its_mode():
    for row in ROWS:
        network = row.name.partition("-")[0].removesuffix("_small").lower()
        assert row.backbone == network
        assert row.backbone in BACKBONES
        in_name = [mode for mode in ("not_pretrained", "last_layer") if mode in row.name]
        expected = {"not_pretrained": "from-scratch", "last_layer": "last-layer"}
        assert row.mode == (expected[in_name[0]] if in_name else "full")
        assert row.mode in MODES
        assert row.weights is None
    assert [row.name for row in ROWS if row.photos_per_class] == ["Resnet18_small-df"]
    assert [row.name for row in ROWS if row.data_set] == ["Resnet18-full_layer-2"]
    assert [row.name for row in ROWS if row.is_impossible] == ["Wide_resnet101_2-last_layer"]


def test_rows_are_chosen_by_name_in_the_order_asked_for():
    names = ["GoogleNet-full_layer", "Resnet18_small-df", "GoogleNet-full_layer"]
    assert [row.name for row in choose_rows(ROWS, names)] == names[:2]
    assert choose_rows(ROWS, None) == ROWS
    with pytest.raises(UsageError) as caught:
        choose_rows(ROWS, ["Resnet50-full"])
    assert str(caught.value) == (
        "'Resnet50-full' is no row of the table. Near to it: Resnet50-full_layer, "
        "Resnet152-full_layer, Resnet50-last_layer."
    )
    with pytest.raises(UsageError, match=r"^'' is no row of the table\. Near to it: Resnet18_"):
        choose_rows(ROWS, [""])


@pytest.mark.parametrize("seed", range(5), ids="seed{}".format)
def test_the_choice_of_queries_hangs_on_ids_and_seed_alone(seed):
    ids = [f"{label}/{number}" for label in "abcd" for number in range("abcd".index(label) + 3)]
    labels = [image_id[0] for image_id in ids]
    chosen = choose_queries(ids, labels, per_class=2, seed=seed)
    # Three photos of a would leave one; b has four, c five, d six.
    assert sorted(image_id[0] for image_id in chosen) == list("bbccdd")
    order = list(range(len(ids)))
    random.Random(seed).shuffle(order)
    shuffled = [[values[place] for place in order] for values in (ids, labels)]
    assert choose_queries(*shuffled, per_class=2, seed=seed) == chosen
    # Without another class, and with one photo more of it, the others stay as they are.
    without = [image_id for image_id in ids if image_id[0] != "b"]
    fewer = choose_queries(without, [i[0] for i in without], per_class=2, seed=seed)
    assert fewer == {image_id for image_id in chosen if image_id[0] != "b"}
    assert any(choose_queries(ids, labels, per_class=2, seed=other) != chosen for other in (8, 9))


def test_chance_is_what_shuffling_gives():
    labels = "aaabb"  # every order of the gallery, for one query of each class
    for k in (1, 2, 4, 10):
        found = [query in order[:k] for query in "ab" for order in itertools.permutations(labels)]
        expected = sum(found) / len(found)
        assert chance_accuracy([3, 2], 5, k) == pytest.approx(expected)


@pytest.fixture
def records():
    known = {
        "Resnet18-full_layer-1": Outcome.done(MEASURED),
        "Resnet18-full_layer-2": Outcome.failed("model: the loss is nan, so there | is none."),
        "Resnet50-full_layer": Outcome.weights_missing("/cache/resnet50-0676ba61.pth"),
        "Wide_resnet101_2-last_layer": Outcome.done(MEASURED),
    }
    return [
        record(row, known.get(row.name, Outcome()), f"augmented-{row.data_set}") for row in ROWS
    ]


def test_a_record_says_all_there_is_to_say(records):
    assert records[1] == {
        "name": "Resnet18-full_layer-1", "network": "resnet18", "mode": "full",
        "data_set": "augmented-0", "photos_per_class": None, "status": "done",
        "top_1": 0.75, "top_3": 0.9167, "top_10": 1.0, "map": 0.5,
        "paper_top_1": 0.864, "paper_top_3": 0.909, "paper_top_10": 0.932,
        "difference_top_1": -0.114, "difference_top_3": 0.0077, "difference_top_10": 0.068,
        "epochs": 3, "best_epoch": 2, "training_s": 12.5,
        "num_queries": 4, "num_classes": 2, "num_gallery": 9, "note": None,
    }  # fmt: skip
    assert records[0]["photos_per_class"] == 5
    assert records[2]["status"] == "failed: model: the loss is nan, so there | is none."
    assert records[2]["data_set"] == "augmented-1"
    assert records[5]["status"] == "weights missing: /cache/resnet50-0676ba61.pth"
    assert {entry["status"] for entry in records[6:15]} == {"not run"}
    assert records[6]["top_1"] is records[6]["difference_top_1"] is records[6]["epochs"] is None
    noted = [entry["name"] for entry in records if entry["note"]]
    assert noted == ["Wide_resnet101_2-last_layer"]
    assert "impossible as printed" in records[15]["note"]


def test_csv_and_json_give_the_records_back(records):
    rows = list(csv.DictReader(io.StringIO(as_csv(records).decode())))
    assert [list(row) for row in rows] == [list(entry) for entry in records]
    for row, entry in zip(rows, records, strict=True):
        assert list(row.values()) == ["" if v is None else str(v) for v in entry.values()]
    assert json.loads(as_json({"rows": records})) == {"rows": records}


def cells_of(page, name, number):
    """The cells of a row in the table of that number."""
    lines = [line for line in page.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in lines[number].strip("|").split(" | ")]


def test_the_page_shows_ours_beside_the_paper_s(records):
    page = as_markdown(FACTS, records).decode()
    assert cells_of(page, "Resnet18-full_layer-1", 0)[1:] == [
        "done", "0.750", "0.917", "1.000", "0.500", "0.864", "0.909", "0.932",
        "−0.114", "+0.008", "+0.068",
    ]  # fmt: skip
    assert cells_of(page, "Resnet18-full_layer-1", 1)[1:] == [
        "resnet18", "full", "augmented-0", "all", "3", "2", "12.5", "4", "2", "9"
    ]  # fmt: skip
    assert cells_of(page, "Resnet18_small-df", 0)[1:6] == ["not run", "–", "–", "–", "–"]
    assert cells_of(page, "Resnet18_small-df", 1)[4] == "5"
    impossible = cells_of(page, "Wide_resnet101_2-last_layer †", 0)
    assert impossible[6:9] == ["0.842 †", "0.989 †", "0.955 †"]
    assert "† The paper's figures of this row are impossible as printed:" in page
    # Each row of a table has all its columns.
    for part in page.split("## How they came about"):
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1


def test_the_page_says_what_was_run_and_what_is_lacking(records):
    page = as_markdown(FACTS, records).decode()
    head = page.split("\n| row |")[0]
    for text in (
        "2 of 17 rows are done, at scale small: 1 epoch, images of 64 × 64 pixels",
        "quick pass",
        r"/data/a\|b: 4 queries of 2 classes, 9 gallery photos of 3 classes",
        "to 24 images a class",
        "**small-df** trains on 5 photos of each class",
        "figures are of other photos**: 100 queries, 22 classes, 600 gallery images",
        "one query more or less found is 0.250",
        "0.250 / 0.500 / 1.000 by chance",
    ):
        assert text in head
    assert page.split("## What is lacking\n\n")[1].splitlines()[:2] == [
        r"* Resnet18-full_layer-2: failed: model: the loss is nan, so there \| is none.",
        "* Resnet50-full_layer: weights missing: /cache/resnet50-0676ba61.pth",
    ]
    assert "https://download.pytorch.org/models/" in page
    nothing_lacks = as_markdown(FACTS, [entry for entry in records if entry["note"]]).decode()
    assert "lacking" not in nothing_lacks
    full = Facts(**{**vars(FACTS), "scale": "full", "epochs": 10})
    assert "quick pass" not in as_markdown(full, records).decode()
    assert "at scale full: 10 epochs" in as_markdown(full, records).decode()
