"""What a run of `augment` has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["AugmentReport"]


@dataclass(frozen=True, kw_only=True)
class AugmentReport:
    """An augmented folder.

    Attributes:
        output: Its address.
        recipe, per_class: As they were asked for.
        num_listed: Files in the folder of photos.
        num_rejected, reject_reasons: Labelled files that are no readable image, and why.
        rejects: Address of their table; None if there are none.
        num_unlabelled: Files without a label, which were not opened.
        num_classes: Classes that have images.
        empty_classes: Those that have none.
        num_originals, num_augmented: Images that were copied, and that were made of them.
        num_reused: Of both, those that an earlier run had finished.
        num_dropped: Results that were left out: for each reason, and by technique.
        contact_sheet, manifest: Addresses.
        images_per_s: Images made a second; None where none was made.
        seconds: Of each step.
    """

    output: str
    recipe: str
    per_class: int
    num_listed: int
    num_rejected: int
    reject_reasons: Mapping[str, int]
    rejects: str | None
    num_unlabelled: int
    num_classes: int
    empty_classes: Sequence[str]
    num_originals: int
    num_augmented: int
    num_reused: int
    num_dropped: Mapping[str, Any]
    contact_sheet: str
    manifest: str
    images_per_s: float | None
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The report as it is printed."""
        return asdict(self)
