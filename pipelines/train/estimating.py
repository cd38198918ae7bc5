"""What a training would do, for `--dry-run`: it lists, opens no photo and writes nothing."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dry_run import Capacity, Estimate, ResourceRequest, look_around
from pipelines.progress import status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.scan import Scan, presume_photos
from pipelines.train.config import TrainConfig, Workers
from pipelines.train.contents import with_contents
from pipelines.train.job import check_batches
from pipelines.train.network import build_network, preprocessing_of, settled
from pipelines.train.placement import DECODE_CPUS, Placement, place_workers
from pipelines.train.places import check_places
from pipelines.train.publishing import finished_model, resume_split, with_decoder
from pipelines.train.split import Split, share_photos
from retrieval.augmentations import load_recipe
from retrieval.models.own_networks import describe_preprocessing
from retrieval.storage import absolute_uri
from retrieval.training.network import TrainingNetwork
from retrieval.training.sampling import num_steps
from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION

__all__ = ["estimate"]

_TORCH_BYTES = 600_000_000
_DECODE_BYTES = 2**28
_COPIES = 4  # of each weight in float32: itself, its gradient, two means of Adam


def estimate(
    photos: str,
    model: str,
    config: TrainConfig,
    workers: Workers = Workers(),
    *,
    site: Site = Site(),
) -> Estimate:
    """What `run` would do, with the same arguments, if every labelled file is a good photo.

    Whether the folder can be written is not tried.

    Returns:
        The estimate. Memory is that of weights and optimizer; what a batch needs on its way through
        the network comes on top.

    Raises:
        RetrievalError: as `run` does before it opens the first photo.
    """
    photos, model = absolute_uri(photos), absolute_uri(model)
    given, config = config.given_preprocessing, with_decoder(settled(config), model)
    settings = with_contents({"photos": photos, **config.recorded()}, config)
    facts: dict[str, Any] = {
        "photos": photos,
        "model": model,
        "backbone": config.backbone,
        "preprocessing": describe_preprocessing(preprocessing_of(config), given),
    }
    if finished_model(model, settings):
        return Estimate(facts={**facts, "already_trained": True})
    check_places(photos, model, config)
    begun = resume_split(model, settings)
    load_recipe(config.recipe)
    with status_line(f"loading {config.backbone}"):
        network = build_network(config, num_classes=2)
    split = begun or _presume(photos, config)
    capacity = look_around(site)
    place = place_workers(capacity.there, workers.num_workers)
    check_batches(split, config, place, network)
    num_training = split.count(TRAINING)
    facts |= {
        "already_trained": False,
        "goes_on": begun is not None,
        "num_classes": len(split.classes_of(TRAINING)),
        "num_training": num_training,
        "num_validation": split.count(VALIDATION),
        "num_left_out": split.count(LEFT_OUT),
        "num_to_hash": 0 if begun else split.photos.num_rows,
        "epochs": config.epochs,
        "num_steps_an_epoch": num_steps(num_training, config.batch_size),
    }
    examined = 0 if begun else _bytes_of(split, TRAINING, VALIDATION, LEFT_OUT)
    return Estimate(
        facts=facts,
        read_bytes={"to_examine": examined, "an_epoch": _bytes_of(split, TRAINING, VALIDATION)},
        write_bytes={"weights": _size(network)},
        work=_work(network, config, place, capacity),
    )


def _presume(photos: str, config: TrainConfig) -> Split:
    def examine(folder: str) -> Scan:
        return presume_photos(folder, config.labels, follow_links=config.follow_links)

    return share_photos(photos, config, lambda line: None, examine)


def _bytes_of(split: Split, *sides: str) -> int:
    of_sides = pc.is_in(split.photos["side"], pa.array(sides))
    return int(pc.sum(split.photos.filter(of_sides)["size_bytes"]).as_py() or 0)


def _size(network: TrainingNetwork) -> int:
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def _work(
    network: TrainingNetwork, config: TrainConfig, place: Placement, capacity: Capacity
) -> dict[str, Any]:
    num = place.num_workers if isinstance(place.num_workers, int) else place.num_workers[1]
    pixels = math.ceil(config.batch_size / num) * preprocessing_of(config).size ** 2 * 3 * 4
    worker_bytes = _TORCH_BYTES + _COPIES * _size(network) + pixels
    decoders = place.num_decoders
    plan = capacity.plan(
        [
            ResourceRequest("workers", num, place.num_cpus, place.num_gpus, worker_bytes),
            ResourceRequest(
                "decoding_tasks", decoders and decoders * num, DECODE_CPUS, 0, _DECODE_BYTES
            ),
        ]
    )
    plan["work"]["workers"] |= {"num_threads": place.num_threads}
    if not isinstance(place.num_workers, int):
        plan["work"]["workers"] |= {"num_at_least": place.num_workers[0]}
    return plan
