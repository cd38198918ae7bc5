"""`train`: from photos to a model folder that `embed` takes."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image

from pipelines import embed
from pipelines.train import TrainConfig, Workers, run
from retrieval.errors import UsageError
from retrieval.index import read_index
from retrieval.models.folder import open_model
from tests.training import COLOURS, draw_photos, encode

pytestmark = pytest.mark.usefixtures("ray_session")

SMALL = TrainConfig(
    backbone="tests.training:small", weights="none", epochs=3, batch_size=6, image_size=32,
    learning_rate=0.01, dropout=0.1, validation=0.25,
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("train") / "photos")


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A model and what the job said of it, for the tests that only look."""
    photos = photos.parent / "with-odd-files"
    draw_photos(photos)
    (photos / "red" / "broken.jpg").write_bytes(encode([[[0, 0, 0]]])[:60])
    (photos / "outside.jpg").write_bytes(encode([[[9, 9, 9]]]))
    (photos / "nobody").mkdir()
    (photos / "alone").mkdir()
    (photos / "alone" / "1.jpg").write_bytes(encode([[[250, 250, 250]] * 9] * 9))
    model = tmp_path_factory.mktemp("model") / "model"
    said, records = [], []
    report = run(str(photos), str(model), SMALL, say=said.append, on_epoch=records.append).to_json()
    return photos, model, report, said, records


def test_the_model_folder_holds_the_best_epoch(trained):
    _, model, report, _, records = trained
    found = open_model(str(model))
    assert found.classes == ("alone", "blue", "green", "red")
    assert found.dim == 8
    assert found.preprocessing.size == 32
    assert found.training["epochs_done"] == 3
    assert found.training["settings"]["learning_rate"] == 0.01
    assert dict(found.metrics) == report["best"] in records
    # Best by retrieval; of equal ones the smaller loss.
    merits = [(r["top_1"], r["top_3"], r["top_10"], -r["validation_loss"]) for r in records]
    assert found.metrics["epoch"] == merits.index(max(merits)) + 1
    weights = safetensors.torch.load_file(model / "weights.safetensors")
    assert weights["fc.weight"].shape == (4, 8)


def test_the_figures_of_each_epoch_are_kept_beside_it(trained):
    _, model, _, said, records = trained
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert lines == records
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(0 <= line["top_1"] <= line["top_3"] <= line["top_10"] <= 1 for line in lines)
    assert lines[0]["learning_rate"] == 0.01
    assert lines[2]["learning_rate"] == pytest.approx(0.01 * 0.96**2)
    with Image.open(model / "learning-curve.png") as picture:
        assert picture.size[0] > 800
    assert sum(line.startswith("epoch ") for line in said) == 3
    assert said[-1].startswith("epoch 3/3: loss ")
    assert not (model / "training").exists()


def test_every_photo_is_trained_on_or_measured_or_named(trained):
    photos, model, report, said, _ = trained
    sides = {
        row["image_id"]: row["side"] for row in pq.read_table(model / "split.parquet").to_pylist()
    }
    for name in COLOURS:
        of_class = [sides[f"{name}/{number}.jpg"] for number in range(8)]
        assert sorted(of_class) == ["training"] * 6 + ["validation"] * 2
    assert sides["alone/1.jpg"] == "training"
    assert "outside.jpg" not in sides
    assert (report["num_training"], report["num_validation"], report["num_rejected"]) == (19, 6, 1)
    rejects = pq.read_table(model / "rejects.parquet").to_pylist()
    assert [(row["image_id"], row["reason"]) for row in rejects] == [
        ("red/broken.jpg", "truncated")
    ]
    assert said[:4] == [
        f"{photos}: 1 files are no readable photos (1 truncated)",
        f"{photos}: 1 files lie in no class and are left out",
        f"{photos}: class 'nobody' has no readable photo and is left out",
        f"{photos}: class 'alone' is trained on but not measured: it has no photo to spare",
    ]


def config_of(model):
    """To embed with what was trained: a function of one's own is named again."""
    return embed.EmbedConfig(model=str(model), backbone=SMALL.backbone)


def test_embed_takes_the_model_and_its_network_has_learnt(trained, photos, tmp_path):
    _, model, report, _, _ = trained
    embed.run(str(photos), str(tmp_path / "index"), config_of(model))
    rows = read_index(str(tmp_path / "index"))
    assert rows.index.spec.fingerprint == report["fingerprint"]
    assert rows.index.spec.dim == 8
    assert report["best"]["top_1"] == 1.0  # three colours: anything that has learnt tells them


def test_a_finished_training_is_not_done_again(trained):
    photos, model, report, _, _ = trained
    before = (model / "model.json").stat().st_mtime_ns
    said = []
    again = run(str(photos), str(model), SMALL, say=said.append).to_json()
    assert again["already_trained"]
    assert again["fingerprint"] == report["fingerprint"]
    assert (model / "model.json").stat().st_mtime_ns == before
    assert said == []
    with pytest.raises(UsageError) as caught:
        run(str(photos), str(model), replace(SMALL, epochs=4))
    assert str(caught.value) == (
        f"{model}: holds a finished model with other settings (epochs 3, now 4). Use the same "
        f"settings, or another folder."
    )


def test_two_workers_train_what_one_would(photos, tmp_path):
    # Nothing in this network mixes photos, and a rank's share of a batch has its weight. Some of
    # its own weights are never used.
    config = replace(
        SMALL,
        backbone="tests.training:headed",
        dropout=0.0,
        epochs=2,
        batch_size=7,
        optimizer="sgd",
    )
    one = run(str(photos), str(tmp_path / "one"), config).to_json()
    two = run(str(photos), str(tmp_path / "two"), config, Workers(num_workers=2)).to_json()
    assert two["best"]["num_workers"] == 2
    for name in ("loss", "accuracy", "validation_loss", "validation_accuracy", "top_1"):
        assert two["best"][name] == pytest.approx(one["best"][name], rel=1e-5), name
    weights = [
        safetensors.torch.load_file(tmp_path / name / "weights.safetensors")
        for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)


def test_last_layer_with_frozen_statistics_leaves_the_embeddings_as_they_were(photos, tmp_path):
    config = replace(SMALL, mode="last-layer", epochs=1)
    frozen = run(
        str(photos), str(tmp_path / "frozen"), replace(config, batch_norm="frozen")
    ).to_json()
    follow = run(str(photos), str(tmp_path / "follow"), config).to_json()
    index = embed.run(
        str(photos),
        str(tmp_path / "index"),
        embed.EmbedConfig(backbone="tests.training:small", weights="none", image_size=32),
    )
    assert frozen["fingerprint"] == index.model.fingerprint
    assert follow["fingerprint"] != index.model.fingerprint


def test_every_loss_recipe_and_option_can_be_trained_with(photos, tmp_path):
    config = replace(
        SMALL, epochs=1, loss="multi-similarity", sampler="balanced", batch_size=12, recipe="light",
        optimizer="adamw", weight_decay=0.1, warmup_epochs=0.5, precision="bfloat16",
        channels_last=False, photos_per_class=4,
    )  # fmt: skip
    report = run(
        str(photos), str(tmp_path / "model"), config, Workers(num_workers=(1, 2))
    ).to_json()
    assert report["num_training"] == 12
    assert report["num_left_out"] == 6
    assert report["best"]["num_workers"] in (1, 2)
