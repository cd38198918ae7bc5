"""The comparison of our figures with the paper's, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from retrieval.experiments.outcomes import DONE, IMPOSSIBLE, Record
from retrieval.experiments.rows import PAPER_BASIS, SMALL_PHOTOS_PER_CLASS
from retrieval.one_line import one_line, spelled

__all__ = ["Facts", "as_csv", "as_json", "as_markdown"]

_FORMULA: Final = ("=", "+", "-", "@")  # how one begins
_NOTHING: Final = "–"
_MARK: Final = "†"
_SOURCE: Final = "https://download.pytorch.org/models/"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was run, for the head of the page.

    Attributes:
        scale: "full" or "small".
        epochs, image_size, batch_size, seed: Of the trainings.
        per_class: Images of a class in the augmented data sets.
        photos: Where the photos come from.
        num_queries, num_gallery: Photos on the two sides.
        num_classes: Classes of the gallery.
        num_query_classes: Of which there are queries.
        chance: What top-1, top-3 and top-10 would be if the gallery were shuffled.
    """

    scale: str
    epochs: int
    image_size: int
    batch_size: int
    seed: int
    per_class: int
    photos: str
    num_queries: int
    num_gallery: int
    num_classes: int
    num_query_classes: int
    chance: tuple[float, float, float]


def as_csv(records: Sequence[Record]) -> bytes:
    """The records as CSV, with a line of names; what is unknown is empty.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in each.items()} for each in records)
    return stream.getvalue().encode()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def as_json(report: Mapping[str, Any]) -> bytes:
    """A report as JSON that people can read too."""
    return (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode()


def as_markdown(facts: Facts, records: Sequence[Record]) -> bytes:
    """The page: what was run, the figures side by side, how they came about, what is lacking."""
    blocks = [_head(facts, records), _figures(records), _trainings(records), _lacking(records)]
    return ("\n\n".join(block for block in blocks if block) + "\n").encode()


def _head(facts: Facts, records: Sequence[Record]) -> str:
    num_done = sum(entry["status"] == DONE for entry in records)
    quick = (
        " This is a quick pass: its figures show that everything runs, not what a network can do."
        if facts.scale == "small"
        else ""
    )
    sets = ", ".join(f"`{name}`" for name in dict.fromkeys(r["data_set"] for r in records))
    return f"""# {len(records)} configurations, ours beside the paper's

{num_done} of {len(records)} rows are done, at scale {facts.scale}: {_epochs(facts.epochs)}, \
images of {facts.image_size} × {facts.image_size} pixels, batches of {facts.batch_size}, seed \
{facts.seed}.{quick}

* **Photos**: {_text(facts.photos)}: {facts.num_queries} queries of {facts.num_query_classes} \
classes, {facts.num_gallery} gallery photos of {facts.num_classes} classes. The queries are held \
out of everything else.
* **Training**: on the gallery photos, augmented by the recipe `paper` to {facts.per_class} \
images a class; a part of the photos, with their copies, is held out to find the best epoch, \
which is the one measured. The data sets ({sets}) differ in their seed alone.
* **small-df** trains on {SMALL_PHOTOS_PER_CLASS} photos of each class and their copies.
* **Measuring**: the whole gallery is ranked for each query by cosine similarity, exactly. \
Accuracy at top 1, 3 and 10; mean average precision (mAP). A shuffled gallery would give \
{" / ".join(map(_number, facts.chance))} by chance.
* **The paper's figures are of other photos**: {PAPER_BASIS["num_queries"]} queries, \
{PAPER_BASIS["num_classes"]} classes, {PAPER_BASIS["num_gallery"]} gallery images. A difference \
is ours minus the paper's and says how far apart the two are, not which is better; one query \
more or less found is {1 / facts.num_queries:.3f}."""


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _figures(records: Sequence[Record]) -> str:
    names = ("top_1", "top_3", "top_10")
    lines = [
        "| row | status | top-1 | top-3 | top-10 | mAP | paper top-1 | top-3 | top-10 "
        "| difference top-1 | top-3 | top-10 |",
        "|---|---|" + "---:|" * 10,
    ]
    for entry in records:
        mark = f" {_MARK}" if entry["note"] else ""
        cells = [
            entry["name"] + mark,
            _text(entry["status"].partition(":")[0]),
            *(_number(entry[name]) for name in (*names, "map")),
            *(_number(entry[f"paper_{name}"]) + mark for name in names),
            *(_number(entry[f"difference_{name}"], "+") for name in names),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if any(entry["note"] for entry in records):
        lines += ["", f"{_MARK} {IMPOSSIBLE[0].upper()}{IMPOSSIBLE[1:]}."]
    return "\n".join(lines)


def _trainings(records: Sequence[Record]) -> str:
    names = ("epochs", "best_epoch", "training_s", "num_queries", "num_classes", "num_gallery")
    lines = [
        "## How they came about",
        "",
        "| row | network | mode | data set | photos a class | epochs | best epoch "
        "| training seconds | queries | of classes | gallery |",
        "|---|---|---|---|" + "---:|" * 7,
    ]
    for entry in records:
        cells = [
            *(entry[name] for name in ("name", "network", "mode", "data_set")),
            entry["photos_per_class"] or "all",
            *(_NOTHING if entry[name] is None else entry[name] for name in names),
        ]
        lines.append(f"| {' | '.join(map(_text, cells))} |")
    return "\n".join(lines)


def _lacking(records: Sequence[Record]) -> str:
    lacking = [entry for entry in records if ":" in entry["status"]]
    if not lacking:
        return ""
    lines = ["## What is lacking", ""]
    lines += [f"* {entry['name']}: {_text(entry['status'])}" for entry in lacking]
    if any(entry["status"].startswith("weights missing") for entry in lacking):
        lines += [
            "",
            f"Missing weights are to be had at {_SOURCE} under the names of their files. Put them "
            f"at those paths and run the same command again: rows that are done are kept.",
        ]
    return "\n".join(lines)


def _number(value: float | None, sign: str = "") -> str:
    return _NOTHING if value is None else f"{value:{sign}.3f}".replace("-", "−")


def _text(value: object) -> str:
    """As text of a table's cell: names of files may hold anything."""
    return spelled(str(value)).replace("|", "\\|").replace("<", "&lt;")
