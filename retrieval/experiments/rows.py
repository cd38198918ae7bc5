"""The paper's table: 17 configurations and what it says of them. Needs no torch.

`full`, `last-layer` and `from-scratch` are the modes of training; the paper calls them
full_layer, last_layer and not_pretrained.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from retrieval.errors import UsageError

__all__ = ["PAPER_BASIS", "ROWS", "SMALL_PHOTOS_PER_CLASS", "Row", "choose_rows"]

# What the paper's figures rest on.
PAPER_BASIS: Final = {"num_queries": 100, "num_classes": 22, "num_gallery": 600}
SMALL_PHOTOS_PER_CLASS: Final = 5  # "small-df" trains on few photos; how few is our choice


@dataclass(frozen=True)
class Row:
    """A configuration.

    Attributes:
        name: The paper's.
        backbone: The network.
        mode: How much of it is trained: "full", "last-layer" or "from-scratch".
        paper: The paper's top-1, top-3 and top-10.
        data_set: The paper trained on two augmented data sets; here they differ in their seed
            alone, and this is what is added to it.
        photos_per_class: Original photos to train on in a class; None for all.
        weights: Where training starts; None for what is usual in this mode.
    """

    name: str
    backbone: str
    mode: str
    paper: tuple[float, float, float]
    data_set: int = 0
    photos_per_class: int | None = None
    weights: str | None = None

    @property
    def is_impossible(self) -> bool:
        """Whether the paper's figures cannot be: they must not fall from one k to the next."""
        return list(self.paper) != sorted(self.paper)


ROWS: Final = (
    Row("Resnet18_small-df", "resnet18", "full", (0.83, 0.864, 0.92),
        photos_per_class=SMALL_PHOTOS_PER_CLASS),
    Row("Resnet18-full_layer-1", "resnet18", "full", (0.864, 0.909, 0.932)),
    Row("Resnet18-full_layer-2", "resnet18", "full", (0.852, 0.909, 0.943), data_set=1),
    Row("Resnet18-full_layer-not_pretrained", "resnet18", "from-scratch", (0.511, 0.67, 0.852)),
    Row("Resnet18-last_layer", "resnet18", "last-layer", (0.852, 0.886, 0.932)),
    Row("Resnet50-full_layer", "resnet50", "full", (0.784, 0.886, 0.932)),
    Row("Resnet50-last_layer", "resnet50", "last-layer", (0.83, 0.898, 0.932)),
    Row("Resnet101-full_layer-not_pretrained", "resnet101", "from-scratch", (0.409, 0.58, 0.693)),
    Row("Resnet101-last_layer", "resnet101", "last-layer", (0.841, 0.898, 0.909)),
    Row("Resnet152-full_layer", "resnet152", "full", (0.865, 0.886, 0.909)),
    Row("Resnet152-last_layer", "resnet152", "last-layer", (0.852, 0.932, 0.932)),
    Row("Resnet152-full_layer-not_pretrained", "resnet152", "from-scratch", (0.443, 0.648, 0.739)),
    Row("Resnext101_32x8d-full_layer", "resnext101_32x8d", "full", (0.795, 0.886, 0.909)),
    Row("Resnext101_32x8d-last_layer", "resnext101_32x8d", "last-layer", (0.898, 0.932, 0.943)),
    Row("Wide_resnet101_2-not_pretrained", "wide_resnet101_2", "from-scratch",
        (0.273, 0.409, 0.682)),
    Row("Wide_resnet101_2-last_layer", "wide_resnet101_2", "last-layer", (0.842, 0.989, 0.955)),
    Row("GoogleNet-full_layer", "googlenet", "full", (0.818, 0.886, 0.932)),
)  # fmt: skip


def choose_rows(table: Sequence[Row], names: Iterable[str] | None) -> tuple[Row, ...]:
    """The rows of some names, in their order, each once; all of the table for None.

    Raises:
        UsageError: a name is unknown; it says the nearest ones.
    """
    if names is None:
        return tuple(table)
    known = {row.name: row for row in table}
    chosen = {}
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)[:3]
            raise UsageError(f"{name!r} is no row of the table. Near to it: {', '.join(nearest)}.")
        chosen[name] = known[name]
    return tuple(chosen.values())
