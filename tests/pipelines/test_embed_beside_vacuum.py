"""`embed` beside a vacuum: what is removed before its commit is embedded once more. Without Ray."""

from __future__ import annotations

import os

import pytest

from pipelines import embed
from pipelines.embed import EmbedConfig
from retrieval.errors import VacuumedError
from retrieval.index import open_index, read_index
from retrieval.maintenance.check import check_index
from retrieval.maintenance.vacuum import vacuum_index
from tests.pipelines.here_executor import HereExecutor

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none", labels="none")


def run(photos, index):
    return embed.run(str(photos), str(index), FAKE, executor=HereExecutor()).to_json()


def run_with(photos, index, between):
    """The same, step by step, and what happens before each commit."""
    update = embed.start(str(photos), str(index), FAKE)
    for attempt in embed.Attempts(update):
        with attempt as update:
            prepared = embed.prepare(update, HereExecutor())
            between(prepared.candidate)
            report = embed.publish(prepared)
    return report.to_json()


@pytest.fixture
def gallery(tmp_path):
    """Photos, and an index of them."""
    photos, index = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "bad.jpg"):
        (photos / name).write_bytes(name.encode())
    run(photos, index)
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

    report = run_with(photos, index, vacuum_once)
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
        run_with(photos, index, always_vacuum)
    assert len(tries) == 3
    newest = open_index(str(index))
    assert (newest.version, newest.run["repeated_version"], newest.num_rows) == (3, 0, 2)


def test_a_run_that_only_a_vacuum_overtakes_needs_no_rebase(gallery):
    photos, index = gallery
    (photos / "c.jpg").write_bytes(b"c")
    left = index / f"shard-{'0' * 32}.parquet"
    left.write_bytes(b"by a run that was killed")
    os.utime(left, (1e9, 1e9))
    report = run_with(photos, index, lambda candidate: vacuum_index(str(index), 1))
    assert not left.exists()
    assert (report["version_before"], report["version"], report["num_embedded"]) == (0, 2, 1)
    assert open_index(str(index), 1).run["repeated_version"] == 0


def test_an_unchanged_gallery_is_told_so_beside_a_vacuum(gallery):
    photos, index = gallery
    (index / f"shard-{'0' * 32}.parquet").write_bytes(b"left by a run that was killed")
    vacuum(index)
    report = run(photos, index)
    assert (report["status"], report["version_after"]) == ("unchanged", 1)
    assert report["rejects"]
    assert open_index(str(index)).run["repeated_version"] == 0
