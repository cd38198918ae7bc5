"""A drawn gallery through the whole chain, on this machine: what the project does, in minutes.

Reads       nothing.
Writes      drawn photos, augmented ones, a model, indexes and rankings before and after
            training, figures and an HTML report, all below one folder.
Resources   a Ray of its own.
Resume      run again: drawings, augmented photos and the model are kept, the rest is made anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines import augment, embed, rank, train
from pipelines.augment.output import check_places as check_augmented
from pipelines.embed.inputs import check_output as check_index
from pipelines.progress import STDERR
from pipelines.ray_runtime.session import session
from pipelines.train.places import check_places as check_model
from pipelines.train.publishing import finished_model
from retrieval.drawn import DrawnGallery, draw_gallery
from retrieval.errors import StorageError
from retrieval.evaluation import Evaluation, evaluate
from retrieval.format_version import FORMAT_VERSION
from retrieval.index import UpdateCounts
from retrieval.ranking.files import check_ranking_place
from retrieval.report_page import check_output, write_report
from retrieval.storage import absolute_uri, entries, entry_at, join, read_json, write_bytes

__all__ = ["run"]

HONEST = (
    "Before: random weights, which tell photos apart by colour and texture only. After: a few "
    "epochs on the drawn gallery, from those same weights. Both are far from what pretrained "
    "weights and real photos give; what counts is that every step has run."
)

# Small, so that all of it takes a few minutes on two cores.
_AUGMENT = augment.AugmentConfig(per_class=40, size=128)
_TRAIN = train.TrainConfig(
    mode="from-scratch", image_size=96, epochs=6, learning_rate=1e-3, recipe="light"
)
_UNTRAINED = embed.EmbedConfig(weights="none", image_size=_TRAIN.image_size, new_model=True)


@dataclass(frozen=True)
class _Places:
    """Where things are, below one folder."""

    folder: str

    @property
    def augmented(self) -> str:
        return join(self.folder, "augmented")

    @property
    def model(self) -> str:
        return join(self.folder, "model")

    @property
    def page(self) -> str:
        return join(self.folder, "report.html")

    @property
    def metrics(self) -> str:
        return join(self.folder, "metrics.json")

    def of(self, state: str, name: str) -> str:
        """Index or ranking "before" or "after" training."""
        return join(self.folder, state, name)


def run(output: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Draw, augment, embed, rank, evaluate, train, embed, rank, evaluate again, report.

    Args:
        output: A folder; made if it is not there.
        say: Called with one line before each step, and for each epoch.

    Returns:
        The report: figures before and after training, where things are, seconds.
    """
    start = time.monotonic()
    places = _Places(absolute_uri(output))
    _check_places(places)
    say("1/6  drawing 12 buildings, each seen many times ...")
    drawn = draw_gallery(Path(places.folder, "photos"))
    with session():
        say("2/6  embedding, ranking and evaluating with an untrained network ...")
        before, embedded = _measure(drawn, places, "before", _UNTRAINED)
        say(
            f"     {embedded.num_embedded} gallery files embedded, {embedded.num_rejected} "
            f"rejected on purpose: {_in_words(embedded.reject_reasons)}"
        )
        say(f"3/6  multiplying the gallery's photos to {_AUGMENT.per_class} a building ...")
        made = augment.run(str(drawn.gallery), places.augmented, _AUGMENT, lambda line: None)
        say(f"     {made.num_augmented} made of {made.num_originals}")
        say(f"4/6  training a network on them, {_TRAIN.epochs} epochs ...")
        trained = train.run(
            places.augmented, places.model, _TRAIN, say=lambda line: say(f"     {line}")
        )
        say("5/6  embedding, ranking and evaluating with the trained network ...")
        trained_one = embed.EmbedConfig(model=places.model, new_model=True)
        after, _ = _measure(drawn, places, "after", trained_one)
    say("6/6  writing the report ...")
    page = places.page
    write_report(
        places.of("after", "ranking"),
        page,
        queries=places.of("after", "queries"),
        gallery=places.of("after", "gallery"),
        progress=STDERR,
    )
    figures = {"before": before, "after": after}
    states = {state: found.to_json() for state, found in figures.items()}
    content = json.dumps({FORMAT_VERSION: 1, **states}, indent=2) + "\n"
    write_bytes(places.metrics, content.encode())
    for state in figures:
        say(f"     {state:6} training: {_accuracies(figures[state])}")
    say(f"     {HONEST}")
    say(f"Open {page}")
    return {
        "report": page,
        **{state: _summary(found) for state, found in figures.items()},
        "num_rejected": embedded.num_rejected,
        "best_epoch": trained.best["epoch"],
        "note": HONEST,
        "paths": {
            "photos": str(Path(places.folder, "photos")),
            "augmented": places.augmented,
            "contact_sheet": made.contact_sheet,
            "model": places.model,
            "learning_curve": trained.learning_curve,
            **{name: places.of("after", name) for name in ("queries", "gallery", "ranking")},
        },
        "seconds": round(time.monotonic() - start, 1),
    }


