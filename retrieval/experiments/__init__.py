"""The experiment: the paper's 17 configurations, and how ours are written beside them.

rows        the table: names, networks, what the paper says
queries     which photos are queries; what chance alone would find
outcomes    what became of a row, and the record of it
comparison  the records as Markdown, CSV and JSON

Pure data and text, without torch: the command line checks names by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily

if TYPE_CHECKING:
    from retrieval.experiments.comparison import Facts, as_csv, as_json, as_markdown
    from retrieval.experiments.outcomes import DONE, IMPOSSIBLE, NOT_RUN, Measured, Outcome, record
    from retrieval.experiments.queries import chance_accuracy, choose_queries
    from retrieval.experiments.rows import (
        PAPER_BASIS,
        ROWS,
        SMALL_PHOTOS_PER_CLASS,
        Row,
        choose_rows,
    )

__all__ = [
    "DONE",
    "IMPOSSIBLE",
    "NOT_RUN",
    "PAPER_BASIS",
    "ROWS",
    "SMALL_PHOTOS_PER_CLASS",
    "Facts",
    "Measured",
    "Outcome",
    "Row",
    "as_csv",
    "as_json",
    "as_markdown",
    "chance_accuracy",
    "choose_queries",
    "choose_rows",
    "record",
]

__getattr__ = lazily(
    __name__,
    dict.fromkeys(("Facts", "as_csv", "as_json", "as_markdown"), "comparison")
    | dict.fromkeys(("DONE", "IMPOSSIBLE", "NOT_RUN", "Measured", "Outcome", "record"), "outcomes")
    | dict.fromkeys(("chance_accuracy", "choose_queries"), "queries")
    | dict.fromkeys(
        ("PAPER_BASIS", "ROWS", "SMALL_PHOTOS_PER_CLASS", "Row", "choose_rows"), "rows"
    ),
)
