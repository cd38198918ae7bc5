"""Networks of one's own: whose word has their code run, and what they say of their input."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from retrieval.errors import UsageError
from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec
from retrieval.models.embedder import Embedder
from retrieval.models.folder import load_network, open_model
from retrieval.models.own_networks import describe_preprocessing
from tests.retrieval.models import ONE_WEIGHT, edit, make_model, refusal

MEAN_COLOUR = "tests.fakes:mean_colour"
HERE = "tests.retrieval.test_own_networks"
PLAIN = {"size": 8, "mean": (0, 0, 0), "std": (1, 1, 1)}


class Means(nn.Module):
    """(B, 3, S, S) → what it was given, averaged over a photo; states how it wants it."""

    def __init__(self, preprocessing=None):
        super().__init__()
        if preprocessing is not None:
            self.preprocessing = preprocessing

    def forward(self, images):
        return images.mean(dim=(2, 3))


def silent():
    return Means()


def stating():
    return Means(dict(PLAIN))


def stating_its_size():
    return Means({"size": np.int64(8)})


class AsSteps(Means):
    """Preprocesses by a module of its own."""

    def __init__(self):
        super().__init__()
        self.preprocessing = nn.Identity()


def embedder_of(name, **given):
    return Embedder(BackboneSpec(name=f"{HERE}:{name}"), given, dtype="float32")


def test_what_a_network_states_makes_its_input():
    embedder = embedder_of("stating")
    assert embedder.preprocessing == Preprocessing(**PLAIN)
    pixels = np.random.default_rng(0).integers(1, 256, (2, 8, 8, 3), np.uint8)
    means = (pixels / 255).mean(axis=(1, 2))  # by hand: bytes on the scale [0, 1], nothing else
    found = embedder.embed(pixels)
    np.testing.assert_allclose(
        found, means / np.linalg.norm(means, axis=1, keepdims=True), rtol=1e-6
    )
    other = embedder_of("silent", size=8).embed(pixels)
    assert abs(found - other).max() > 0.1


def test_it_is_in_the_fingerprint_whoever_says_it():
    stated = embedder_of("stating").spec.fingerprint
    # The name is in the fingerprint as well, so that the same network is asked.
    assert embedder_of("stating", **PLAIN).spec.fingerprint == stated
    usual = {"size": 8, "mean": Preprocessing.mean, "std": Preprocessing.std}
    assert embedder_of("stating", **usual).spec.fingerprint != stated
    prints = {
        embedder_of("stating", mean=(0, 0, 0.5)).spec.fingerprint,
        embedder_of("stating", std=(1, 1, 2)).spec.fingerprint,
        embedder_of("stating", size=9).spec.fingerprint,
    }
    assert len(prints | {stated}) == 4


def test_fingerprints_of_before_are_the_same():
    # Of a network without weights, so that it hangs on no version of torch.
    own = Embedder(BackboneSpec(name=MEAN_COLOUR, weights="none"), Preprocessing(size=16))
    assert own.spec.fingerprint[:12] == "8c1a47d71724"
    assert Embedder(BackboneSpec(name=MEAN_COLOUR), {"size": 16}).spec == own.spec


def test_the_caller_wins_value_by_value():
    given = {"size": None, "mean": (0.5, 0.5, 0.5), "std": None}
    found = embedder_of("stating", **given).preprocessing
    assert found == Preprocessing(size=8, mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    assert describe_preprocessing(found, given)["from"] == {
        "size": "network", "mean": "option", "std": "network", "decoder": "default",
    }  # fmt: skip
    assert embedder_of("stating_its_size").preprocessing == Preprocessing(size=8)
    assert embedder_of("silent").preprocessing == Preprocessing()
    assert Embedder(BackboneSpec(name=f"{HERE}:stating")).preprocessing.size == 8


def test_one_that_is_called_is_something_else():
    assert embedder_of("AsSteps").preprocessing == Preprocessing()


@pytest.mark.parametrize(
    ("stated", "complaint"),
    [
        ({"size": 8, "resize": "crop"}, "states has the unknown resize. A dict with any of size"),
        ({1: 2}, "states has the unknown 1. "),
        ({"size": "8"}, "states the preprocessing {'size': '8'}. A dict"),
        ({"size": True}, "states the preprocessing {'size': True}. "),
        ({"size": 0}, "states the preprocessing {'size': 0}. "),
        ({"mean": (0, 0)}, "states the preprocessing {'mean': (0, 0)}. "),
        ({"mean": "000"}, "states the preprocessing {'mean': '000'}. "),
        ({"mean": 0.5}, "states the preprocessing {'mean': 0.5}. "),
        ({"std": (1, 1, 0)}, "states the preprocessing {'std': (1, 1, 0)}. "),
        ({"std": (1, 1, float("nan"))}, "states the preprocessing {'std': (1, 1, nan)}. "),
        ({"std": [None] * 3}, "states the preprocessing {'std': [None, None, None]}. "),
        ([0.5], "the attribute preprocessing of its network is a list. A dict"),
        ("clip", "the attribute preprocessing of its network is a str. A dict"),
    ],
)
def test_what_no_network_can_mean_is_one_line(monkeypatch, stated, complaint):
    monkeypatch.setitem(globals(), "odd", lambda: Means(stated))
    message = refusal(embedder_of, "odd", kind=UsageError)
    assert message.startswith(f"`backbone` {HERE}:odd: ")
    assert complaint in message


def test_tensors_and_arrays_are_numbers_too(monkeypatch):
    stated = {"mean": torch.zeros(3), "std": np.ones(3, np.float32)}
    monkeypatch.setitem(globals(), "odd", lambda: Means(stated))
    assert embedder_of("odd").preprocessing == Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))


def test_a_function_needs_no_weights_and_torchvision_has_its_own():
    assert BackboneSpec(name=ONE_WEIGHT).weights == "none"
    assert BackboneSpec(name="resnet50").weights == BackboneSpec().weights == "imagenet"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that tells when it is imported, and a folder of a model that names it."""
    (tmp_path / "trap.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').write('')\n"
        "from tests.fakes import one_weight as network\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    make_model(tmp_path / "model")
    edit(tmp_path / "model", backbone="trap:network")
    yield tmp_path
    sys.modules.pop("trap", None)


def test_a_folder_alone_has_no_code_run(trap):
    model = open_model(str(trap / "model"))
    for act in (
        lambda: load_network(model),
        lambda: Embedder(model),
        lambda: Embedder(model, model.preprocessing),
    ):
        assert refusal(act, kind=UsageError) == (
            f"{trap}/model: its network is the function trap:network, and no code is run because "
            f"a file says so. If you trust that function, name it too: `backbone` trap:network"
        )
    for named in ("trap:other", "resnet18", "trap:network ", ""):
        message = refusal(load_network, model, named, kind=UsageError)
        assert message.startswith(f"`backbone` {named}: {trap}/model is a model of trap:network, ")
    assert not (trap / "ran").exists()


def test_a_folder_s_function_runs_if_the_caller_names_it(tmp_path):
    model = make_model(tmp_path)
    assert load_network(model, ONE_WEIGHT) is not None
    assert Embedder(model, model_backbone=ONE_WEIGHT).preprocessing == model.preprocessing


def test_a_folder_of_torchvision_s_network_may_be_named_too(tmp_path):
    make_model(tmp_path)
    edit(tmp_path, backbone="resnet18")
    message = refusal(load_network, open_model(str(tmp_path)), "resnet50", kind=UsageError)
    assert message.startswith(f"`backbone` resnet50: {tmp_path} is a model of resnet18, ")
    for named in (None, "resnet18"):  # goes on to the weights, which are another network's
        assert "weights.safetensors is not" in refusal(
            load_network, open_model(str(tmp_path)), named
        )
