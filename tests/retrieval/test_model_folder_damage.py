"""A damaged model folder is refused in one line that names the damage."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from retrieval.models.backbones import BackboneSpec, build_backbone, fingerprint
from retrieval.models.folder import open_model
from tests.retrieval.models import (
    ONE_WEIGHT,
    SMALL,
    a_body,
    edit,
    load_trusted,
    make_model,
    refusal,
)

HERE = "tests.retrieval.test_model_folder_damage"
ANEW = "Copy the folder anew as a whole, or train again: retrieval-cli train PHOTOS MODEL"
NAMES = (
    "backbone, classes, dim, fingerprint, metrics, mode, pooling, preprocessing, training, "
    "weights_sha256"
)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is no JSON in UTF-8 (Expecting value: line 1 column 1 (char 0))"),
        (b'{"dim": 5', "is no JSON in UTF-8 (Expecting ',' delimiter: line 1 column 10 (char 9))"),
        (
            b'{"mode": "\xff"}',
            "is no JSON in UTF-8 ('utf-8' codec can't decode byte 0xff in position 10: invalid "
            "start byte)",
        ),
        (
            '{"format_version": 1}'.encode("utf-16"),
            "is no JSON in UTF-8 ('utf-8' codec can't decode byte 0xff in position 0: invalid "
            "start byte)",
        ),
        (b"[1]", "holds a list; an object is needed"),
        (b'{"format_version": 1}', f"lacks {NAMES}"),
    ],
)
def test_a_model_json_of_other_content_is_refused(tmp_path, content, complaint):
    make_model(tmp_path)
    (tmp_path / "model.json").write_bytes(content)
    assert refusal(open_model, str(tmp_path)) == f"{tmp_path}/model.json: {complaint}. {ANEW}"


def test_a_model_json_of_endless_depth_is_refused(tmp_path):
    (tmp_path / "model.json").write_text("[" * 100_000)
    message = refusal(open_model, str(tmp_path))
    assert message.startswith(f"{tmp_path}/model.json: is no JSON in UTF-8 (nested too deep")
    assert message.endswith(ANEW)


@pytest.mark.parametrize("version", [True, "1", 1.0, 0, [1]])
def test_a_version_of_the_format_that_is_no_number_is_refused(tmp_path, version):
    make_model(tmp_path)
    edit(tmp_path, format_version=version)
    assert refusal(open_model, str(tmp_path)).startswith(
        f"{tmp_path}/model.json: format_version {version!r}; a whole number from 1 on is needed."
    )


def test_a_model_of_a_newer_release_is_refused(tmp_path):
    make_model(tmp_path)
    edit(tmp_path, format_version=3, pooling="of the future")
    assert refusal(open_model, str(tmp_path)) == (
        f"{tmp_path}/model.json: written by a newer release: format_version 3; this program reads "
        f"1 to 2. Upgrade retrieval-cli."
    )


def test_a_model_json_without_its_version_is_refused(tmp_path):
    make_model(tmp_path)
    edit(tmp_path, format_version=None)
    complaint = "lacks format_version"
    assert refusal(open_model, str(tmp_path)) == f"{tmp_path}/model.json: {complaint}. {ANEW}"


HEX = "64 hexadecimal digits is needed"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dim": None}, "lacks dim"),
        ({"dim": None, "classes": None}, "lacks classes, dim"),
        ({"note": "mine"}, "has unknown note"),
        ({"backbone": 18}, "backbone is 18; a network's name is needed"),
        ({"backbone": ""}, "backbone is ''; a network's name is needed"),
        ({"mode": "half"}, "mode is 'half'; one of full, last-layer, from-scratch is needed"),
        ({"mode": ["full"]}, "mode is ['full']; one of full, last-layer, from-scratch is needed"),
        ({"pooling": "max"}, "pooling is 'max'; 'average' is needed"),
        ({"dim": 0}, "dim is 0; a whole number >= 1 is needed"),
        ({"dim": 5.0}, "dim is 5.0; a whole number >= 1 is needed"),
        ({"dim": True}, "dim is True; a whole number >= 1 is needed"),
        ({"classes": []}, "classes is []; a list of different labels is needed"),
        ({"classes": ["a", 1]}, "classes is ['a', 1]; a list of different labels is needed"),
        ({"classes": ["a", "a"]}, "classes is ['a', 'a']; a list of different labels is needed"),
        ({"classes": "abc"}, "classes is 'abc'; a list of different labels is needed"),
        ({"fingerprint": "f" * 63}, f"fingerprint is '{'f' * 12}...{'f' * 13}'; {HEX}"),
        ({"fingerprint": "F" * 64}, f"fingerprint is '{'F' * 12}...{'F' * 13}'; {HEX}"),
        ({"weights_sha256": 7}, f"weights_sha256 is 7; {HEX}"),
        ({"weights_sha256": "0" * 65}, f"weights_sha256 is '{'0' * 12}...{'0' * 13}'; {HEX}"),
        ({"training": []}, "training is []; an object is needed"),
        ({"metrics": "good"}, "metrics is 'good'; an object is needed"),
        ({"preprocessing": [1]}, "preprocessing is [1]; an object is needed"),
        (
            {"preprocessing": {"size": 16}},
            "Preprocessing of the model: keys ['size'], needed are ['mean', 'size', 'std']",
        ),
        (
            {"preprocessing": SMALL.to_json() | {"size": 0}},
            "Preprocessing of the model: Preprocessing(size=0, mean=(0.5, 0.25, 0.125), "
            "std=(0.5, 1.0, 2.0), decoder=1): needed are a whole size >= 1, 3 finite "
            "means, 3 stds > 0",
        ),
        (
            {"preprocessing": SMALL.to_json() | {"decoder": 1}},
            "preprocessing has decoder, unknown in version 1",
        ),
        (
            {"preprocessing": SMALL.to_json() | {"mean": [10**400, 0, 0]}},
            f"is no JSON in UTF-8 (1{'0' * 39} is beyond 64 bits)",
        ),
    ],
)  # fmt: skip
def test_a_model_json_with_a_wrong_value_is_refused(tmp_path, changes, complaint):
    make_model(tmp_path)
    edit(tmp_path, **changes)
    assert refusal(open_model, str(tmp_path)) == f"{tmp_path}/model.json: {complaint}. {ANEW}"


def test_weights_that_are_gone_are_refused(tmp_path):
    model = make_model(tmp_path)
    Path(model.weights_uri).unlink()
    assert refusal(load_trusted, model) == (
        f"{model.weights_uri}: cannot be read (No such file or directory). "
        f"Put the whole model folder where every machine can read it."
    )


def weights_refusal(model):
    begin = f"{model.uri}: weights.safetensors is not what model.json describes: "
    message = refusal(load_trusted, model)
    assert message.startswith(begin)
    assert message.endswith(f". {ANEW}")
    return message.removeprefix(begin).removesuffix(f". {ANEW}")


def swap(file, tmp_path):
    file.write_bytes(Path(make_model(tmp_path / "other", seed=8).weights_uri).read_bytes())


def cut(file, tmp_path):
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit_of_the_head(file, tmp_path):
    state = safetensors.torch.load_file(str(file))
    state["fc.bias"].view(torch.int32)[0] ^= 1  # which embedding would never notice
    file.write_bytes(safetensors.torch.save(state))


@pytest.mark.parametrize("damage", [swap, cut, flip_a_bit_of_the_head])
def test_other_weights_are_refused(tmp_path, damage):
    model = make_model(tmp_path / "model")
    damage(Path(model.weights_uri), tmp_path)
    data = Path(model.weights_uri).read_bytes()
    assert weights_refusal(model) == (
        f"its {len(data)} bytes have the sha256 {hashlib.sha256(data).hexdigest()[:12]}, not "
        f"{model.weights_sha256[:12]}"
    )


def write_weights(folder, data):
    """Weights with a model.json that fits their hash."""
    (folder / "weights.safetensors").write_bytes(data)
    edit(folder, weights_sha256=hashlib.sha256(data).hexdigest())
    return open_model(str(folder))


def test_weights_are_never_unpickled(tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    make_model(tmp_path)
    pickled = pickle.dumps({"fc.weight": Code()})
    assert weights_refusal(write_weights(tmp_path, pickled)) == (
        "it holds no safetensors (SafetensorError)"
    )
    assert not (tmp_path / "ran").exists()
    torch.save(a_body().network.state_dict(), tmp_path / "good.pth")
    good = (tmp_path / "good.pth").read_bytes()
    assert weights_refusal(write_weights(tmp_path, good)) == (
        "it holds no safetensors (SafetensorError)"
    )


def test_weights_with_one_value_changed_and_their_hash_with_it_are_refused(tmp_path):
    before = make_model(tmp_path)
    state = safetensors.torch.load_file(before.weights_uri)
    state["conv.bias"][0] += 1
    model = write_weights(tmp_path, safetensors.torch.save(state))
    spec = BackboneSpec(name=ONE_WEIGHT, weights=model.weights_uri)
    found = fingerprint(spec, build_backbone(spec), SMALL)
    assert weights_refusal(model) == (
        f"with that network and preprocessing its fingerprint is {found[:12]}, not "
        f"{before.fingerprint[:12]}"
    )


@pytest.mark.parametrize(
    "changes",
    [{"preprocessing": SMALL.to_json() | {"size": 17}}, {"fingerprint": "0" * 64}],
    ids=["preprocessing", "fingerprint"],
)
def test_an_edited_model_json_is_refused(tmp_path, changes):
    make_model(tmp_path)
    edit(tmp_path, **changes)
    message = weights_refusal(open_model(str(tmp_path)))
    assert message.startswith("with that network and preprocessing its fingerprint is ")


def test_an_edited_description_of_the_head_is_refused(tmp_path):
    make_model(tmp_path)
    edit(tmp_path, classes=["a", "b", "c", "d"], dim=6)
    assert weights_refusal(open_model(str(tmp_path))) == (
        "its head is (3, 5), but classes and dim are (4, 6)"
    )


def test_a_head_that_is_not_there_is_missed(tmp_path):
    make_model(tmp_path)
    bare = safetensors.torch.save(a_body().network.state_dict())
    assert weights_refusal(write_weights(tmp_path, bare)) == (
        "its head is (), but classes and dim are (3, 5)"
    )


class OneWeightMore(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 8, stride=8)
        self.more = nn.Conv2d(5, 5, 1)


@pytest.mark.parametrize(
    ("backbone", "complaint"),
    [
        (f"{HERE}:OneWeightMore", "lacks more.weight, more.bias"),
        ("resnet18", "lacks conv1.weight, bn1.weight, bn1.bias and 97 more"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, backbone, complaint):
    make_model(tmp_path)
    edit(tmp_path, backbone=backbone)
    assert weights_refusal(open_model(str(tmp_path))) == f"as {backbone} it {complaint}"


@pytest.mark.parametrize("backbone", ["resnet19", "tests.nowhere:network"])
def test_a_network_that_cannot_be_built_here_is_said_to_be_the_model_s(tmp_path, backbone):
    make_model(tmp_path)
    edit(tmp_path, backbone=backbone)
    assert refusal(load_trusted, open_model(str(tmp_path))).startswith(
        f"{tmp_path}: its network cannot be built here. `backbone` {backbone}: "
    )
