"""The model folder: written whole, read back to the last bit, refused in one line if damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from retrieval.errors import ModelError, StorageError
from retrieval.images import Preprocessing
from retrieval.models.backbones import (
    BACKBONES,
    BackboneSpec,
    build_backbone,
    fingerprint,
    inner_network,
)
from retrieval.models.folder import is_model, open_model, write_model
from tests.retrieval.models import (
    ONE_WEIGHT,
    SMALL,
    a_body,
    a_head,
    facts,
    load_trusted,
    make_model,
    refusal,
)

HERE = "tests.retrieval.test_model_folder"
ANEW = "Copy the folder anew as a whole, or train again: retrieval-cli train PHOTOS MODEL"


def states_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "dim"),
    [("resnet18", BACKBONES["resnet18"]), ("googlenet", BACKBONES["googlenet"]), (ONE_WEIGHT, 5)],
)
def test_a_model_comes_back_as_it_was_written(tmp_path, name, dim):
    body, head = a_body(name), a_head(dim)
    written = write_model(str(tmp_path / "model"), body, head, facts(backbone=name))
    model = open_model(str(tmp_path / "model"))
    assert model == written
    assert dataclasses.asdict(facts(backbone=name)).items() <= dataclasses.asdict(model).items()
    assert model.dim == dim
    assert model.fingerprint == fingerprint(BackboneSpec(name=name), body, SMALL)

    loaded = load_trusted(model)
    assert states_equal(loaded.state_dict(), body.state_dict())
    assert not any(layer.training for layer in loaded.modules())
    assert not any(weight.requires_grad for weight in loaded.parameters())

    # The same file is good for --weights, and has the head by torchvision's names.
    spec = BackboneSpec(name=name, weights=model.weights_uri)
    assert fingerprint(spec, build_backbone(spec), SMALL) == model.fingerprint
    state = safetensors.torch.load_file(model.weights_uri)
    assert states_equal(state, inner_network(body).state_dict() | named_fc(head))


def named_fc(head):
    return {f"fc.{name}": tensor for name, tensor in head.state_dict().items()}


def test_model_json_says_all_in_plain_values(tmp_path):
    model = make_model(tmp_path)
    text = (tmp_path / "model.json").read_text()
    weights = (tmp_path / "weights.safetensors").read_bytes()
    assert json.loads(text) == {
        "format_version": 1,
        "backbone": "tests.fakes:one_weight",
        "mode": "full",
        "pooling": "average",
        "dim": 5,
        "classes": ["abbey", "bridge", "castle"],
        "preprocessing": {"size": 16, "mean": [0.5, 0.25, 0.125], "std": [0.5, 1.0, 2.0]},
        "fingerprint": model.fingerprint,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "training": {"epochs": 3},
        "metrics": {"top_1": 0.5, "map": None},
    }
    assert text.startswith('{\n  "format_version": 1,\n')
    assert text.endswith("\n}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_torchvision_takes_the_weights_as_they_are(tmp_path):
    model = write_model(str(tmp_path), a_body("resnet18"), a_head(512), facts(backbone="resnet18"))
    whole = torchvision.models.resnet18(num_classes=3)
    whole.load_state_dict(safetensors.torch.load_file(model.weights_uri))
    assert torch.equal(whole.fc.bias, a_head(512).bias)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    make_model(tmp_path / "one")
    body = a_body().train().requires_grad_(True).to(memory_format=torch.channels_last)
    write_model(str(tmp_path / "two"), body, a_head(), facts())
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert make_model(tmp_path / "one", seed=8) != open_model(str(tmp_path / "two"))


def test_labels_of_any_language_stand_in_model_json_as_they_are(tmp_path):
    write_model(str(tmp_path), a_body(), a_head(), facts(classes=("Brücke", "塔", "b\n")))
    assert "塔" in (tmp_path / "model.json").read_text()
    assert open_model(str(tmp_path)).classes == ("Brücke", "塔", "b\n")


class WithHeads(nn.Module):
    """Somebody's own network with layers that are called as heads are, two tensors being one."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)
        self.fc.fc = nn.Linear(5, 5)
        self.twin = nn.Linear(3, 5)
        self.twin.weight = self.fc.weight

    def forward(self, images):
        return self.fc.fc(self.fc(images.mean(dim=(2, 3))) + self.twin(images.mean(dim=(2, 3))))


def test_a_head_never_takes_the_name_of_a_layer(tmp_path):
    name = f"{HERE}:WithHeads"
    body, head = a_body(name), a_head(5)
    model = write_model(str(tmp_path), body, head, facts(backbone=name))
    state = safetensors.torch.load_file(model.weights_uri)
    assert torch.equal(state["fc.fc.fc.weight"], head.weight)
    assert torch.equal(state["fc.weight"], body.network.fc.weight)
    assert states_equal(load_trusted(model).state_dict(), body.state_dict())
    spec = BackboneSpec(name=name, weights=model.weights_uri)
    assert states_equal(build_backbone(spec).state_dict(), body.state_dict())


