"""The learning curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

__all__ = ["draw_curves"]

_PANELS = (
    ("Loss", {"loss": "training", "validation_loss": "validation"}),
    ("Classification accuracy", {"accuracy": "training", "validation_accuracy": "validation"}),
    (
        "Retrieval among validation photos",
        {"top_1": "top-1", "top_3": "top-3", "top_10": "top-10"},
    ),
)
_UNDEFINED = "not defined: no class\nholds out two photos"


def draw_curves(history: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Draw loss, accuracy and retrieval over the epochs; the best epoch is marked.

    A figure that is not defined (None) has no curve.

    Args:
        history: Records of the epochs, at least one.
        title: Above the picture.

    Returns:
        A PNG file.
    """
    import matplotlib as mpl  # takes half a second to load

    with mpl.rc_context():
        mpl.rcdefaults()  # not what a matplotlibrc says that lies in the current folder
        return _draw(history, title)


def _draw(history: Sequence[Mapping[str, Any]], title: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    epochs = [record["epoch"] for record in history]
    best = next(record["epoch"] for record in reversed(history) if record["is_best"])
    for axes, (name, curves) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        for column, label in curves.items():
            values = [record[column] for record in history]
            if None not in values:
                axes.plot(epochs, values, marker="o", markersize=3, label=label)
        if all(record[column] is None for record in history for column in curves):
            axes.text(0.5, 0.5, _UNDEFINED, ha="center", va="center", transform=axes.transAxes)
        axes.axvline(best, color="grey", linestyle=":", linewidth=1, label=f"best: epoch {best}")
        axes.set(title=name, xlabel="epoch")
        if name != "Loss":
            axes.set_ylim(0, 1.02)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    buffer = BytesIO()
    # Without software and date: the same history gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
