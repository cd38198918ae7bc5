"""`embed` beside a vacuum: what is removed before its commit is embedded once more. Without Ray."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest

from pipelines.embed import EmbedConfig, job
from retrieval.errors import VacuumedError
from retrieval.images.fetch import hash_photos
from retrieval.index import index_schema, open_index, read_index, stage
from retrieval.index.compaction import carry
from retrieval.index.staging import INDEX_REJECT_SCHEMA
from retrieval.maintenance.check import check_index
from retrieval.maintenance.vacuum import vacuum_index

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none", labels="none")


class HereHands:
    """The work of a night in this process; a photo's vector is of its first bytes."""

    stages = None

    def __init__(self, index, settings, spec, config, laps, site):
        self.index, self.spec = index, spec

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def manners(self):
        return {}

    def hash_photos(self, photos):
        hashes = hash_photos(photos["uri"].to_pylist(), photos["size_bytes"].to_pylist())
        return pa.table({"image_id": photos["image_id"], "content_sha256": hashes})

    def embed(self, photos, night):
        good, bad = [], []
        for photo, content in zip(
            photos.to_pylist(), self.hash_photos(photos)["content_sha256"].to_pylist(), strict=True
        ):
            if "bad" in photo["image_id"]:
                bad.append({**photo, "reason": "corrupt", "message": "no photo"})
                continue
            vector = np.zeros(self.spec.dim, self.spec.dtype)
            vector[int(content, 16) % self.spec.dim] = 1
            row = {"content_sha256": content, "width": 1, "height": 1}
            good.append({**photo, **row, "embedding": vector.tobytes()})
        rows = pa.Table.from_pylist(good, index_schema(self.spec))
        rejects = pa.Table.from_pylist(bad, INDEX_REJECT_SCHEMA)
        return [stage(self.index, self.spec, (night.run_id, night.listed_us), rows, rejects)]

    def carry(self, groups):
        return [carry(self.index, self.spec, group) for group in groups]


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """Photos, and an index of them."""
    monkeypatch.setattr(job, "RayHands", HereHands)
    photos, index = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "bad.jpg"):
        (photos / name).write_bytes(name.encode())
    job.run(str(photos), str(index), FAKE)
    return photos, index


def vacuum(index):
    vacuum_index(str(index), 0, force=True)


def test_what_a_vacuum_removes_before_the_commit_is_embedded_once_more(gallery, capsys):
    photos, index = gallery
    for name in ("c.jpg", "bad-2.jpg"):
        (photos / name).write_bytes(name.encode())
    tries = []

    def vacuum_once(candidate):
        tries.append(candidate)
        if len(tries) == 1:
            vacuum(index)

    report = job.run(str(photos), str(index), FAKE, gate=vacuum_once)
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert "this new shard is not there" in told
    assert told.endswith("Embedding what is gone once more.")
    assert (len(tries), report["version_before"], report["version"]) == (2, 1, 2)
    assert (report["num_embedded"], report["num_rejected"]) == (1, 2)
    assert check_index(open_index(str(index))).faults == []
    assert read_index(str(index)).ids == ["a.jpg", "b.jpg", "c.jpg"]


def test_beside_a_vacuum_that_removes_all_again_and_again_it_gives_up_in_one_line(gallery):
    photos, index = gallery
    (photos / "c.jpg").write_bytes(b"c")
    tries = []

    def always_vacuum(candidate):
        tries.append(candidate)
        vacuum(index)

    with pytest.raises(
        VacuumedError, match=r"^\S+: this new shard is not there; .* run it again\.$"
    ):
        job.run(str(photos), str(index), FAKE, gate=always_vacuum)
    assert len(tries) == 3
    newest = open_index(str(index))
    assert (newest.version, newest.run["repeated_version"], newest.num_rows) == (3, 0, 2)


def test_a_run_that_only_a_vacuum_overtakes_needs_no_rebase(gallery):
    photos, index = gallery
    (photos / "c.jpg").write_bytes(b"c")
    left = index / f"shard-{'0' * 32}.parquet"
    left.write_bytes(b"by a run that was killed")
    os.utime(left, (1e9, 1e9))
    report = job.run(
        str(photos), str(index), FAKE, gate=lambda candidate: vacuum_index(str(index), 1) and None
    )
    assert not left.exists()
    assert (report["version_before"], report["version"], report["num_embedded"]) == (0, 2, 1)
    assert open_index(str(index), 1).run["repeated_version"] == 0


def test_an_unchanged_gallery_is_told_so_beside_a_vacuum(gallery):
    photos, index = gallery
    (index / f"shard-{'0' * 32}.parquet").write_bytes(b"left by a run that was killed")
    vacuum(index)
    report = job.run(str(photos), str(index), FAKE)
    assert (report["status"], report["version_after"]) == ("unchanged", 1)
    assert report["rejects"]
    assert open_index(str(index)).run["repeated_version"] == 0
