"""What a worker of `embed` does with a batch, without Ray."""

from __future__ import annotations

import gc
import weakref

import pyarrow as pa

from pipelines.embed import stages
from pipelines.tally import Tally
from retrieval.images import Preprocessing
from tests.conftest import draw_photos


def test_a_decoding_worker_lets_go_of_its_photos(tmp_path, monkeypatch):
    files = sorted(draw_photos(tmp_path).rglob("*-*.jpg"))
    rows = {"uri": map(str, files), "size_bytes": (path.stat().st_size for path in files)}
    known, open_photos = [], stages.open_photos

    def remember(*arguments):
        photos = open_photos(*arguments)
        known.extend(weakref.ref(photo.pixels) for photo in photos)
        return photos

    monkeypatch.setattr(stages, "open_photos", remember)
    decode = stages.Decode(Preprocessing(size=32), Tally(9))
    table = decode(pa.table({k: list(v) for k, v in rows.items()}))
    assert table.num_rows == len(files) == 9
    assert table["pixels"].null_count == 0
    del table
    gc.collect()
    assert [pixels() for pixels in known] == [None] * len(files)
