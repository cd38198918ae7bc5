"""What became of a row, and the record of it that all outputs are written from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeAlias

from retrieval.experiments.rows import Row

__all__ = ["DONE", "IMPOSSIBLE", "NOT_RUN", "Measured", "Outcome", "Record", "record"]

DONE: Final = "done"
NOT_RUN: Final = "not run"
IMPOSSIBLE: Final = (
    "the paper's figures of this row are impossible as printed: a top-k accuracy cannot be below "
    "that of a smaller k"
)

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a finished row gave.

    Attributes:
        top_1, top_3, top_10, map: Over the queries.
        epochs, best_epoch: How many were trained, and which one was measured.
        training_s: Seconds of the epochs, with their validation.
        num_queries, num_classes, num_gallery: What the figures rest on; the classes are those
            of the queries.
    """

    top_1: float
    top_3: float
    top_10: float
    map: float
    epochs: int
    best_epoch: int
    training_s: float
    num_queries: int
    num_classes: int
    num_gallery: int


@dataclass(frozen=True)
class Outcome:
    """How a row ended.

    Attributes:
        status: DONE, NOT_RUN, "weights missing: FILE" or "failed: MESSAGE".
        measured: Of a row that is done, and of no other.
    """

    status: str = NOT_RUN
    measured: Measured | None = None

    @classmethod
    def done(cls, measured: Measured) -> Outcome:
        """The row is trained and measured."""
        return cls(DONE, measured)

    @classmethod
    def weights_missing(cls, file: str) -> Outcome:
        """The file from which the row starts is not on this machine."""
        return cls(f"weights missing: {file}")

    @classmethod
    def failed(cls, message: str) -> Outcome:
        """The row could not be had; why, in one line."""
        return cls(f"failed: {message}")


def record(row: Row, outcome: Outcome, data_set: str) -> Record:
    """All there is to say of a row, as a flat record of JSON's values; None where unknown.

    Args:
        row: The configuration.
        outcome: How it ended.
        data_set: Name of what it is trained on.
    """
    measured = _measured(outcome)
    paper = dict(zip(("top_1", "top_3", "top_10"), row.paper, strict=True))
    ours = {name: _rounded(measured.pop(name)) for name in (*paper, "map")}
    return {
        "name": row.name,
        "network": row.backbone,
        "mode": row.mode,
        "data_set": data_set,
        "photos_per_class": row.photos_per_class,
        "status": outcome.status,
        **ours,
        **{f"paper_{name}": value for name, value in paper.items()},
        **{f"difference_{name}": _difference(ours[name], paper[name]) for name in paper},
        **measured,
        "note": IMPOSSIBLE if row.is_impossible else None,
    }


def _measured(outcome: Outcome) -> Record:
    if outcome.measured is None:
        return {field.name: None for field in fields(Measured)}
    return asdict(outcome.measured)


def _difference(ours: float | None, paper: float) -> float | None:
    return None if ours is None else _rounded(ours - paper)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
