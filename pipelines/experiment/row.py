"""One row of the table: train, embed, rank, evaluate, and the result that says so.

OUTPUT/rows/NAME/model-KEY           the model; KEY hangs on all that decides it
OUTPUT/rows/NAME/queries, gallery    indexes
OUTPUT/rows/NAME/ranking
OUTPUT/rows/NAME/result.json         settings and figures; written last

A training that was killed goes on in its model-KEY. One that was begun with other settings has
another KEY: it neither stops the row nor is lost, and is there again when its settings are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipelines import embed, rank
from pipelines.experiment.config import ExperimentConfig
from pipelines.experiment.photos import Sides
from pipelines.experiment.places import GALLERY, QUERIES
from pipelines.later_settings import AUGMENT, TRAIN, comparable
from pipelines.ray_runtime.cluster_options import Site
from pipelines.train import Workers
from pipelines.train import run as train
from pipelines.train.contents import CONTENTS, with_contents
from pipelines.train.network import backbone_spec
from retrieval.errors import StorageError
from retrieval.evaluation import evaluate
from retrieval.experiments import Measured, Row, as_json
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.models.folder import open_model
from retrieval.storage import join, parse_json, read_bytes, read_json, remove_written, write_bytes
from retrieval.storage.json_files import check_fields, items, number, optional, whole

__all__ = ["RowRun"]

_RESULT = "result.json"
_FORMAT = 1  # of that file
_MEASURED = {
    field.name: whole() if field.type == "int" else optional(number) for field in fields(Measured)
}
_SECONDS = ("train_s", "validate_s")  # of an epoch


@dataclass(frozen=True)
class RowRun:
    """A row with what decides its result.

    Attributes:
        row: The configuration.
        config: Settings of the experiment.
        photos: OUTPUT/photos, where the two sides and the data sets are.
        sides: What is on the two sides.
        folder: OUTPUT/rows/NAME.
        site: Where it runs; decides nothing.
    """

    row: Row
    config: ExperimentConfig
    photos: str
    sides: Sides
    folder: str
    site: Site

    @property
    def data_set(self) -> str:
        """The augmented photos."""
        return join(self.photos, self.config.data_set(self.row))

    @property
    def starts_from_imagenet(self) -> bool:
        """Whether training starts from the weights that torchvision keeps."""
        return backbone_spec(self.config.train_config(self.row)).weights == "imagenet"

    def settings(self) -> dict[str, Any]:
        """All that decides the result, as JSON gives it back; see `pipelines.later_settings`."""
        train_config = self.config.train_config(self.row)
        return {
            "photos_sha256": self.sides.fingerprint(),
            "augment": comparable(asdict(self.config.augment_config(self.row)), AUGMENT),
            "train": with_contents(comparable(asdict(train_config), TRAIN), train_config),
        }

    def model(self) -> str:
        """The model's folder."""
        # With the place of its photos, which `train` compares as well.
        decisive = json.dumps([self.settings(), self.data_set], sort_keys=True)
        return join(self.folder, f"model-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}")

    def result(self) -> str:
        """The file that says that the row is done."""
        return join(self.folder, _RESULT)

    def finished(self) -> Measured | None:
        """What an earlier run with the same settings has measured; None if there is none.

        Raises:
            StorageError: it was written by a newer release.
        """
        try:
            found = read_json(self.result())
        except (OSError, ValueError, TypeError):
            return None
        check_format_version(found, _FORMAT, self.result(), StorageError)
        try:
            before = dict(found["settings"])
            before["augment"] = comparable(before["augment"], AUGMENT)
            before["train"] = comparable(before["train"], TRAIN)
            check_fields(found["measured"], _MEASURED, "measured")
            now = self.settings()
            if CONTENTS not in before["train"]:  # earlier releases noted none: names decide
                now["train"].pop(CONTENTS, None)
            return Measured(**found["measured"]) if before == now else None
        except (ValueError, TypeError, KeyError):
            return None

    def run(self, say: Callable[[str], None]) -> Measured:
        """Train and measure. Needs a connected Ray and the data set.

        Raises:
            RetrievalError: what a step raised.
        """
        say("training ...")
        model, epochs, training_s = self._train(say)
        say("embedding queries and gallery, ranking ...")
        # The indexes that it speaks of are replaced from here on.
        remove_written(self.folder, [_RESULT])
        paths = {name: join(self.folder, name) for name in (QUERIES, GALLERY, "ranking")}
        for side in (QUERIES, GALLERY):
            config = embed.EmbedConfig(
                model=model,
                backbone=self.row.backbone,
                new_model=True,  # the indexes follow the row
            )
            embed.run(join(self.photos, side), paths[side], config, site=self.site)
        ranked = rank.RankConfig(top_k=None)
        rank.run(paths[QUERIES], paths[GALLERY], paths["ranking"], ranked, site=self.site)
        found = evaluate(paths["ranking"], paths[QUERIES], paths[GALLERY])
        figures = found.to_json()
        measured = Measured(
            **{name: figures[name] for name in ("top_1", "top_3", "top_10", "map")},
            epochs=epochs,
            best_epoch=open_model(model).metrics["epoch"],
            training_s=training_s,
            num_queries=found.num_queries,
            num_classes=len(found.per_class),
            num_gallery=found.num_gallery,
        )
        result = {
            FORMAT_VERSION: _FORMAT,
            "name": self.row.name,
            "settings": self.settings(),
            "measured": asdict(measured),
            "figures": figures,
            "paths": {"data_set": self.data_set, "model": model, **paths},
        }
        write_bytes(self.result(), as_json(result))
        return measured

    def _train(self, say: Callable[[str], None]) -> tuple[str, int, float]:
        """The model, the number of its epochs and their seconds, those of earlier runs too."""
        model = self.model()
        workers = Workers(num_workers=self.config.num_workers)
        config = self.config.train_config(self.row)
        report = train(self.data_set, model, config, workers, site=self.site, say=say)
        return model, report.epochs, _seconds_of(report.metrics)


def _seconds_of(metrics: str) -> float:
    """What the epochs of a training took."""

    def fault(what: str) -> StorageError:
        return StorageError(f"{metrics}: cannot be read ({what}). Train in a new folder.")

    epochs = [parse_json(line, fault) for line in read_bytes(metrics).splitlines()]
    try:
        for epoch in epochs:
            items(dict.fromkeys(_SECONDS, number))("an epoch", epoch)
    except ValueError as error:
        raise fault(str(error)) from error
    return round(sum(epoch[name] for epoch in epochs for name in _SECONDS), 1)
