"""How the files beside this one were made: by release 0.1.0, at commit ab34f29.

Kept to show what they are; never run again. They stand for what users of that release have on
their disks, so a later release reads these very bytes. A later format gets a folder of its own.

All but the vectors of "other tools" was written by the commands themselves, at /srv/golden-v1,
a path that no other machine has, and copied here. Three things differ from a user's run: the host
is called "golden" in the records, shards hold 6 rows, and a run is "killed" by an exception.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import pipelines.embed.hands as hands
import pipelines.embed.inputs as inputs
import retrieval.index.night as night_module
import retrieval.provenance as provenance_module
from pipelines import train
from pipelines.cli import main
from pipelines.cluster.session import session

ROOT = Path("/srv/golden-v1")
NETWORK = "tests.golden.tiny_network:tiny"
CLASSES = {"abbey": (200, 60, 40), "bridge": (50, 170, 60), "castle": (60, 70, 190)}
DAY_S = 86_400
START_S = 1_767_225_600  # 2026-01-01
METRICS = ("cosine", "ip", "l2", "l1", "minkowski:3")


def make() -> None:
    """Make everything at ROOT."""
    ROOT.mkdir()  # fails where it is there: it must be ours alone
    hands.BLOCK_ROWS = 4
    inputs._SHARD_BYTES = 6 * 12 * 2  # six rows of the network's 12 dimensions in float16
    provenance_module.socket = SimpleNamespace(gethostname=lambda: "golden")
    with session():
        make_models()
        make_augmented()
        make_index()
        make_small_indexes()
        make_rankings()
        make_experiment()
    keep_what_is_small()


def run(*words: str, fails: bool = False) -> None:
    """A command of retrieval-cli."""
    words = tuple(str(word) for word in words)
    print("retrieval-cli", *words, file=sys.stderr)
    try:
        main(words, standalone_mode=False)
    except Exception as error:  # click's, for what the command tells in one line
        if not fails:
            raise
        print("ended as it should:", error, file=sys.stderr)
    else:
        if fails:
            raise AssertionError("did not fail")


def photo(name: str, number: int, kind: str = "JPEG") -> bytes:
    """Stripes of a class's colour, other ones for each number."""
    y, x = np.mgrid[:20, :24]
    stripes = ((x * (number % 3) + y * (number % 4 + 1)) // (2 + number % 5)) % 2
    pixels = np.array(CLASSES[name]) - 50 * stripes[..., None] + 3 * number
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, content: bytes, day: int = 0) -> None:
    """Write a photo of a given day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (START_S + day * DAY_S,) * 2)


def put_photos(folder: Path, numbers: range) -> None:
    """Some photos of each class, JPEG and PNG in turn."""
    for name in CLASSES:
        for number in numbers:
            kind = ("JPEG", "PNG")[number % 2]
            ending = ("jpg", "png")[number % 2]
            put(folder / name / f"{number}.{ending}", photo(name, number, kind))


def make_models() -> None:
    """A trained model, and a training that was stopped before it was published."""
    put_photos(ROOT / "training-photos", range(6))
    put(ROOT / "training-photos/abbey/broken.jpg", photo("abbey", 0)[:200])
    common = ["--backbone", NETWORK, "--weights", "none", "--image-size", 32, "--batch-size", 8]
    common += ["--learning-rate", 0.001, "--num-workers", 1]
    run("train", ROOT / "training-photos", ROOT / "model", *common, "--epochs", 2)

    def stop(record: object) -> None:
        raise KeyboardInterrupt

    config = train.TrainConfig(
        backbone=NETWORK, weights="none", image_size=32, batch_size=8, epochs=60, learning_rate=1e-3
    )
    try:
        train.run(
            str(ROOT / "training-photos"),
            str(ROOT / "unfinished-model"),
            config,
            train.Workers(num_workers=1),
            on_epoch=stop,
        )
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def make_augmented() -> None:
    """Both forms of an augmented folder."""
    put_photos(ROOT / "few-photos", range(2))
    put(ROOT / "few-photos/abbey/broken.jpg", photo("abbey", 0)[:200])
    common = ["--per-class", 4, "--recipe", "light"]
    run("augment", ROOT / "few-photos", ROOT / "augmented", *common)
    run("augment", ROOT / "few-photos", ROOT / "augmented-parquet", *common, "--format", "parquet")


def make_index() -> None:
    """An index of 13 versions, by nights of all kinds."""
    photos, index, labels = ROOT / "photos", ROOT / "index", ROOT / "labels.csv"

    def night(*options: str) -> None:
        run("embed", photos, index, "--model", ROOT / "model", "--labels", labels, *options)

    put_photos(photos, range(4))
    put(photos / "abbey/broken.jpg", photo("abbey", 0)[:200])
    put(photos / "bridge/empty.png", b"")
    rows = {f"{name}/{n}.{('jpg', 'png')[n % 2]}": name for name in CLASSES for n in range(4)}
    write_labels(labels, rows)
    night()  # 0
    put(photos / "abbey/new.jpg", photo("abbey", 5), 1)
    write_labels(labels, rows := {**rows, "abbey/new.jpg": "abbey"})
    night()  # 1: one more
    (photos / "castle/0.jpg").rename(photos / "castle/moved.jpg")
    write_labels(labels, rows := {**rows, "castle/moved.jpg": "castle"})
    night()  # 2: a moved row
    write_labels(labels, rows := {**rows, "bridge/1.png": "viaduct"})
    night()  # 3: another label
    (photos / "abbey/1.png").unlink()
    (photos / "castle/2.jpg").unlink()
    night()  # 4: shards rewritten without two rows
    night()  # unchanged: a record, no version
    put(photos / "bridge/0.jpg", photo("bridge", 6), 5)
    night()  # 5: other content by the same name
    put(photos / "abbey/broken.jpg", photo("abbey", 7), 6)
    put(photos / "castle/cut.png", photo("castle", 7, "PNG")[:150], 6)
    write_labels(labels, rows := {**rows, "abbey/broken.jpg": "abbey"})
    night()  # 6: one photo mended, another broken
    run("restore", index, 3)  # 7
    night()  # 8: as 6 again
    put(photos / "castle/nine.png", photo("castle", 9, "PNG"), 9)
    night("--verify-content")  # 9: without a label
    os.utime(photos / "abbey/2.jpg", (START_S + 10 * DAY_S,) * 2)
    night()  # 10: another time alone; a checkpoint
    (photos / "bridge/2.jpg").unlink()
    put(photos / "bridge/eleven.jpg", photo("bridge", 11), 11)
    run("retry-rejects", photos, index, "--model", ROOT / "model", "--labels", labels)  # 11
    put(photos / "abbey/größe 12.jpg", photo("abbey", 12), 12)
    night()  # 12


def write_labels(file: Path, rows: dict[str, str]) -> None:
    """A CSV file of labels."""
    lines = [f"{image_id},{label}" for image_id, label in sorted(rows.items())]
    file.write_text("\n".join(["image_id,label", *lines]) + "\n", encoding="utf-8")


def make_small_indexes() -> None:
    """Of a run that was killed, of a gate, and in float32 by a network without a model folder."""
    photos, model = ROOT / "small-photos", ("--model", ROOT / "model")
    put_photos(photos, range(2))
    run("embed", photos, ROOT / "float32", "--backbone", NETWORK, "--weights", "none",
        "--image-size", 32, "--dtype", "float32")  # fmt: skip
    run("embed", photos, ROOT / "killed", *model)
    probe = ("--probe", ROOT / "probe-photos", "--overlap-k", 3)
    put(ROOT / "probe-photos/abbey/a.jpg", photo("abbey", 3))
    put(ROOT / "probe-photos/unknown/b.jpg", photo("castle", 3))
    run("reindex", photos, ROOT / "gated", *model, *probe, "--min-top-1", 0.1)
    put_photos(photos, range(2, 5))
    put(photos / "bridge/broken.jpg", photo("bridge", 0)[:200], 1)
    with killed_when_embedded():
        run("embed", photos, ROOT / "killed", *model, fails=True)
    run("reindex", photos, ROOT / "gated", *model, *probe, "--min-top-1", 0.9, fails=True)


@contextmanager
def killed_when_embedded():
    """End a night before its commit, when all is staged; nobody cleans up or writes a record."""

    class Killed(Exception):  # noqa: N818
        pass

    def reached(name: str) -> None:
        if name == "embedded":
            raise Killed("killed")

    before, night_module.reached = night_module.reached, reached
    try:
        yield
    finally:
        night_module.reached = before


def make_rankings() -> None:
    """Of indexes by every metric, and of other tools' vectors."""
    index, rankings = ROOT / "index", ROOT / "rankings"
    ways = {
        "cosine": ("--top-k", 3, "--exclude-self"),
        "ip": ("--top-k", 5),
        "l2": ("--top-k", "all"),
        "l1": ("--top-k", "all", "--exclude-self"),
        "minkowski:3": ("--top-k", 4),
    }
    for metric, options in ways.items():
        run("rank", index, index, rankings / f"index-{name_of(metric)}", "--metric", metric,
            *options)  # fmt: skip
    run("rank", f"{index}@3", f"{index}@9", rankings / "old-versions", "--top-k", 2)
    run("rank", f"{index}@9", f"{index}@11", rankings / "monday", "--top-k", 3)
    run("rank", f"{index}@9", index, rankings / "tuesday", "--top-k", 3, "--previous",
        rankings / "monday")  # fmt: skip
    for metric in ("cosine", "ip"):
        run("rank", ROOT / "float32", ROOT / "float32", rankings / f"float32-{metric}",
            "--metric", metric, "--top-k", 4)  # fmt: skip
    make_vectors()
    vectors = ROOT / "vectors"
    for metric in METRICS:
        run("rank", vectors / "queries16.parquet", vectors / "gallery16.parquet",
            rankings / f"units-{name_of(metric)}", "--metric", metric, "--top-k", 6)  # fmt: skip
    for metric in ("cosine", "ip"):
        run("rank", vectors / "queries32.parquet", vectors / "gallery32",
            rankings / f"foreign-{metric}", "--metric", metric, "--top-k", 4)  # fmt: skip


