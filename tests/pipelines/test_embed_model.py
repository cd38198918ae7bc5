"""`embed --model`: a trained network's own weights and image size, or an error; never others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.embed import EmbedConfig, run, update
from pipelines.train import TrainConfig
from pipelines.train.network import preprocessing_of, settled
from retrieval.errors import ModelError, UsageError
from retrieval.images import Preprocessing, decode_image
from retrieval.index import is_index, open_index, read_index
from retrieval.models.backbones import BackboneSpec
from retrieval.models.embedder import Embedder
from retrieval.models.folder import write_model
from tests.conftest import draw_photos
from tests.retrieval.models import ONE_WEIGHT, SMALL, a_body, a_head, edit, facts, make_model


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


OWN = ("--backbone", ONE_WEIGHT)  # named as well: no folder has its code run


def config_of(model):
    return EmbedConfig(model=str(model), backbone=ONE_WEIGHT)


def embed_in_a_loop(photos, ids, embedder, preprocessing):
    """The bytes of each photo's embedding, without Ray."""
    for image_id in ids:
        image = decode_image((photos / image_id).read_bytes(), preprocessing)
        yield embedder.embed(image.pixels[None])[0].tobytes()


def test_embeddings_are_the_model_s_at_its_image_size(photos, tmp_path, ray_session):
    model = make_model(tmp_path / "model")
    result = invoke("embed", photos, tmp_path / "index", "--model", tmp_path / "model", *OWN)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["preprocessing"] == {
        **SMALL.to_json(),
        "decoder": 1,
        "from": dict.fromkeys((*SMALL.to_json(), "decoder"), "model"),
    }
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
    run(str(photos), str(tmp_path / "index"), config_of(f"{s3}/embed/model"))
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
    result = invoke("embed", photos, tmp_path / "index", "--model", tmp_path / "model", *OWN)
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
        f"Error: {photos}: no finished model there (no model.json), but a folder of files, such as "
        f"grey.png. Name another place; train one in a new place: retrieval-cli train "
        f"PHOTOS MODEL\n",
    )


@pytest.mark.parametrize("damage", [swap, cut])
def test_workers_whose_weights_are_others_than_the_driver_s_stop_the_job(
    photos, tmp_path, ray_session, monkeypatch, damage
):
    make_model(tmp_path / "model")
    load_network = update.load_network

    def load_then_damage(config):
        loaded = load_network(config)
        damage(tmp_path / "model")
        return loaded

    monkeypatch.setattr(update, "load_network", load_then_damage)
    with pytest.raises(ModelError) as caught:
        run(str(photos), str(tmp_path / "index"), config_of(tmp_path / "model"))
    assert str(caught.value).startswith(
        f"{tmp_path}/model: weights.safetensors is not what model.json describes: its "
    )
    assert not is_index(str(tmp_path / "index"))


def test_workers_take_the_driver_s_word_for_what_the_model_is(
    photos, tmp_path, ray_session, monkeypatch
):
    # Another model takes the folder's place, whole and good, while the job runs.
    make_model(tmp_path / "model")
    load_network = update.load_network

    def load_then_replace(config):
        loaded = load_network(config)
        make_model(tmp_path / "model", seed=8)
        return loaded

    monkeypatch.setattr(update, "load_network", load_then_replace)
    with pytest.raises(ModelError, match=r"weights\.safetensors is not what model\.json describes"):
        run(str(photos), str(tmp_path / "index"), config_of(tmp_path / "model"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--weights", "imagenet"),  # also where it is the default's value
        ("--seed", "0"),
        ("--image-size", "224"),
        ("--image-size", "96"),
        ("--mean", "0.485,0.456,0.406"),
        ("--std", "1,1,1"),
    ],
)
def test_a_model_with_what_it_decides_is_wrong_usage(tmp_path, option, value):
    result = invoke("embed", "photos", "index", "--model", tmp_path, option, value)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: --model decides {option} too: give one of them.\n")


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--mean", "0.5", "'0.5' is not three numbers R,G,B, as in 0.5,0.5,0.5."),
        ("--mean", "0.5,0.5,x", "'0.5,0.5,x' is not three numbers R,G,B, as in 0.5,0.5,0.5."),
        ("--mean", "1,1,nan", "'1,1,nan' is not three numbers R,G,B, as in 0.5,0.5,0.5."),
        ("--std", "1,1,1,1", "'1,1,1,1' is not three numbers R,G,B, as in 0.5,0.5,0.5."),
        ("--std", "1,1,0", "'1,1,0' has one that is not above 0; the input is divided by it."),
    ],
)
@pytest.mark.parametrize("verb", ["embed", "train", "reindex", "retry-rejects", "experiment"])
def test_a_mean_and_a_deviation_are_three_numbers(verb, option, value, complaint):
    result = invoke(verb, "photos", "output", option, value)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: Invalid value for '{option}': {complaint}\n")


