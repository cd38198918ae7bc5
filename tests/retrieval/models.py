"""Small models, as training would write them."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from retrieval.errors import ModelError
from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec, build_backbone
from retrieval.models.folder import ModelFacts, load_network, write_model

ONE_WEIGHT = "tests.fakes:one_weight"
SMALL = Preprocessing(size=16, mean=(0.5, 0.25, 0.125), std=(0.5, 1.0, 2.0))


def a_body(name=ONE_WEIGHT, seed=7):
    return build_backbone(BackboneSpec(name=name, weights="none", seed=seed))


def a_head(dim=5, num_classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(70)
        return nn.Linear(dim, num_classes)


def facts(**changes):
    values = {
        "backbone": ONE_WEIGHT,
        "mode": "full",
        "classes": ("abbey", "bridge", "castle"),
        "preprocessing": SMALL,
        "training": {"epochs": 3},
        "metrics": {"top_1": 0.5, "map": None},
    }
    return ModelFacts(**(values | changes))


def make_model(folder, seed=7):
    """A model folder of tests.fakes:one_weight."""
    return write_model(str(folder), a_body(seed=seed), a_head(), facts())


def refusal(act, *arguments, kind=ModelError):
    with pytest.raises(kind) as caught:
        act(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(folder, **changes):
    """Change model.json, as somebody with an editor would; None takes a name out."""
    file = folder / "model.json"
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def load_trusted(model):
    """The network of a folder whose function one trusts, whatever it is."""
    return load_network(model, model.backbone)
