"""Who makes what in `augment`: classes, their photos' shares, and units of some photos.

A class is planned from its photos alone, and its key is a hash of all that the plan hangs on.
Units are named by that key, so that a unit that is found finished is the one that is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from pipelines.augment.worker import UNIT_SCHEMA
from retrieval.augmentations.multiplying import Method
from retrieval.augmentations.result_names import source_of
from retrieval.augmentations.shares import Share, share_out, share_rest
from retrieval.errors import UsageError
from retrieval.gallery.listing import is_left_out
from retrieval.storage import join_inside

__all__ = ["ClassPlan", "check_names", "plan_classes"]

# Work of one task, about half a second at 256 pixels: long against what a task costs, and
# little to be made again after a kill.
_UNIT_IMAGES: Final = 150
_UNIT_PHOTOS: Final = 16  # their files are in memory together
_PLAN_VERSION: Final = 1  # raised with every change of shares, units, names or files
# ".gaussian_noise-600.jpg", and what a file is called while it is written, in the 255 bytes
# that file systems allow.
_MAX_FOLDER_BYTES: Final = 255
_MAX_NAME_BYTES: Final = _MAX_FOLDER_BYTES - 64
_TOO_LONG: Final = f", in {_MAX_FOLDER_BYTES} bytes at most"


@dataclass(frozen=True, eq=False)
class ClassPlan:
    """What is made of one class.

    Attributes:
        label: The class.
        key: Hash of its photos and of all settings that change what is made of them.
        photos: One row a photo, by image id: columns of UNIT_SCHEMA up to `image_id`.
        shares: What each photo gives.
        round: 0 at first; in later ones the photos make up for what others could not give.
    """

    label: str
    key: str
    photos: Sequence[dict[str, Any]]
    shares: Sequence[Share]
    round: int = 0

    def units(self) -> dict[str, pa.Table]:
        """The work of this round, cut into tables of UNIT_SCHEMA, by name."""
        work: dict[str, list[dict[str, Any]]] = {}
        unit, room = "", 0
        for photo, share in zip(self.photos, self.shares, strict=True):
            if self.round and not share.count:
                continue
            if room <= 0 or len(work[unit]) == _UNIT_PHOTOS:
                unit, room = f"{self.key}-{self.round}-{len(work)}", _UNIT_IMAGES
            order = {"first": share.first, "count": share.count, "skip": share.skip}
            row = {**photo, **order, "unit": unit, "is_copied": not self.round}
            work.setdefault(unit, []).append(row)
            room -= share.count + 1
        return {name: pa.Table.from_pylist(rows, schema=UNIT_SCHEMA) for name, rows in work.items()}

    def next_round(self, made: Mapping[str, int]) -> ClassPlan | None:
        """Ask the other photos for what some could not give.

        Args:
            made: Results of this round, by source id.

        Returns:
            The plan of the next round; None if nothing is lacking or nobody has more to give.
        """
        given = [made.get(photo["source_id"], 0) for photo in self.photos]
        shares = share_rest(self.shares, given)
        if not any(share.count for share in shares):
            return None
        return replace(self, shares=shares, round=self.round + 1)


def plan_classes(
    photos: pa.Table, rule: str, method: Method, *, per_class: int, kind: str
) -> list[ClassPlan]:
    """Plan every class.

    Args:
        photos: Of `Scan`, sorted by image id.
        rule: How they got their labels. In the output a photo lies in the folder of its label:
            by the rule "folder" it does already, by others that folder is put before its path.
        method: How photos are multiplied.
        per_class: Wanted images of a class.
        kind: "jpeg" or "parquet".

    Returns:
        The plans of the classes, by label.

    Raises:
        UsageError: a label cannot be the name of a folder, or a photo has a name that is too
            long, or that a result of another one would get.
    """
    check_names(photos, rule)
    of_class: dict[str, list[dict[str, Any]]] = {}
    for row in photos.to_pylist():
        image_id, label = row["image_id"], row["label"]
        photo = {
            "source_id": image_id,
            "uri": row["uri"],
            "size_bytes": row["size_bytes"],
            "source_sha256": row["content_sha256"],
            "label": label,
            "image_id": _output_id(image_id, label, rule),
        }
        of_class.setdefault(label, []).append(photo)
    _check_sources([photo for rows in of_class.values() for photo in rows])
    settings = [_PLAN_VERSION, _UNIT_IMAGES, _UNIT_PHOTOS, per_class, kind, method.to_json()]
    return [
        ClassPlan(
            label,
            _key([*settings, *([p["image_id"], p["source_id"], p["source_sha256"]] for p in rows)]),
            rows,
            share_out(len(rows), per_class, method.num_techniques),
        )
        for label, rows in sorted(of_class.items())
    ]


def _key(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def check_names(photos: pa.Table, rule: str) -> None:
    """Refuse labels and names that no file system takes, before any photo is opened.

    Args:
        photos: Labelled ones, by image_id, uri and label.
        rule: How they got their labels.

    Raises:
        UsageError: there is one.
    """
    for image_id, uri, label in zip(
        *(photos[name].to_pylist() for name in ("image_id", "uri", "label")), strict=True
    ):
        if rule != "folder":
            _check_label(label, image_id)
        *folders, name = _output_id(image_id, label, rule).split("/")
        if len(name.encode()) > _MAX_NAME_BYTES:
            raise UsageError(
                f"{uri}: has a name of more than {_MAX_NAME_BYTES} bytes, which leaves no room for "
                f"those of its results. Rename it."
            )
        if max((len(folder.encode()) for folder in folders), default=0) > _MAX_FOLDER_BYTES:
            raise UsageError(
                f"{uri}: lies in a folder with a name of more than {_MAX_FOLDER_BYTES} bytes, "
                f"which no file system takes. Rename it."
            )


def _output_id(image_id: str, label: str, rule: str) -> str:
    return image_id if rule == "folder" else f"{label}/{image_id}"


def _check_label(label: str, image_id: str) -> None:
    if "/" in label or "\0" in label or is_left_out(label) or _is_long(label):
        shown = f"{label[:40]!r}..." if _is_long(label) else repr(label)
        raise UsageError(
            f"label {shown} (of {image_id}): cannot be the name of a class folder, which has no "
            f"slash and does not begin with a dot{_TOO_LONG if _is_long(label) else ''}. Change it "
            f"in `labels`."
        )


def _is_long(label: str) -> bool:
    return len(label.encode()) > _MAX_FOLDER_BYTES


def _check_sources(photos: Sequence[Mapping[str, str]]) -> None:
    ids = {photo["image_id"]: photo["uri"] for photo in photos}
    for image_id, uri in ids.items():
        join_inside("the output", image_id)
        if (source := source_of(image_id)) in ids:
            raise UsageError(
                f"{uri}: has the name of a result of {source}, as if augmented before. Give "
                f"the original photos alone, or rename it."
            )
