"""The contenders of `embed.py`, and the stages of `embed` one by one.

Each embeds the same folder of JPEG files with the same weights, in a process of its own that
prints one JSON object as its last line. `embed.py` starts them:

    python benchmarks/embed_contenders.py '{"contender": "script", ...}'  # the fields of Job
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CORES = len(os.sched_getaffinity(0))
SIDE, MEAN, STD = 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to do.

    Attributes:
        contender: Key of CONTENDERS.
        photos: Folder of JPEG files.
        backbone: Name of a network of torchvision.
        weights: Its state dict, a .safetensors file: the same for all contenders.
        output: Folder for what is written.
        begun: `time.monotonic()` at which this process was started.
        batch: Photos in a batch of OpenVINO; 0 tries which is fastest.
        stage_photos: Photos that each stage alone works on.
    """

    contender: str
    photos: str
    backbone: str
    weights: str
    output: str
    begun: float
    batch: int = 0
    stage_photos: int = 1000


def photo_files(folder: str) -> list[str]:
    """All files of a folder, sorted."""
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def finish(job: Job, ready: float, num_photos: int, **more: object) -> dict[str, Any]:
    """What a contender reports: begun → ready is its start, ready → now its work."""
    seconds = time.monotonic() - ready
    start = {"start_s": round(ready - job.begun, 2), "seconds": round(seconds, 2)}
    return {"photos": num_photos, "photos_per_s": num_photos / seconds, **start, **more}


def save_rows(job: Job, files: Sequence[str], features: NDArray[np.float32]) -> None:
    """Scale to length one and write, as scripts do."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    np.save(Path(job.output, "embeddings.npy"), features / lengths)
    names = [str(Path(file).relative_to(job.photos)) for file in files]
    Path(job.output, "names.json").write_text(json.dumps(names))


def torchvision_network(backbone: str, weights: str) -> Any:  # noqa: ANN401 - torch loads late
    """The network of a usual script: without its last layer, in eval mode."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    network = torchvision.models.get_model(backbone, weights=None)
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(weights))
    return network.eval()