@pytest.mark.parametrize("fails_at", ["weights.safetensors", "model.json"])
@pytest.mark.parametrize("was_there", [True, False])
def test_a_half_written_model_is_no_model(tmp_path, monkeypatch, fails_at, was_there):
    folder = tmp_path / "model"
    if was_there:
        make_model(folder, seed=1)

    def write_until(uri, data):
        if uri.endswith(fails_at):
            raise KeyboardInterrupt
        Path(uri).parent.mkdir(exist_ok=True)
        Path(uri).write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.models.folder.network.write_bytes", write_until)
        with pytest.raises(KeyboardInterrupt):
            make_model(folder, seed=2)
    assert not is_model(str(folder))
    message = (
        f"no finished model there (no model.json). Train one: retrieval-cli train PHOTOS {folder}"
    )
    assert refusal(open_model, str(folder)) == f"{folder}: {message}"
    assert load_trusted(make_model(folder, seed=2)) is not None
    assert is_model(str(folder))


@pytest.mark.parametrize("name", ["nowhere", "file", "folder"])
def test_what_is_no_model_is_said_to_be_none(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    folder = tmp_path / name
    assert not is_model(str(folder))
    advice = f". Train one: retrieval-cli train PHOTOS {folder}"
    if name == "file":  # which a training would write over
        advice = (
            ", but a file. Name another place; train one in a new place: retrieval-cli train "
            "PHOTOS MODEL"
        )
    assert refusal(open_model, str(folder)) == (
        f"{folder}: no finished model there (no model.json){advice}"
    )


def test_a_model_json_that_cannot_be_read_is_said_to_be_there(tmp_path):
    (tmp_path / "model.json").mkdir()
    assert refusal(open_model, str(tmp_path)) == (
        f"{tmp_path}/model.json: cannot be read (Is a directory). Allow reading it; of a store, "
        f"check the address and this machine's credentials."
    )


@pytest.mark.parametrize(
    ("changes", "kind", "complaint"),
    [
        ({"classes": ("a", "b")}, ModelError, "its head is (3, 5), but classes and dim are (2, 5)"),
        ({"mode": "half"}, ModelError, "mode is 'half'; one of full, last-layer, from-scratch"),
        ({"metrics": {"map": float("nan")}}, ValueError, "not JSON compliant"),
        ({"training": {"seed": object()}}, TypeError, "not JSON serializable"),
    ],
    ids=["classes", "mode", "nan", "object"],
)
def test_facts_that_make_no_model_are_refused_before_anything_is_written(
    tmp_path, changes, kind, complaint
):
    before = make_model(tmp_path / "model", seed=1)
    arguments = (str(tmp_path / "model"), a_body(), a_head(), facts(**changes))
    assert complaint in refusal(write_model, *arguments, kind=kind)
    assert load_trusted(open_model(str(tmp_path / "model"))) is not None
    assert open_model(str(tmp_path / "model")) == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    message = refusal(make_model, tmp_path / "file" / "model", kind=StorageError)
    assert message.startswith(f"{tmp_path}/file/model/")


def test_a_model_on_an_object_store(s3):
    uri = f"{s3}/models/one"
    assert not is_model(uri)
    assert refusal(open_model, uri) == (
        f"{uri}: no finished model there (no model.json). "
        f"Train one: retrieval-cli train PHOTOS {uri}"
    )
    written = write_model(f"{uri}/", a_body(), a_head(), facts())
    assert is_model(uri)
    model = open_model(uri)
    assert model == written
    assert model.weights_uri == f"{uri}/weights.safetensors"
    assert states_equal(load_trusted(model).state_dict(), a_body().state_dict())
    spec = BackboneSpec(name=ONE_WEIGHT, weights=model.weights_uri)
    assert fingerprint(spec, build_backbone(spec), SMALL) == model.fingerprint
    write_model(uri, a_body(seed=8), a_head(), facts())
    assert refusal(load_trusted, model).startswith(
        f"{uri}: weights.safetensors is not what model.json describes: its "
    )
    assert open_model(uri).fingerprint != model.fingerprint


def test_a_relative_folder_is_kept_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model("model")
    assert open_model("model").uri == str(tmp_path / "model")


def test_a_fingerprint_is_that_of_the_preprocessing_too(tmp_path):
    one = make_model(tmp_path / "one")
    other = facts(preprocessing=Preprocessing(size=16))
    assert (
        write_model(str(tmp_path / "two"), a_body(), a_head(), other).fingerprint != one.fingerprint
    )
