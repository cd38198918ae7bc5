"""What a worker of `embed` does with a batch, without Ray."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.embed import stages
from pipelines.ray_runtime.counter import Tally
from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec
from tests.conftest import draw_photos, photo_bytes


def test_a_decoding_worker_lets_go_of_its_photos(tmp_path, monkeypatch):
    files = sorted(draw_photos(tmp_path).rglob("*-*.jpg"))
    rows = {"uri": map(str, files), "size_bytes": (path.stat().st_size for path in files)}
    known, open_photos = [], stages.open_photos

    def remember(*arguments):
        photos = open_photos(*arguments)
        known.extend(weakref.ref(photo.pixels) for photo in photos)
        return photos

    monkeypatch.setattr(stages, "open_photos", remember)
    rows["image_id"] = map(str, files)
    decode = stages.Decode(Preprocessing(size=32), Tally(9))
    table = decode(pa.table({k: list(v) for k, v in rows.items()}))
    assert table.num_rows == len(files) == 9
    assert table["pixels"].null_count == 0
    del table
    gc.collect()
    assert [pixels() for pixels in known] == [None] * len(files)


def test_only_what_was_embedded_was_computed_in_a_precision(tmp_path, monkeypatch):
    """Of a batch with a photo that cannot be decoded and one that the network answers with 0."""
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (32, 24)).save(tmp_path / "black.png")
    (tmp_path / "red.png").write_bytes(photo_bytes((200, 30, 30), kind="PNG"))
    files = sorted(tmp_path.iterdir())
    rows = {"image_id": [file.name for file in files], "uri": list(map(str, files))}
    rows["size_bytes"] = [file.stat().st_size for file in files]
    preprocessing = Preprocessing(size=32)
    decoded = stages.Decode(preprocessing, Tally(3))(pa.table(rows))
    backbone = BackboneSpec(name="tests.fakes:mean_colour", weights="none")
    network = stages.EmbedPhotos({"backbone": backbone, "preprocessing": preprocessing}, Tally(3))

    def answer(pixels):
        return (pixels.mean((1, 2)) / 255).astype(np.float16)

    monkeypatch.setattr(network._embedder, "embed", answer)
    embedded = network(decoded)
    assert [reason is None for reason in embedded["reason"].to_pylist()] == [False, True, False]
    manners = embedded["manner"].to_pylist()
    assert [manner is not None for manner in manners] == [False, True, False]