class ScriptPhotos:
    """The data set of the usual script."""

    def __init__(self, files: Sequence[str]) -> None:
        from torchvision import transforms

        self.files = files
        self.transform = transforms.Compose([
            transforms.Resize((SIDE, SIDE)),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:  # noqa: ANN401 - torch loads late
        from PIL import Image

        return self.transform(Image.open(self.files[row]).convert("RGB"))


def script(job: Job) -> dict[str, Any]:
    """The script that everybody writes: a DataLoader with one worker a core (at least two)."""
    import torch
    from torch.utils.data import DataLoader

    files = photo_files(job.photos)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torchvision_network(job.backbone, job.weights).to(device)
    loader = DataLoader(ScriptPhotos(files), batch_size=64, num_workers=max(2, CORES))
    ready = time.monotonic()
    with torch.inference_mode():
        parts = [network(images.to(device)).cpu().numpy() for images in loader]
    save_rows(job, files, np.concatenate(parts))
    return finish(job, ready, len(files))


def transform_images(batch: dict[str, Any]) -> dict[str, Any]:
    """The transforms of Ray's own example: to a tensor first, then resized, then normalised."""
    from torchvision import transforms

    steps = [transforms.ToTensor(), transforms.Resize((SIDE, SIDE))]
    transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    images = np.stack([transform(image).numpy() for image in batch["image"]])
    return {"path": batch["path"], "image": images}


class RayDataModel:
    """The actor of Ray's own example."""

    def __init__(self, backbone: str, weights: str) -> None:
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = torchvision_network(backbone, weights).to(self.device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Pixels become embeddings."""
        import torch

        with torch.inference_mode():
            features = self.network(torch.as_tensor(batch["image"]).to(self.device))
            embeddings = torch.nn.functional.normalize(features).cpu().numpy()
        return {"path": batch["path"], "embedding": embeddings}


def ray_data(job: Job, **reading: object) -> dict[str, Any]:
    """Ray's own example: read_images → map_batches (transforms, model) → write_parquet.

    One actor books one CPU, and with it one thread; the others read and transform. Decoding on
    one core and the model on the other is what the example gives on two cores.
    """
    os.environ["RAY_AUTH_TOKEN"] = os.environ.get("RAY_AUTH_TOKEN", "0" * 64)  # writes no HOME
    import ray
    from ray.data import ActorPoolStrategy

    ray.init(address="local", num_cpus=max(2, CORES), include_dashboard=False, log_to_driver=False)
    ready = time.monotonic()
    (
        ray.data.read_images(job.photos, mode="RGB", include_paths=True, **reading)
        .map_batches(transform_images)
        .map_batches(
            RayDataModel,
            fn_constructor_args=(job.backbone, job.weights),
            batch_size=64,
            num_cpus=1,
            num_gpus=min(1, ray.cluster_resources().get("GPU", 0)),
            compute=ActorPoolStrategy(size=1),
        )
        .write_parquet(job.output)
    )
    return finish(job, ready, len(photo_files(job.photos)))


def ray_data_size(job: Job) -> dict[str, Any]:
    """The same where read_images(size=...) resizes: less is copied and computed."""
    return ray_data(job, size=(SIDE, SIDE))


def open_files(files: Sequence[str]) -> NDArray[np.uint8]:
    """Our decoder; in a process of its own it loads no torch."""
    from retrieval.images import Preprocessing
    from retrieval.images.fetch import open_photo
    from retrieval.storage import read_bytes

    opened = [open_photo(read_bytes(file), Preprocessing(size=SIDE)) for file in files]
    return np.stack([photo.pixels for photo in opened])


def openvino_model(job: Job, batch: int, precision: dict[str, str]) -> Any:  # noqa: ANN401
    """Our network, compiled for bytes (batch, S, S, 3); it normalises inside."""
    sys.modules.setdefault("openvino_telemetry", None)  # it would report to its makers
    import openvino
    import torch
    from openvino.preprocess import PrePostProcessor

    from retrieval.models.backbones import BackboneSpec, build_backbone

    network = build_backbone(BackboneSpec(name=job.backbone, weights=job.weights))
    shape = [batch, 3, SIDE, SIDE]
    model = openvino.convert_model(network, example_input=torch.zeros(shape), input=shape)
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    as_float = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    as_float.mean([255 * value for value in MEAN]).scale([255 * value for value in STD])
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", **precision}
    return openvino.Core().compile_model(steps.build(), "CPU", settings)


def fastest_model(job: Job, precision: dict[str, str]) -> tuple[Any, int]:
    """The compiled model with the batch size that is fastest by itself, and that size."""
    if job.batch:
        return openvino_model(job, job.batch, precision), job.batch
    rates = {}
    for batch in (1, 2, 4, 8, 16, 32):
        model = openvino_model(job, batch, precision)
        pixels = np.zeros((batch, SIDE, SIDE, 3), np.uint8)
        run_batches(model, [pixels] * 4)
        count = max(1, 96 // batch)
        begin = time.monotonic()
        run_batches(model, [pixels] * count)
        rates[batch] = count * batch / (time.monotonic() - begin)
    best = max(rates, key=rates.__getitem__)
    return openvino_model(job, best, precision), best


def run_batches(model: Any, batches: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Features of all batches, in their order, by as many requests as OpenVINO recommends."""
    from openvino import AsyncInferQueue

    queue, found = AsyncInferQueue(model), {}

    def keep(request: Any, number: int) -> None:  # noqa: ANN401
        found[number] = request.get_output_tensor().data.copy()

    queue.set_callback(keep)
    for number, pixels in enumerate(batches):
        queue.start_async([pixels], number)
    queue.wait_all()
    return np.concatenate([found[number] for number in sorted(found)])


def decoded(pool: Any, files: Sequence[str], batch: int) -> Iterator[NDArray[np.uint8]]:  # noqa: ANN401
    """Full batches from a pool that decodes some hundred photos ahead; the last is filled up."""
    ahead = threading.Semaphore(8 * CORES)

    def chunks() -> Iterator[Sequence[str]]:
        for start in range(0, len(files), 8):
            ahead.acquire()
            yield files[start : start + 8]

    waiting = np.empty((0, SIDE, SIDE, 3), np.uint8)
    for pixels in pool.imap(open_files, chunks()):
        ahead.release()
        waiting = np.concatenate([waiting, pixels])
        while len(waiting) >= batch:
            yield waiting[:batch]
            waiting = waiting[batch:]
    if len(waiting):
        yield np.concatenate([waiting, np.zeros((batch - len(waiting), SIDE, SIDE, 3), np.uint8)])


def openvino(job: Job, **precision: str) -> dict[str, Any]:
    """OpenVINO, fed by our decoder in one process a core."""
    files = photo_files(job.photos)
    with multiprocessing.get_context("fork").Pool(CORES) as pool:  # before torch starts threads
        pool.map(open_files, [files[:1]] * 4 * CORES, chunksize=1)
        model, batch = fastest_model(job, precision)
        ready = time.monotonic()
        features = run_batches(model, decoded(pool, files, batch))[: len(files)]
        save_rows(job, files, features)
        used = str(model.get_property("INFERENCE_PRECISION_HINT").to_string())
        streams = model.get_property("NUM_STREAMS")
        return finish(job, ready, len(files), batch=batch, precision=used, streams=streams)


def openvino_f32(job: Job) -> dict[str, Any]:
    """The same, computing in float32 throughout."""
    return openvino(job, INFERENCE_PRECISION_HINT="f32")


def read_only(file: str) -> int:
    """The first stage alone."""
    from retrieval.storage import read_bytes

    return len(read_bytes(file))


def read_and_decode(file: str) -> int:
    """The first two stages; the pixels stay in the process that made them."""
    return len(open_files([file]))


def pool_rate(pool: Any, stage: Callable[[str], int], files: Sequence[str]) -> float:  # noqa: ANN401
    """Photos/s of a stage on all cores."""
    pool.map(stage, files[: 8 * CORES])
    begin = time.monotonic()
    for _ in pool.imap_unordered(stage, files, chunksize=8):
        pass
    return len(files) / (time.monotonic() - begin)


def forward_rate(job: Job, pixels: NDArray[np.uint8], num_photos: int, precision: str) -> float:
    """Photos/s of `Embedder.embed` on all cores or the GPU, as the actors of `embed` run it."""
    import torch

    from pipelines.embed.placement import place_actors
    from pipelines.ray_runtime.nodes import Node, Resources
    from retrieval.images import Preprocessing
    from retrieval.models.backbones import BackboneSpec
    from retrieval.models.embedder import Embedder

    torch.backends.cudnn.allow_tf32 = False
    spec = BackboneSpec(name=job.backbone, weights=job.weights)
    place = place_actors(Resources((Node(CORES, int(torch.cuda.is_available())),)), 1, 1)
    calls, size = place.num_calls, place.batch_size
    each = num_photos // calls  # decides what is compiled
    embedder = Embedder(spec, Preprocessing(size=SIDE), precision=precision, num_photos=each)
    count = -(-job.stage_photos // (size * calls)) * calls  # as many batches for each thread
    batches = [np.resize(pixels, (size, SIDE, SIDE, 3))] * count
    with ThreadPoolExecutor(calls, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        list(threads.map(embedder.embed, batches[: 2 * calls]))  # warms up, and may compile
        begin = time.monotonic()
        list(threads.map(embedder.embed, batches))
        return size * count / (time.monotonic() - begin)


def hand_over_rate(pixels: NDArray[np.uint8]) -> float:
    """Photos/s of one process that puts blocks of pixels into Ray's store and gets them back."""
    import pyarrow as pa
    import ray

    from pipelines.ray_runtime.session import session

    rows = pa.array([photo.tobytes() for photo in pixels], pa.binary(SIDE * SIDE * 3))
    table = pa.table({"pixels": rows})
    with session():
        ray.get(ray.put(table))
        begin = time.monotonic()
        for _ in range(20):
            ray.get(ray.put(table))
        return 20 * len(pixels) / (time.monotonic() - begin)


def write_rate(job: Job, num_rows: int = 16_384) -> float:
    """Photos/s of one process that writes rows of the index."""
    from datetime import UTC, datetime

    import pyarrow as pa

    from retrieval.index import EmbeddingSpec, index_schema, write_shard
    from retrieval.models.backbones import BACKBONES

    spec = EmbeddingSpec(
        fingerprint="0" * 64, backbone=job.backbone, weights="none", dim=BACKBONES[job.backbone]
    )
    vectors = np.random.default_rng(0).integers(0, 256, (num_rows, spec.row_bytes), np.uint8)
    texts = {"image_id": "{}.jpg", "uri": "/photos/{}.jpg", "content_sha256": "{:064}"}
    values = {name: [text.format(row) for row in range(num_rows)] for name, text in texts.items()}
    values |= {name: list(range(num_rows)) for name in ("size_bytes", "width", "height")}
    values |= {"modified_at": [datetime.now(UTC)] * num_rows, "label": ["a"] * num_rows}
    values |= {"embedding": [vector.tobytes() for vector in vectors]}
    table = pa.table(values, schema=index_schema(spec))
    begin = time.monotonic()
    for _ in range(3):
        write_shard(job.output, table)
    return 3 * num_rows / (time.monotonic() - begin)


def ceiling(job: Job) -> dict[str, Any]:
    """Each stage of ours alone, and what they allow together.

    Without a GPU decoding and the network share the cores; with one they run side by side.
    """
    files = photo_files(job.photos)
    files = files[:: max(1, len(files) // job.stage_photos)][: job.stage_photos]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        reading = pool_rate(pool, read_only, files)
        decoding = pool_rate(pool, read_and_decode, files)
        parts = pool.map(open_files, [[file] for file in files[:128]])
    pixels = np.resize(np.concatenate(parts), (128, SIDE, SIDE, 3))
    import torch

    on_gpu, count = torch.cuda.is_available(), len(photo_files(job.photos))
    forward = {name: forward_rate(job, pixels, count, name) for name in ("float32", "auto")}
    together = min if on_gpu else lambda *rates: 1 / sum(1 / rate for rate in rates)
    processors = 1 if on_gpu else CORES
    # Milliseconds of a core or GPU for each photo; one process handed over and wrote.
    stages = {
        "read": 1000 * CORES / reading,
        "decode": 1000 * CORES * (1 / decoding - 1 / reading),
        "hand-over": 1000 / hand_over_rate(pixels),
        "forward, float32": 1000 * processors / forward["float32"],
        "forward": 1000 * processors / forward["auto"],
        "write": 1000 / write_rate(job),
    }
    return {
        "ceiling": together(decoding, forward["auto"]),
        "ceiling-f32": together(decoding, forward["float32"]),
        "stages": {name: round(value, 4) for name, value in stages.items()},
    }


CONTENDERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "script": script,
    "ray-data": ray_data,
    "ray-data-size": ray_data_size,
    "openvino-f32": openvino_f32,
    "openvino": openvino,
    "ceiling": ceiling,
}


def main() -> None:
    """Run one contender."""
    job = Job(**json.loads(sys.argv[1]))
    Path(job.output).mkdir(parents=True, exist_ok=True)
    print(json.dumps(CONTENDERS[job.contender](job)))


if __name__ == "__main__":
    main()
