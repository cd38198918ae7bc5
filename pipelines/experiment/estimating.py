"""What an experiment would do, for `--dry-run`: it lists, opens no photo and writes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipelines.dry_run import Estimate, ResourceRequest, look_around
from pipelines.experiment.config import ExperimentConfig
from pipelines.experiment.photos import Sides, find_sides
from pipelines.experiment.places import GALLERY, QUERIES, check_places
from pipelines.ray_runtime.cluster_options import Site
from pipelines.scan import presume_photos
from pipelines.train import TrainConfig
from pipelines.train.network import backbone_spec
from pipelines.train.placement import place_workers
from retrieval.experiments import ROWS, Row, choose_rows
from retrieval.models.backbones import imagenet_weights_file
from retrieval.storage import absolute_uri

__all__ = ["estimate"]


def estimate(
    photos: str,
    output: str,
    config: ExperimentConfig,
    *,
    table: Sequence[Row] = ROWS,
    site: Site = Site(),
) -> Estimate:
    """What `run` would do, with the same arguments, if every labelled file is a good photo.

    Which rows were done before, only the content of the photos tells: all count as if none was.

    Returns:
        Its facts: counts, and `rows` with what each is trained on.

    Raises:
        RetrievalError: as `run` does before it opens the first photo.
    """
    photos, output = absolute_uri(photos), absolute_uri(output)
    chosen = choose_rows(table, config.rows)
    check_places(photos, output)
    scan = presume_photos(photos, "folder")
    sides = find_sides(
        photos,
        scan,
        per_class=config.queries_per_class,
        seed=config.seed,
        say=lambda line: None,
    )
    num_bytes = pc.sum(scan.photos["size_bytes"]).as_py()
    capacity = look_around(site)
    place = place_workers(capacity.there, config.num_workers)
    num_workers = place.num_workers if isinstance(place.num_workers, int) else place.num_workers[1]
    rows = [_row(row, config, sides) for row in chosen]
    facts = {
        "photos": photos,
        "output": output,
        "num_listed": scan.num_listed,
        "num_unlabelled": scan.num_unlabelled,
        "num_queries": sides.count(QUERIES),
        "num_gallery": sides.count(GALLERY),
        "num_to_hash": scan.photos.num_rows,
        "data_sets": sorted({row["data_set"] for row in rows}),
        "rows": rows,
        "num_steps": sum(row["num_steps"] for row in rows),
    }
    workers = ResourceRequest("workers", num_workers, place.num_cpus, place.num_gpus)
    return Estimate(
        facts=facts,
        read_bytes={"to_examine": num_bytes, "to_copy": num_bytes},
        write_bytes={"copies": num_bytes, "results": None},  # they hang on the pictures
        work=capacity.plan([workers]),
    )


def _row(row: Row, config: ExperimentConfig, sides: Sides) -> dict[str, Any]:
    """A training; its photos about: near copies may lack, held-out photos take their results."""
    training = config.train_config(row)
    sizes = Counter(sides.labels_of(GALLERY))
    images = sum(max(size, config.per_class) for size in sizes.values())
    if row.photos_per_class is not None:
        share = [min(1.0, row.photos_per_class / size) for size in sizes.values()]
        images = round(images * sum(share) / len(share))
    images = round(images * (1 - float(training.validation)))
    return {
        "name": row.name,
        "backbone": row.backbone,
        "mode": row.mode,
        "data_set": config.data_set(row),
        "num_training_about": images,
        "num_steps": config.epochs * math.ceil(images / config.batch_size),
        "has_weights": _has_weights(row, training),
    }


def _has_weights(row: Row, training: TrainConfig) -> bool:
    """Whether they are here already; the run would try to fetch them."""
    spec = backbone_spec(training)
    return spec.weights != "imagenet" or Path(imagenet_weights_file(row.backbone)).exists()
