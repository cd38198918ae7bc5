"""The dashboard asks for metrics that we or Ray export, and for labels that ours have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipelines.metrics import _LABELS

FILE = Path(__file__).parents[1] / "examples" / "cluster" / "grafana.json"

# Ray puts ray_ in front of a name.
OURS = {f"ray_{name}": set(labels) for name, labels in _LABELS.items()}


def panels():
    return json.loads(FILE.read_text())["panels"]


def expressions():
    return [(panel["title"], each["expr"]) for panel in panels() for each in panel["targets"]]


def metrics(text):
    """Names of metrics in an expression or a source file."""
    return set(re.findall(r"\bray_[a-z0-9_]+\b", text))


def names_of_ray():
    """What Ray's own dashboards ask for, of the version that is installed."""
    from ray.dashboard.modules.metrics import dashboards

    folder = Path(dashboards.__file__).parent
    return set().union(*(metrics(path.read_text()) for path in folder.glob("*.py")))


def test_every_metric_is_one_that_is_exported():
    asked = set().union(*(metrics(expression) for _, expression in expressions()))
    assert set(OURS) <= asked  # each of ours is shown
    assert asked - set(OURS) <= names_of_ray()
    assert asked - set(OURS)


@pytest.mark.parametrize(("title", "expression"), expressions())
def test_figures_are_told_apart_by_labels_that_they_have(title, expression):
    known = [OURS[name] for name in metrics(expression) if name in OURS]
    grouped = [set(re.split(r",\s*", by)) for by in re.findall(r"by \(([^)]*)\)", expression)]
    assert grouped  # else the figures of all nodes or steps lie in one heap
    assert all(by <= labels for by in grouped for labels in known)


def test_a_legend_names_what_the_figures_are_told_apart_by():
    for panel in panels():
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            (grouped,) = {by for by in re.findall(r"by \(([^)]*)\)", target["expr"])}
            assert named == set(re.split(r",\s*", grouped)), panel["title"]


def test_grafana_can_import_it_whatever_its_prometheus_is_called():
    dashboard = json.loads(FILE.read_text())
    assert dashboard["schemaVersion"] >= 39
    (variable,) = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    for panel in panels():
        sources = [panel["datasource"], *(each["datasource"] for each in panel["targets"])]
        assert {source["uid"] for source in sources} == {"${" + variable["name"] + "}"}


def test_the_panels_fill_rows_of_24_columns_without_a_gap():
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert set(cells) == {(x, y) for x in range(24) for y in range(max(y for _, y in cells) + 1)}
    assert len({panel["id"] for panel in panels()}) == len(panels())
