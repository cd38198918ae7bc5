"""A training is of the same settings if what they name is the same, not only its name."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from pipelines.train import TrainConfig
from pipelines.train.contents import CONTENTS, content_hashes, with_contents
from pipelines.train.publishing import _compare
from retrieval.errors import UsageError

RECIPE = "apply: chain\ntechniques:\n  - technique: flip_horizontal\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A config that names a file or code wherever one can be named."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "labels.csv").write_text("image_id,label\n1.jpg,a\n")
    torch.save({"w": torch.zeros(3)}, tmp_path / "weights.pth")
    (tmp_path / "ownnet.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Conv2d(3, 4, 3, stride=2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return TrainConfig(
        backbone="ownnet:build", recipe="recipe.yaml", labels="labels.csv", weights="weights.pth"
    )


def settings_of(config):
    return with_contents({"photos": "/p", **config.recorded()}, config)


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


EDITS = {
    "recipe": lambda here: edit(here / "recipe.yaml", "horizontal", "vertical"),
    "labels": lambda here: edit(here / "labels.csv", ",a", ",b"),
    "weights": lambda here: torch.save({"w": torch.ones(3)}, here / "weights.pth"),
    "backbone": lambda here: edit(here / "ownnet.py", "stride=2", "stride=1"),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("what", ["a finished model", "an unfinished training"])
def test_an_edited_file_is_another_setting(files, tmp_path, monkeypatch, name, what):
    before = settings_of(files)
    _compare("model", what, before, settings_of(files))
    EDITS[name](tmp_path)
    monkeypatch.delitem(sys.modules, "ownnet")
    with pytest.raises(UsageError) as caught:
        _compare("model", what, before, settings_of(files))
    assert str(caught.value) == (
        f"model: holds {what} with other settings ({name} {getattr(files, name)!r}, whose content "
        f"was another one). Use the same settings, or another folder."
    )


def test_the_name_of_a_file_and_how_it_is_written_do_not_count(files, tmp_path):
    before = settings_of(files)
    (tmp_path / "recipe.yaml").write_text("# mine\n" + RECIPE)
    (tmp_path / "labels.csv").rename(tmp_path / "moved.csv")
    now = settings_of(replace(files, labels="moved.csv", recipe="./recipe.yaml"))
    _compare("model", "a finished model", before, now)


def test_a_built_in_recipe_in_the_place_of_a_file_is_another(files):
    before = settings_of(files)
    with pytest.raises(UsageError, match=r"recipe 'recipe\.yaml', now 'light'"):
        _compare("model", "x", before, settings_of(replace(files, recipe="light")))


def test_what_an_earlier_release_has_begun_is_compared_by_names(files, tmp_path):
    now = settings_of(files)
    before = {name: value for name, value in now.items() if name != CONTENTS}
    _compare("model", "a finished model", before, now)
    with pytest.raises(UsageError, match=r"labels 'labels\.csv', now 'other\.csv'"):
        _compare("model", "x", before, settings_of(replace(files, labels="other.csv")))


def test_settings_that_name_no_content_are_as_they_were():
    config = TrainConfig(weights="none", recipe="paper", labels="pattern:(a)")
    assert settings_of(config) == {"photos": "/p", **config.recorded()}


def test_a_file_that_is_gone_is_no_other_one(files, tmp_path):
    before = settings_of(files)
    for name in ("recipe.yaml", "labels.csv", "weights.pth"):
        (tmp_path / name).unlink()
    _compare("model", "a finished model", before, settings_of(files))


def test_a_function_that_draws_by_itself_is_known_by_its_layers(files, tmp_path, monkeypatch):
    (tmp_path / "drawnnet.py").write_text(
        "import torch, random\ndef build():\n    net = torch.nn.Linear(2, 2)\n"
        "    net.f = lambda x: x\n    torch.nn.init.constant_(net.weight, random.random())\n"
        "    return net\n"
    )
    config = TrainConfig(backbone="drawnnet:build")
    first = content_hashes(config)
    assert first.keys() == {"backbone"}
    monkeypatch.delitem(sys.modules, "drawnnet")
    assert content_hashes(config) == first


def test_where_an_object_lies_in_memory_does_not_count(files, tmp_path):
    (tmp_path / "shownnet.py").write_text(
        "import torch\nKEPT = []\nclass Net(torch.nn.Linear):\n"
        "    def extra_repr(self):\n        return str(self.f)\n"
        "def build():\n    net = Net(2, 2)\n    net.f = lambda x: x\n    KEPT.append(net)\n"
        "    return net\n"
    )
    config = TrainConfig(backbone="shownnet:build")
    first = content_hashes(config)
    shown = {str(net) for net in sys.modules["shownnet"].KEPT}
    assert len(shown) == len(sys.modules["shownnet"].KEPT) > 1
    assert content_hashes(config) == first
