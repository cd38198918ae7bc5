"""A training's folder: what an earlier run left there, and how a model is published in it.

MODEL/model.json, weights.safetensors    the model; written last
MODEL/metrics.jsonl                      a line an epoch
MODEL/learning-curve.png
MODEL/split.parquet, rejects.parquet     what was trained on, measured, refused
MODEL/training/                          settings and the last checkpoint, while it runs
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.later_settings import TRAIN, comparable
from pipelines.scan import presume_photos
from pipelines.train.config import TrainConfig
from pipelines.train.contents import CONTENTS
from pipelines.train.network import build_network, preprocessing_of
from pipelines.train.placement import WorkerPlan
from pipelines.train.places import TABLES, checkpoints_of, remove_checkpoints
from pipelines.train.split import Split
from pipelines.train.trainer import Outcome
from retrieval.errors import RetrievalError, StorageError, TrainingError, UsageError
from retrieval.format_version import (
    FORMAT_VERSION,
    check_format_version,
    check_table_format,
    with_format,
)
from retrieval.images import FIRST_DECODER, newest_decoder
from retrieval.index.shards import encode_parquet
from retrieval.models.folder import ModelFacts, ModelFolder, is_model, open_model, write_model
from retrieval.storage import (
    DAMAGED_PARQUET,
    file_exists,
    first_line,
    join,
    open_input,
    parquet_table,
    read_json,
    write_bytes,
)
from retrieval.storage.json_files import check_fields, optional, whole
from retrieval.training.checkpoints import load_checkpoint
from retrieval.training.curves import draw_curves

__all__ = [
    "finished_model",
    "publish",
    "read_split",
    "resume_split",
    "say_changes",
    "start_folder",
    "with_decoder",
]

_FORMAT = 1  # of settings.json, split.parquet and rejects.parquet


def _settings_of(model: str) -> str:
    return join(checkpoints_of(model), "settings.json")


def with_decoder(config: TrainConfig, model: str) -> TrainConfig:
    """The settings with the decoder that they leave open.

    A training that was begun keeps its own, whatever newer one the program has by now; a new one
    takes the newest.

    Raises:
        UsageError: this program has no such decoder.
    """
    decoder = config.decoder
    if decoder is None and is_model(model):
        decoder = open_model(model).preprocessing.decoder
    elif decoder is None and file_exists(_settings_of(model)):
        decoder = _read_settings(_settings_of(model)).get("decoder", FIRST_DECODER)
    config = replace(config, decoder=newest_decoder() if decoder is None else decoder)
    preprocessing_of(config)
    return config


def finished_model(model: str, settings: Mapping[str, Any]) -> ModelFolder | None:
    """The model that is there already, if it was trained with these very settings.

    Raises:
        UsageError: it was trained with others.
        TrainingError: that training stopped early, as it was said then.
    """
    if not is_model(model):
        return None
    found = open_model(model)
    _compare(model, "a finished model", found.training.get("settings", {}), settings)
    if diverged := found.training.get("diverged"):
        raise _stopped_early(model, diverged, found.metrics)
    return found


def _stopped_early(model: str, diverged: str, best: Mapping[str, Any]) -> TrainingError:
    found = "" if best["top_1"] is None else f" with retrieval top-1 {best['top_1']:.3f}"
    return TrainingError(
        f"{model}: {diverged}. The best epoch before, {best['epoch']}{found}, is kept there. Use "
        f"a smaller `learning_rate` and another folder to train on."
    )


def resume_split(model: str, settings: Mapping[str, Any]) -> Split | None:
    """The photos of an unfinished training in this folder, to go on with; None to begin.

    Raises:
        UsageError: it was begun with other settings.
        StorageError: it cannot be read.
    """
    if not file_exists(_settings_of(model)):
        return None
    _compare(model, "an unfinished training", _read_settings(_settings_of(model)), settings)
    return read_split(model)


def read_split(model: str) -> Split:
    """What a training of this folder trains on, measures and refuses; StorageError."""
    tables = []
    for name, schemas in TABLES.items():
        uri = join(model, name)
        try:
            with open_input(uri) as stream:
                table = parquet_table(stream, schemas[-1])
            if table.schema.remove_metadata() not in schemas:
                raise pa.ArrowInvalid(f"the columns {', '.join(table.column_names)}")
            tables.append(table)
        except DAMAGED_PARQUET as error:
            raise _damaged(uri, error) from error
        check_table_format(tables[-1].schema, _FORMAT, uri, StorageError)
    return Split(*tables)


def _read_settings(uri: str) -> dict[str, Any]:
    try:
        found = read_json(uri)
        check_fields(found, {"decoder": optional(whole(1))})
    except (OSError, ValueError) as error:
        raise _damaged(uri, error) from error
    check_format_version(found, _FORMAT, uri, StorageError)
    return {name: value for name, value in found.items() if name != FORMAT_VERSION}


def _damaged(uri: str, error: Exception) -> StorageError:
    return StorageError(
        f"{uri}: cannot be read ({first_line(error)}), so that the training that was begun there "
        f"cannot go on. Use another folder."
    )


def _compare(model: str, what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse settings other than those of now; of other releases, see `later_settings`.

    Where both say the content of what a setting names, that decides, and its name does not. What
    an earlier release has begun says none: then the name decides.
    """
    old, new = comparable(before, TRAIN), comparable(now, TRAIN)
    contents = old.pop(CONTENTS, {}), new.pop(CONTENTS, {})
    both = contents[0].keys() & contents[1].keys()
    found = None
    for name in {**new, **old}:
        if name in both:
            if contents[0][name] != contents[1][name]:
                found = f"{name} {old[name]!r}, whose content was another one"
        elif old.get(name) != new.get(name):
            is_now = f"now {now[name]!r}" if name in now else "which this release does not know"
            found = f"{name} {old.get(name, TRAIN.get(name))!r}, {is_now}"
        if found:
            raise UsageError(
                f"{model}: holds {what} with other settings ({found}). Use the same settings, or "
                f"another folder."
            )