def plan(*arguments):
    result = invoke(*arguments, "--dry-run")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_what_a_network_states_of_its_input_and_what_the_options_say(photos, tmp_path):
    """tests.fakes:stating wants its input as bytes on the scale [0, 1]."""
    places = (photos, tmp_path / "index")
    own, silent = ("--backbone", "tests.fakes:stating"), ("--backbone", "tests.fakes:mean_colour")
    plain = {"size": 16, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    stated = plan("embed", *places, *own)
    origins = {**dict.fromkeys(plain, "network"), "decoder": "default"}
    plain["decoder"] = 1
    assert stated["preprocessing"] == {**plain, "from": origins}
    assert stated["model"]["weights"] == "none"
    said = plan("embed", *places, *own, "--image-size", 16, "--mean", "0,0,0", "--std", "1,1,1")
    assert said["model"] == stated["model"]
    assert said["preprocessing"]["from"] == dict.fromkeys(origins, "option") | {
        "decoder": "default"
    }
    other = plan("reindex", *places, *own, "--mean", "0.5,0.5,0.5")
    assert other["preprocessing"] == {
        **plain, "mean": [0.5, 0.5, 0.5], "from": {**origins, "mean": "option"},
    }  # fmt: skip
    assert other["model"]["fingerprint"] != stated["model"]["fingerprint"]
    usual = plan("embed", *places, *silent)["preprocessing"]
    assert usual == {
        **Preprocessing().to_json(),
        "decoder": 1,
        "from": dict.fromkeys(origins, "default"),
    }


def test_training_takes_the_network_s_word_and_a_night_the_folder_s(tmp_path):
    photos = draw_photos(tmp_path / "photos")
    stated = settled(TrainConfig(backbone="tests.fakes:stating"))
    assert preprocessing_of(stated) == Preprocessing(size=16, mean=(0, 0, 0), std=(1, 1, 1))
    given = settled(TrainConfig(backbone="tests.fakes:stating", image_size=32, std=(2, 2, 2)))
    assert preprocessing_of(given) == Preprocessing(size=32, mean=(0, 0, 0), std=(2, 2, 2))
    found = plan("train", photos, tmp_path / "model", "--backbone", "tests.fakes:stating")
    assert found["preprocessing"]["mean"] == [0.0, 0.0, 0.0]
    assert found["preprocessing"]["from"]["mean"] == "network"
    # The settings of trainings that were begun before there were these options.
    assert settled(TrainConfig()).recorded() | {"mean": None, "std": None} == (
        TrainConfig(image_size=224).recorded()
    )


def test_settings_are_recorded_as_before_unless_they_are_unusual():
    assert (
        EmbedConfig().recorded()
        == EmbedConfig(backbone="resnet18", weights="imagenet", image_size=224).recorded()
    )
    assert not {"mean", "std"} & EmbedConfig(mean=Preprocessing.mean).recorded().keys()
    own = EmbedConfig(backbone="a:b").recorded(Preprocessing(size=16, mean=(0, 0, 0)))
    assert (own["weights"], own["image_size"], own["mean"]) == ("none", 16, [0.0, 0.0, 0.0])
    assert "std" not in own


def test_an_image_size_of_no_pixels_is_wrong_usage():
    assert invoke("embed", "photos", "index", "--image-size", "0").exit_code == 2


def test_a_config_with_a_model_and_what_it_decides_is_refused():
    with pytest.raises(UsageError) as caught:
        EmbedConfig(model="m", backbone="resnet50", weights="none", image_size=96)
    assert str(caught.value) == "`model` decides `weights` too: give one of them."
    assert EmbedConfig(model="m", dtype="float32").model == "m"