def make_experiment() -> None:
    """A row of the experiment that needs no downloaded weights."""
    run("experiment", ROOT / "training-photos", ROOT / "experiment", "--scale", "small",
        "--epochs", 1, "--image-size", 32, "--per-class", 8, "--queries-per-class", 1,
        "--batch-size", 8, "--rows", "Resnet18-full_layer-not_pretrained")  # fmt: skip


def keep_what_is_small() -> None:
    """Copy what was made here, but for pictures that nobody reads again and large networks."""
    for file in ROOT.glob("augmented*/**/augmentations.png"):
        file.unlink()
    (row,) = (ROOT / "experiment/rows").iterdir()
    for folder in [*ROOT.glob("experiment/photos/augmented*"), *filter(Path.is_dir, row.iterdir())]:
        shutil.rmtree(folder)
    shutil.copytree(ROOT, Path(__file__).parent, dirs_exist_ok=True)


def name_of(metric: str) -> str:
    return metric.replace(":", "-")


def make_vectors() -> None:
    """Vectors as other tools write them: float16 of length 1 in Parquet; float32, also .npy."""
    rng, folder = np.random.default_rng(1), ROOT / "vectors"
    (folder / "gallery32").mkdir(parents=True)
    gallery = rng.normal(size=(60, 40))
    queries = np.concatenate([rng.normal(size=(10, 40)), gallery[:6] + 1e-3])
    for name, rows in (("gallery", gallery), ("queries", queries)):
        units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        if name == "gallery":  # near copies, that differ in one last place, and equal ones
            units[50:55] = units[:5]
            units[50:53, 7] = np.nextafter(units[:3, 7], np.float16(2))
        write_vectors(folder / f"{name}16.parquet", f"{name[0]}", units)
    few = rng.normal(size=(12, 5)).astype(np.float32)
    write_vectors(folder / "queries32.parquet", "q", few)
    many = rng.normal(size=(30, 5)).astype(np.float32)
    np.save(folder / "gallery32/img_emb_0.npy", many)
    ids = pa.table({"image_id": [f"g{number}" for number in range(30)]})
    pq.write_table(ids, folder / "gallery32/metadata_0.parquet")


def write_vectors(file: Path, start: str, rows: np.ndarray) -> None:
    kind = pa.list_(pa.from_numpy_dtype(rows.dtype))
    table = {
        "id": [f"{start}{number}" for number in range(len(rows))],
        "vector": pa.array(list(rows), kind),
    }
    pq.write_table(pa.table(table), file)


if __name__ == "__main__":
    try:
        make()
    finally:
        if "keep" not in sys.argv and ROOT.exists():
            shutil.rmtree(ROOT)
