"""A driver for the tests of placement: jobs whose stages note where they ran."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import ray

from pipelines import progress, scan
from pipelines.embed import EmbedConfig, executor
from pipelines.embed import run as embed
from pipelines.embed.stages import Decode, EmbedPhotos, IndexDatasink
from pipelines.rank import RankConfig
from pipelines.rank import run as rank
from pipelines.ray_runtime import nodes
from pipelines.ray_runtime import wait as waiting
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.session import session
from pipelines.train import TrainConfig, Workers, job
from pipelines.train import run as train
from pipelines.train.placement import Placement
from tests.retrieval.ranks import draw, write_foreign

NOTES = "PLACED_NOTES"  # the folder, in the environment of every node


@contextmanager
def noted(stage):
    """Note what runs here, when the body has run."""
    yield
    context = ray.get_runtime_context()
    note = {
        "stage": stage,
        "node": context.get_node_id(),
        "gpus": context.get_accelerator_ids()["GPU"],
        "booked": context.get_assigned_resources(),
    }
    Path(os.environ[NOTES], f"{stage}-{time.time_ns()}-{os.getpid()}.json").write_text(
        json.dumps(note)
    )


class NotedDecode(Decode):
    def __call__(self, table):
        with noted("decode"):
            return super().__call__(table)


class SlowDecode(Decode):
    def __call__(self, table):
        time.sleep(0.5)
        return super().__call__(table)


class NotedEmbed(EmbedPhotos):
    def __init__(self, settings, tally):
        with noted("load"):  # a quick network leaves no work to the second actor
            super().__init__(settings, tally)

    def __call__(self, table):
        with noted("embed"):
            return super().__call__(table)


class NotedSink(IndexDatasink):
    def write(self, blocks, ctx):
        with noted("write"):
            return super().write(blocks, ctx)


def noted_open(table, preprocessing, tally):
    with noted("scan"):
        return scan_batch(table, preprocessing, tally)


scan_batch = scan._open_batch


def replace(module, **values):
    for name, value in values.items():
        getattr(module, name)  # an error, if it is no longer called so
        setattr(module, name, value)


def embed_photos(folder, site):
    """Embed, in many small tasks."""
    replace(executor, Decode=NotedDecode, EmbedPhotos=NotedEmbed, IndexDatasink=NotedSink)
    replace(executor, BLOCK_ROWS=4)
    config = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none", batch_size=4)
    index = f"{folder}/index-{time.time_ns()}"
    return embed(f"{folder}/photos", index, config, site=site).to_json()


def embed_slowly(folder, site):
    """Embed photos of which each few take as long to decode as large ones."""
    replace(executor, Decode=SlowDecode, BLOCK_ROWS=4)
    config = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none", batch_size=4)
    index = f"{folder}/index-{time.time_ns()}"
    return embed(f"{folder}/photos", index, config, site=site).to_json()


def embed_beside_another(folder, site):
    """Embed while another job holds all GPUs."""
    with session(site):
        hold_gpus(site)
        return embed_photos(folder, site)


def rank_beside_another(folder, site):
    """Rank when another job has let the GPUs go that it held for some seconds."""
    return beside_another(rank_vectors, folder, site)


def train_beside_another(folder, site):
    """Train likewise."""
    return beside_another(train_on_photos, folder, site)


def beside_another(run, folder, site):
    replace(progress, _LOG_EVERY_S=0.2)
    replace(waiting, LONG_START_S=1)
    with session(site):
        holders = hold_gpus(site)
        threading.Timer(5, lambda: [ray.kill(holder) for holder in holders]).start()
        return run(folder, site)


def hold_gpus(site):
    num_gpus = nodes.resources(site).num_gpus
    holders = [ray.remote(num_gpus=1)(Holder).remote() for _ in range(num_gpus)]
    ray.get([holder.is_there.remote() for holder in holders])
    return holders


class Holder:
    def is_there(self):
        return True


def scan_and_embed(folder, site):
    """Examine the photos, as `augment` and `train` do first, then embed them."""
    replace(scan, _open_batch=noted_open, _BLOCK_ROWS=4)
    with session(site):
        scan.scan_photos(f"{folder}/photos", "folder", size=32, site=site)
        return embed_photos(folder, site)


def train_on_photos(folder, site):
    """Train a small network for two epochs."""
    config = TrainConfig(
        backbone="tests.training:small", weights="none", epochs=2, batch_size=6, image_size=32
    )
    return train(
        f"{folder}/photos", f"{folder}/model-{time.time_ns()}", config, site=site
    ).to_json()


def train_elastically(folder, site):
    """Train slowly by one worker or two, of which each needs a node as it would need a GPU."""
    replace(job, place_workers=lambda there, wanted: Placement(wanted, 1, num_cpus=2, num_gpus=0))
    config = TrainConfig(
        backbone="tests.training:slow", weights="none", epochs=60, batch_size=7, image_size=32,
        optimizer="sgd", dropout=0.0,
    )  # fmt: skip
    photos, model = f"{folder}/photos", f"{folder}/model"
    return train(photos, model, config, Workers(num_workers=(1, 2)), site=site).to_json()


def rank_vectors(folder, site):
    """Rank on GPUs, if there are any."""
    for side, seed in (("queries", 1), ("gallery", 2)):
        write_foreign(Path(folder, side, "0.parquet"), map(str, range(9)), draw(seed, 9))
    config = RankConfig(top_k=1, device="auto")
    return rank(f"{folder}/queries", f"{folder}/gallery", f"{folder}/ranking", config, site=site)


def look_around(folder, site):
    """Connect, and count the nodes."""
    with session(site):
        return len(nodes.present())


def main():
    """Arguments: the job, the folder, the site as JSON."""
    answer = globals()[sys.argv[1]](sys.argv[2], Site(**json.loads(sys.argv[3])))
    sys.stdout.write(json.dumps(answer))