def _check_places(places: _Places) -> None:
    """Refuse a folder in which a step would replace or remove what it has not written.

    Raises:
        StorageError: it holds such a file, or a link.
    """
    photos = join(places.folder, "photos")
    sides = {(state, name) for state in ("before", "after") for name in ("queries", "gallery")}
    rankings = [places.of(state, "ranking") for state in ("before", "after")]
    indexes = [places.of(state, name) for state, name in sides]
    states = [join(places.folder, state) for state in ("before", "after")]
    for folder in (photos, places.augmented, places.model, *states, *indexes, *rankings):
        entry = entry_at(folder)
        if entry and entry.kind != "folder":
            raise _foreign(folder)
    if any(entries(photos)):
        draw_gallery(Path(photos))  # draws nothing: tells whether it is this very gallery
    check_augmented(join(photos, "gallery"), places.augmented)
    if finished_model(places.model, {"photos": places.augmented, **asdict(_TRAIN)}) is None:
        check_model(places.augmented, places.model, _TRAIN)
    for index in indexes:
        check_index(index)
    for ranking in rankings:
        check_ranking_place(ranking)
    check_output(places.page)
    if entry_at(places.metrics) and not _is_metrics(places.metrics):
        raise _foreign(places.metrics)


def _is_metrics(uri: str) -> bool:
    entry = entry_at(uri)
    try:
        is_file = entry is not None and entry.kind == "file"
        found = read_json(uri) if is_file else {}
    except (OSError, ValueError):
        return False
    return {"before", "after"} <= found.keys()


def _foreign(uri: str) -> StorageError:
    return StorageError(
        f"{uri}: is not what demo has written, and would be replaced. Choose a new `output`."
    )


def _measure(
    drawn: DrawnGallery, places: _Places, state: str, config: embed.EmbedConfig
) -> tuple[Evaluation, UpdateCounts]:
    """Figures of a network on the drawn gallery, and what became of its images."""
    queries, gallery = places.of(state, "queries"), places.of(state, "gallery")
    ranking = places.of(state, "ranking")
    embed.run(str(drawn.queries), queries, config)
    embedded = embed.run(str(drawn.gallery), gallery, config)
    rank.run(queries, gallery, ranking, rank.RankConfig(top_k=None))
    return evaluate(ranking, queries, gallery), embedded.counts


def _summary(figures: Evaluation) -> dict[str, Any]:
    shown = ("top_1", "top_3", "top_10", "map", "num_queries", "num_gallery")
    found = figures.to_json()
    return {name: found[name] for name in shown}


def _in_words(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"


def _accuracies(figures: Evaluation) -> str:
    parts = [f"top-{k} {accuracy:.3f}" for k, accuracy in figures.top.items()]
    return ", ".join(parts) + f", mAP {figures.map:.3f}"
