"""`embed --model`: a trained network's own weights and image size, or an error; never others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.embed import EmbedConfig, run
from retrieval.backbones import BackboneSpec
from retrieval.embedding import Embedder
from retrieval.errors import ModelError, UsageError
from retrieval.images import Preprocessing, decode_image
from retrieval.index import is_index, open_index, read_index
from retrieval.model_folder import write_model
from tests.retrieval.models import ONE_WEIGHT, SMALL, a_body, a_head, edit, facts, make_model


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def embed_in_a_loop(photos, ids, embedder, preprocessing):
    """The bytes of each photo's embedding, without Ray."""
    for image_id in ids:
        image = decode_image((photos / image_id).read_bytes(), preprocessing)
        yield embedder.embed(image.pixels[None])[0].tobytes()


def test_embeddings_are_the_model_s_at_its_image_size(photos, tmp_path, ray_session):
    model = make_model(tmp_path / "model")
    result = invoke("embed", photos, tmp_path / "index", "--model", tmp_path / "model")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["model"] == {
        "fingerprint": model.fingerprint,
        "backbone": ONE_WEIGHT,
        "weights": str(tmp_path / "model"),
        "dim": 5,
        "dtype": "float16",
        "normalised": True,
    }
    rows = read_index(str(tmp_path / "index"))
    assert len(rows.ids) == 10
    backbone = BackboneSpec(name=ONE_WEIGHT, weights=model.weights_uri)
    expected = list(embed_in_a_loop(photos, rows.ids, Embedder(backbone, SMALL), SMALL))
    assert [row.tobytes() for row in rows.embeddings] == expected
    assert len(set(expected)) > 5
    settings = open_index(str(tmp_path / "index")).run["settings"]
    assert settings["model"] == str(tmp_path / "model")
    assert not {"backbone", "weights", "seed", "image_size"} & settings.keys()


def test_an_untrained_network_can_be_given_the_same_image_size(photos, tmp_path, ray_session):
    index = tmp_path / "index"
    arguments = ["--backbone", ONE_WEIGHT, "--weights", "none", "--image-size", 16]
    result = invoke("embed", photos, index, *arguments)
    assert result.exit_code == 0, result.stderr
    rows = read_index(str(index))
    small = Preprocessing(size=16)
    embedder = Embedder(BackboneSpec(name=ONE_WEIGHT, weights="none"), small)
    assert rows.index.spec == embedder.spec
    expected = list(embed_in_a_loop(photos, rows.ids, embedder, small))
    assert [row.tobytes() for row in rows.embeddings] == expected
    assert open_index(str(index)).run["settings"]["image_size"] == 16


def test_photos_and_model_on_an_object_store(photos, tmp_path, s3, ray_session):
    model = write_model(f"{s3}/embed/model", a_body(), a_head(), facts())
    run(str(photos), str(tmp_path / "index"), EmbedConfig(model=f"{s3}/embed/model"))
    spec = open_index(str(tmp_path / "index")).spec
    assert (spec.fingerprint, spec.weights) == (model.fingerprint, f"{s3}/embed/model")


def swap(folder):
    other = make_model(folder.with_name("other"), seed=8)
    (folder / "weights.safetensors").write_bytes(Path(other.weights_uri).read_bytes())


def cut(folder):
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])


def resize(folder):
    edit(folder, preprocessing=SMALL.to_json() | {"size": 32})


@pytest.mark.parametrize("damage", [swap, cut, resize])
def test_weights_other_than_described_are_exit_code_1_and_one_line(photos, tmp_path, damage):
    make_model(tmp_path / "model")
    damage(tmp_path / "model")
    result = invoke("embed", photos, tmp_path / "index", "--model", tmp_path / "model")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"Error: {tmp_path}/model: weights.safetensors is not what model.json describes: "
    )
    assert result.stderr.count("\n") == 1
    assert not is_index(str(tmp_path / "index"))


def test_a_folder_without_a_model_is_exit_code_1_and_one_line(photos, tmp_path):
    result = invoke("embed", photos, tmp_path / "index", "--model", photos)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {photos}: no finished model there (no model.json). "
        f"Train one: retrieval-cli train PHOTOS {photos}\n",
    )


@pytest.mark.parametrize("damage", [swap, cut])
def test_workers_whose_weights_are_others_than_the_driver_s_stop_the_job(
    photos, tmp_path, ray_session, monkeypatch, damage
):
    make_model(tmp_path / "model")
    load_model = run.__globals__["load_model"]

    def load_then_damage(config):
        loaded = load_model(config)
        damage(tmp_path / "model")
        return loaded

    monkeypatch.setitem(run.__globals__, "load_model", load_then_damage)
    with pytest.raises(ModelError) as caught:
        run(str(photos), str(tmp_path / "index"), EmbedConfig(model=str(tmp_path / "model")))
    assert str(caught.value).startswith(
        f"{tmp_path}/model: weights.safetensors is not what model.json describes: its "
    )
    assert not is_index(str(tmp_path / "index"))


def test_workers_take_the_driver_s_word_for_what_the_model_is(
    photos, tmp_path, ray_session, monkeypatch
):
    # Another model takes the folder's place, whole and good, while the job runs.
    make_model(tmp_path / "model")
    load_model = run.__globals__["load_model"]

    def load_then_replace(config):
        loaded = load_model(config)
        make_model(tmp_path / "model", seed=8)
        return loaded

    monkeypatch.setitem(run.__globals__, "load_model", load_then_replace)
    with pytest.raises(ModelError, match=r"weights\.safetensors is not what model\.json describes"):
        run(str(photos), str(tmp_path / "index"), EmbedConfig(model=str(tmp_path / "model")))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--backbone", "resnet18"),  # also where it is the default's value
        ("--backbone", "resnet50"),
        ("--weights", "imagenet"),
        ("--seed", "0"),
        ("--image-size", "224"),
        ("--image-size", "96"),
    ],
)
def test_a_model_with_what_it_decides_is_wrong_usage(tmp_path, option, value):
    result = invoke("embed", "photos", "index", "--model", tmp_path, option, value)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: --model decides {option} too: give one of them.\n")


def test_an_image_size_of_no_pixels_is_wrong_usage():
    assert invoke("embed", "photos", "index", "--image-size", "0").exit_code == 2


def test_a_config_with_a_model_and_what_it_decides_is_refused():
    with pytest.raises(UsageError) as caught:
        EmbedConfig(model="m", backbone="resnet50", image_size=96)
    assert str(caught.value) == "model='m': decides backbone, image_size too; leave it out."
    assert EmbedConfig(model="m", dtype="float32").model == "m"
