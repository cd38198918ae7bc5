"""Damage to an index's log and a model's files: see `tests.damage`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from retrieval.index import open_index, read_index, save_candidate
from retrieval.models.folder import open_model
from tests.damage import Target, count_outcomes
from tests.retrieval.commits import commit, make_shard, make_versions
from tests.retrieval.models import load_trusted, make_model

RUN = {"run_id": "20261130T143554-ff3eb3ce", "num_listed": 4, "num_unlabelled": 4, "rejects": None}


def make_log(folder):
    folder.mkdir()
    make_versions(folder, 1)
    kept = open_index(str(folder)).shards[:2]
    commit(folder, [*kept, make_shard(folder, "x", "y")], 0, **RUN)
    return folder / "_delta_log" / f"{1:020d}.json"


def read_log(folder):
    rows = read_index(str(folder))
    return rows.ids, rows.embeddings.tolist(), rows.index


def make_candidate(folder):
    make_log(folder)
    index = open_index(str(folder))
    return Path(save_candidate(replace(index, run=RUN)))


def read_candidate(folder):
    (path,) = (folder / "_candidates").iterdir()
    index = open_index(str(path))
    rows = read_index(str(path))
    return rows.ids, rows.embeddings.tolist(), index.spec.fingerprint, index.run, index.version


def model_file(name):
    def make(folder):
        folder.mkdir()
        make_model(folder)
        return folder / name

    return make


def read_model(folder):
    """What decides an embedding; nothing vouches for names and figures for people."""
    model = open_model(str(folder))
    network = load_trusted(model)
    weights = {name: tensor.tolist() for name, tensor in network.state_dict().items()}
    return model.fingerprint, model.weights_sha256, model.preprocessing, weights


TARGETS = [
    Target("entry of a log", make_log, read_log),
    Target("candidate", make_candidate, read_candidate, is_json=True),
    Target("model.json", model_file("model.json"), read_model, is_json=True),
    Target("weights.safetensors", model_file("weights.safetensors"), read_model),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_file_is_read_right_or_refused(tmp_path, target):
    counts = count_outcomes(target, tmp_path / "whole", seed=1, number=60)
    assert counts["refused"] > 10
