"""The files of a training below MODEL: what may lie there before it, and what of it is its own.

A file is the training's own if it bears one of the names below and the folder says that a training
was begun there, or if its content can be told. All else belongs to somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.train.config import TrainConfig
from pipelines.train.split import SPLIT_SCHEMA
from retrieval.errors import StorageError
from retrieval.gallery.listing import is_litter
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.models.folder.manifest import MANIFEST, WEIGHTS
from retrieval.storage import (
    DAMAGED_PARQUET,
    Entry,
    check_apart,
    entries,
    entry_at,
    first_stranger,
    join,
    open_input,
    read_json,
    remove_written,
    written_as,
)

__all__ = [
    "check_places",
    "checkpoints_of",
    "remove_checkpoints",
]

# With the columns by which such a file is told.
_EARLIER = pa.schema([field for field in SPLIT_SCHEMA if field.name != "content_sha256"])
# Of this release, and of earlier ones.
TABLES = {"split.parquet": (SPLIT_SCHEMA, _EARLIER), "rejects.parquet": (REJECT_SCHEMA,)}
_RESULTS = (MANIFEST, WEIGHTS, "metrics.jsonl", "learning-curve.png", *TABLES)
_TRAINING, _SETTINGS = "training", "settings.json"
# As Ray Train names them, in the folder of its run.
_SNAPSHOT = "run/checkpoint_manager_snapshot.json"
_CHECKPOINT = r"checkpoint_[0-9][0-9_.-]*"
_FOLDER = re.compile(rf"run(/{_CHECKPOINT})?")
_FILE = re.compile(
    rf"{re.escape(_SETTINGS)}|{re.escape(_SNAPSHOT)}|run/\.validate_storage_marker|"
    rf"run/{_CHECKPOINT}/(state\.pt|history\.json|\.metadata\.json)"
)


def checkpoints_of(model: str) -> str:
    """Where the checkpoints of a training are, while it runs."""
    return join(model, _TRAINING)


def check_places(photos: str, model: str, config: TrainConfig) -> None:
    """Refuse a folder in which a training would replace or remove what it has not written.

    Raises:
        UsageError: photos or weights lie in MODEL, or MODEL in them.
        StorageError: MODEL or MODEL/training holds files of somebody else, or links.
    """
    inputs = {
        "the photos' folder": photos,
        "the validation photos' folder": config.validation_folder,
        "the weights": config.weights_file,
    }
    check_apart(inputs, {"the model": model})
    has_begun = _has_begun(model)
    for name in _RESULTS:
        entry = entry_at(join(model, name))
        if entry and (entry.kind != "file" or not (has_begun or _is_told(model, name))):
            raise _foreign(model, name)
    training = entry_at(checkpoints_of(model))
    if training is None:
        return
    if training.kind != "folder":
        raise _foreign(model, _TRAINING)
    is_ours = _may_stay if has_begun else _is_left_of_a_start
    if strange := first_stranger(checkpoints_of(model), is_ours):
        raise _foreign(model, f"{_TRAINING}/{strange}")
    _check_snapshot(model)


def _foreign(model: str, name: str) -> StorageError:
    return StorageError(
        f"{model}: holds files that train has not written, such as {name}. Choose a new folder, or "
        f"move them elsewhere."
    )


def _has_begun(model: str) -> bool:
    """Whether an unfinished training is there, by its settings."""
    uri = join(checkpoints_of(model), _SETTINGS)
    entry = entry_at(uri)
    if entry is None or entry.kind != "file":
        return False
    try:
        found = read_json(uri)
    except (OSError, ValueError):
        return False
    return {"photos", "backbone", "epochs", "seed"} <= found.keys()


def _is_told(model: str, name: str) -> bool:
    """Whether a file is one by its columns: a run that was killed early leaves these two alone."""
    if name not in TABLES:
        return False
    try:
        with open_input(join(model, name)) as stream:
            return pq.read_schema(stream).remove_metadata() in TABLES[name]
    except DAMAGED_PARQUET:
        return False


def _may_stay(entry: Entry) -> bool:
    return _is_ours(entry) or (entry.kind == "file" and is_litter(entry.path))


def _is_ours(entry: Entry) -> bool:
    if entry.kind == "folder":
        return _FOLDER.fullmatch(entry.path) is not None
    return _FILE.fullmatch(written_as(entry.path)) is not None


def _is_left_of_a_start(entry: Entry) -> bool:
    """Folders that removing left empty, and settings that were not written to their end."""
    if entry.kind == "folder":
        return _is_ours(entry)
    return entry.path != _SETTINGS and written_as(entry.path) == _SETTINGS


def _check_snapshot(model: str) -> None:
    """Ray Train removes the older checkpoints that its snapshot names, with all inside them."""
    uri = join(checkpoints_of(model), _SNAPSHOT)
    try:
        found = read_json(uri)
    except (OSError, ValueError):
        return  # there is none, or Ray Train says what is wrong with it
    for name in _checkpoint_names(found):
        if not (isinstance(name, str) and re.fullmatch(_CHECKPOINT, name)):
            raise StorageError(
                f"{uri}: names {name!r}, which is no checkpoint of that folder. It has been "
                f"changed or damaged: train in a new folder."
            )


def _checkpoint_names(found: object) -> Iterator[object]:
    """The values of "checkpoint_dir_name", however deep."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key.endswith("checkpoint_dir_name"):
                yield value
            elif key.endswith("checkpoint_dir_names") and isinstance(value, list):
                yield from value
            else:
                yield from _checkpoint_names(value)
    elif isinstance(found, list):
        for value in found:
            yield from _checkpoint_names(value)


def remove_checkpoints(model: str) -> None:
    """Remove MODEL/training, the settings last; what else lies there by now stays.

    Raises:
        StorageError: a file cannot be removed.
    """
    found = [entry for entry in entries(checkpoints_of(model)) if entry.kind in ("file", "folder")]
    ours = {f"{_TRAINING}/{entry.path}": entry.kind for entry in found if _is_ours(entry)}
    files = [path for path, kind in ours.items() if kind == "file"]
    settings = f"{_TRAINING}/{_SETTINGS}"
    remove_written(
        model,
        [path for path in files if path != settings],
        folders=[path for path, kind in ours.items() if kind == "folder"],
    )
    remove_written(model, [settings], folders=[_TRAINING])