def start_folder(model: str, split: Split, settings: Mapping[str, Any]) -> None:
    """Note what is trained on; the settings last, which make it an unfinished training."""
    for name, table in (("split", split.photos), ("rejects", split.rejects)):
        data = encode_parquet(with_format(table, _FORMAT))
        write_bytes(join(model, f"{name}.parquet"), data)
    write_bytes(_settings_of(model), _as_json({FORMAT_VERSION: _FORMAT, **settings}))


def publish(
    model: str, plan: WorkerPlan, settings: Mapping[str, Any], outcome: Outcome
) -> ModelFolder:
    """Make the best epoch a model folder, and remove the checkpoints.

    Raises:
        TrainingError: the loss stopped being a number. The best epoch before that is published
            all the same, if there is one.
        StorageError: the folder cannot be written.
    """
    if outcome.checkpoint is None:
        remove_checkpoints(model)
        raise TrainingError(
            f"{model}: {outcome.diverged}, so there is no good epoch to keep. Use a smaller "
            f"`learning_rate`, or `warmup_epochs` 1."
        )
    with outcome.checkpoint.as_directory() as folder:
        progress = load_checkpoint(Path(folder))
    best = progress.best
    if best is None:
        raise StorageError(f"{checkpoints_of(model)}: its checkpoint holds no epoch. Remove it.")
    network = build_network(plan.config, len(plan.classes))
    network.load_state_dict(progress.best_weights)
    facts = ModelFacts(
        backbone=plan.config.backbone,
        mode=plan.config.mode,
        classes=plan.classes,
        preprocessing=preprocessing_of(plan.config),
        training={
            "settings": dict(settings),
            "epochs_done": len(progress.history),
            "diverged": outcome.diverged,
        },
        metrics=best,
    )
    title = f"{plan.config.backbone}, {plan.config.mode}: {len(plan.classes)} classes"
    write_bytes(join(model, "learning-curve.png"), draw_curves(progress.history, title))
    written = write_model(model, network.body, network.objective.linear_head(), facts)
    remove_checkpoints(model)
    if outcome.diverged:
        raise _stopped_early(model, outcome.diverged, best)
    return written


def _as_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def say_changes(photos: str, model: str, config: TrainConfig, say: Callable[[str], None]) -> None:
    """Say a line where photos were added, are gone, or have another size; opens none of them.

    None where it cannot be told: the folder of photos may be gone by now.

    Cost: lists the folders.
    """
    try:
        split = read_split(model)
        scans = [
            presume_photos(folder, config.labels, follow_links=config.follow_links)
            for folder in (photos, config.validation_folder)
            if folder is not None
        ]
    except RetrievalError:
        return
    uris, sizes = (split.photos[name].to_pylist() for name in ("uri", "size_bytes"))
    before = dict(zip(uris, sizes, strict=True))
    now = {
        uri: size
        for scan in scans
        for uri, size in zip(
            scan.photos["uri"].to_pylist(), scan.photos["size_bytes"].to_pylist(), strict=True
        )
    }
    counts = {
        "added": len(now.keys() - before.keys() - set(split.rejects["uri"].to_pylist())),
        "gone": len(before.keys() - now.keys()),
        "changed": sum(now.get(uri, size) != size for uri, size in before.items()),
    }
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if found:
        say(
            f"{model}: is a model of the photos as they were ({found} since). For one of those of "
            f"now, train in another folder"
        )
