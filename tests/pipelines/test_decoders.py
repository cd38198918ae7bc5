"""Which decoder a training and an augmentation take: their own once begun, else the newest."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from pipelines.augment.config import AugmentConfig
from pipelines.augment.output import check_places, make_method
from pipelines.train.config import TrainConfig
from pipelines.train.network import preprocessing_of
from pipelines.train.publishing import finished_model, resume_split, with_decoder
from retrieval.errors import StorageError, UsageError
from retrieval.images import decode as images
from tests.retrieval.models import make_model


@pytest.fixture
def second_decoder(monkeypatch):
    monkeypatch.setitem(images._LOADERS, 2, images._load)


def begin_training(folder, **settings):
    (folder / "training").mkdir(parents=True)
    (folder / "training" / "settings.json").write_text(json.dumps(settings))


def begin_augmenting(folder, decoder):
    (folder / ".augmented").mkdir(parents=True)
    settings = {"recipe": "paper", "method": {"decoder_version": decoder}}
    (folder / ".augmented" / "settings.json").write_text(json.dumps(settings))


@pytest.mark.usefixtures("second_decoder")
def test_a_new_training_takes_the_newest_decoder(tmp_path):
    assert with_decoder(TrainConfig(), str(tmp_path)).decoder == 2
    assert preprocessing_of(with_decoder(TrainConfig(decoder=1), str(tmp_path))).decoder == 1


@pytest.mark.usefixtures("second_decoder")
def test_a_training_that_was_begun_goes_on_with_its_own(tmp_path):
    begin_training(tmp_path / "old")  # as before there was a choice
    assert with_decoder(TrainConfig(), str(tmp_path / "old")).decoder == 1
    begin_training(tmp_path / "first", decoder=1)
    assert with_decoder(TrainConfig(), str(tmp_path / "first")).decoder == 1
    begin_training(tmp_path / "second", decoder=2)
    assert with_decoder(TrainConfig(), str(tmp_path / "second")).decoder == 2


@pytest.mark.usefixtures("second_decoder")
def test_a_finished_model_is_still_trained_after_an_upgrade(tmp_path):
    make_model(tmp_path)
    config = with_decoder(TrainConfig(), str(tmp_path))
    assert config.decoder == 1
    made_before = {name: value for name, value in asdict(config).items() if name != "decoder"}
    file = tmp_path / "model.json"
    written = json.loads(file.read_text()) | {"training": {"settings": made_before}}
    file.write_text(json.dumps(written))
    assert finished_model(str(tmp_path), asdict(config)) is not None
    with pytest.raises(UsageError, match="decoder 1, now 2"):
        finished_model(str(tmp_path), asdict(with_decoder(TrainConfig(decoder=2), str(tmp_path))))


@pytest.mark.usefixtures("second_decoder")
def test_an_unfinished_training_is_not_gone_on_with_by_another_decoder(tmp_path):
    begin_training(tmp_path, seed=0)
    with pytest.raises(UsageError, match="decoder 1, now 2"):
        resume_split(str(tmp_path), {"seed": 0, "decoder": 2})


def test_a_training_by_a_decoder_of_a_newer_release_is_refused(tmp_path):
    begin_training(tmp_path, decoder=3)
    with pytest.raises(UsageError, match="decoder 3: unknown here; this release has 1"):
        with_decoder(TrainConfig(), str(tmp_path))


@pytest.mark.usefixtures("second_decoder")
def test_an_augmented_folder_goes_on_with_its_own_decoder(tmp_path):
    assert make_method(AugmentConfig(), str(tmp_path)).decoder == 2
    begin_augmenting(tmp_path / "old", 1)
    assert make_method(AugmentConfig(), str(tmp_path / "old")).decoder == 1
    assert make_method(AugmentConfig(decoder=2), str(tmp_path / "old")).decoder == 2


def test_an_augmented_folder_of_a_newer_release_is_refused(tmp_path):
    begin_augmenting(tmp_path, 4)
    with pytest.raises(UsageError, match="decoder 4: unknown here"):
        make_method(AugmentConfig(), str(tmp_path))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"method": {"decoder_version": "x"}}'])
def test_settings_of_somebody_else_say_no_decoder_and_are_refused(tmp_path, content):
    (tmp_path / ".augmented").mkdir()
    (tmp_path / ".augmented" / "settings.json").write_text(content)
    assert make_method(AugmentConfig(), str(tmp_path)).decoder == 1
    with pytest.raises(StorageError, match="holds files that augment has not written") as caught:
        check_places("/nowhere", str(tmp_path))
    assert "\n" not in str(caught.value)
