"""A drawn gallery through the whole chain, on this machine: what the project does, in a minute.

Reads       nothing.
Writes      drawn photos, an index of the queries and one of the gallery, a ranking, figures
            and an HTML report, all below one folder.
Resources   a Ray of its own.
Resume      run again: the drawings are kept, the rest is made anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import cluster, embed, evaluate, rank, report
from retrieval.drawn import draw_gallery
from retrieval.storage import absolute_uri, join, write_bytes

__all__ = ["run"]

HONEST = (
    "The network has random weights: nothing was trained and nothing downloaded. Such features "
    "tell photos apart by colour and texture only, so these figures are a floor, not a result."
)


def run(output: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Draw, embed, rank, evaluate, report.

    Args:
        output: A folder; made if it is not there.
        say: Called with one line before each step.

    Returns:
        The report: figures, where things are, seconds.
    """
    start = time.monotonic()
    folder = absolute_uri(output)
    say("1/5  drawing 12 buildings, each seen many times ...")
    drawn = draw_gallery(Path(folder, "photos"))
    paths = {name: join(folder, name) for name in ("queries", "gallery", "ranking")}
    page = join(folder, "report.html")
    config = embed.EmbedConfig(backbone="resnet18", weights="none")
    with cluster.session():
        say(f"2/5  embedding {drawn.num_queries} queries and {drawn.num_gallery} gallery files ...")
        embed.run(str(drawn.queries), paths["queries"], config)
        embedded = embed.run(str(drawn.gallery), paths["gallery"], config)
        say(
            f"     {embedded['num_embedded']} embedded, {embedded['num_rejected']} rejected on "
            f"purpose: {_in_words(embedded['reject_reasons'])}"
        )
        say("3/5  ranking the whole gallery for each query, exactly ...")
        rank.run(paths["queries"], paths["gallery"], paths["ranking"], rank.RankConfig(top_k=None))
    say("4/5  evaluating ...")
    figures = evaluate.run(paths["ranking"], paths["queries"], paths["gallery"])
    write_bytes(join(folder, "metrics.json"), (json.dumps(figures, indent=2) + "\n").encode())
    say("5/5  writing the report ...")
    report.run(paths["ranking"], page, queries=paths["queries"], gallery=paths["gallery"])
    shown = ("top_1", "top_3", "top_10", "map", "num_queries", "num_gallery")
    say(f"     {_accuracies(figures)}")
    say(f"     {HONEST}")
    say(f"Open {page}")
    return {
        "report": page,
        **{name: figures[name] for name in shown},
        "num_rejected": embedded["num_rejected"],
        "note": HONEST,
        "paths": {**paths, "photos": str(Path(folder, "photos"))},
        "seconds": round(time.monotonic() - start, 1),
    }


def _in_words(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"


def _accuracies(figures: dict[str, Any]) -> str:
    parts = [f"top-{k} {figures[f'top_{k}']:.3f}" for k in (1, 3, 10)]
    return ", ".join(parts) + f", mAP {figures['map']:.3f}"
