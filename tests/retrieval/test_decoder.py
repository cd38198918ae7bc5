"""The decoder as a property of a model: a second one, and what it leaves as it was."""

import hashlib
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from retrieval.augmentations import load_recipe
from retrieval.augmentations.multiplying import Method, reduced_picture
from retrieval.errors import ModelError, UsageError
from retrieval.images import (
    LATER_KEYS,
    Preprocessing,
    check_decoder,
    decode_image,
    decoders,
    load_rgb,
    newest_decoder,
)
from retrieval.images import decode as images
from retrieval.index.schema import EmbeddingSpec
from retrieval.models.backbones import BackboneSpec, fingerprint
from retrieval.models.embedder import Embedder
from retrieval.models.folder import load_network, open_model, write_model
from retrieval.training.photos import training_pixels
from tests.retrieval.models import ONE_WEIGHT, SMALL, a_body, a_head, edit, facts, make_model
from tests.retrieval.photos import encode, plain

PHOTO = encode(plain("RGB", (10, 60, 200), (64, 48)), "PNG")


@pytest.fixture
def second_decoder(monkeypatch):
    """Decoder 2: it inverts the colours."""

    @contextmanager
    def load(data, min_size):
        with images._load(data, min_size) as (picture, *rest):
            yield ImageOps.invert(picture), *rest

    monkeypatch.setitem(images._LOADERS, 2, load)
    return 2


def test_there_is_one_decoder_and_it_is_known_by_its_number():
    assert decoders() == (1,)
    assert newest_decoder() == 1
    for version in (0, 2, -1, True, "1", 1.0, None):
        with pytest.raises(UsageError, match="unknown here; this release has 1"):
            check_decoder(version)
        with pytest.raises(UsageError, match="unknown here"):
            Preprocessing(decoder=version)


def test_a_decoder_counts_in_the_fingerprint_and_the_first_one_as_before(second_decoder):
    hashed = {"decoder_version": 2, "mean": [0.5, 0.25, 0.125], "size": 16, "std": [0.5, 1.0, 2.0]}
    second, first = (
        hashlib.sha256(json.dumps(hashed | {"decoder_version": number}).encode()).hexdigest()
        for number in (2, 1)
    )
    assert replace(SMALL, decoder=second_decoder).fingerprint() == second
    assert SMALL.fingerprint() == first


def test_a_later_key_is_written_where_version_1_could_not_say_it(second_decoder):
    assert SMALL.to_json().keys() == {"size", "mean", "std"}
    other = replace(SMALL, decoder=second_decoder)
    assert other.to_json() == SMALL.to_json() | {"decoder": 2}
    for preprocessing in (SMALL, other):
        assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


def test_what_version_1_meant_is_a_constant_and_not_the_default(monkeypatch):
    written, before = SMALL.to_json(), SMALL.fingerprint()
    monkeypatch.setattr(Preprocessing.__init__, "__kwdefaults__", {"decoder": 7})
    with pytest.raises(UsageError, match="decoder 7"):  # the default is really another one
        Preprocessing(size=1, mean=(0, 0, 0), std=(1, 1, 1))
    read = Preprocessing.from_json(written)
    assert (read.decoder, read.fingerprint()) == (1, before)
    assert LATER_KEYS == {"decoder": 1}


def test_each_decoder_gives_its_own_pixels(second_decoder):
    first = decode_image(PHOTO, Preprocessing(size=8)).pixels
    second = decode_image(PHOTO, Preprocessing(size=8, decoder=second_decoder)).pixels
    assert (first == (10, 60, 200)).all()
    np.testing.assert_array_equal(second, 255 - first)
    assert load_rgb(PHOTO)[0].getpixel((0, 0)) == (10, 60, 200)
    assert load_rgb(PHOTO, decoder=second_decoder)[0].getpixel((0, 0)) == (245, 195, 55)
    assert reduced_picture(PHOTO, 16, second_decoder)[0, 0].tolist() == [245, 195, 55]


def test_training_sees_the_pixels_of_its_own_decoder(second_decoder):
    for name in ("none", "light"):
        recipe = load_recipe(name)
        first, second = (
            training_pixels(
                PHOTO, Preprocessing(size=32, decoder=number), recipe, seed=0, draw=("a.png", 0)
            )
            for number in (1, second_decoder)
        )
        assert first[..., 2].mean() > 128 > second[..., 2].mean()


def test_augmentation_records_its_decoder_and_multiplies_by_it(second_decoder):
    method = Method(load_recipe("none"), 0, 64, 90)
    assert method.to_json()["decoder_version"] == 1
    assert replace(method, decoder=second_decoder).to_json()["decoder_version"] == 2


def test_a_model_keeps_its_decoder_when_there_is_a_newer_one(tmp_path, monkeypatch, request):
    model = make_model(tmp_path / "first")
    written = (tmp_path / "first" / "model.json").read_bytes()
    assert json.loads(written)["format_version"] == 1
    request.getfixturevalue("second_decoder")
    assert newest_decoder() == 2
    again = open_model(str(tmp_path / "first"))
    assert again == model
    load_network(again, ONE_WEIGHT)
    assert make_model(tmp_path / "again").fingerprint == model.fingerprint
    assert (tmp_path / "again" / "model.json").read_bytes() == written


def test_a_model_of_a_later_decoder_says_so_in_the_next_form(tmp_path, second_decoder):
    later = replace(SMALL, decoder=second_decoder)
    written = write_model(str(tmp_path), a_body(), a_head(), facts(preprocessing=later))
    assert json.loads((tmp_path / "model.json").read_bytes())["format_version"] == 2
    model = open_model(str(tmp_path))
    assert (model, model.preprocessing) == (written, later)
    load_network(model, ONE_WEIGHT)
    assert model.fingerprint != make_model(tmp_path / "first").fingerprint


def test_a_model_of_a_decoder_of_a_newer_release_is_refused_in_one_line(tmp_path):
    make_model(tmp_path)
    edit(tmp_path, format_version=2, preprocessing=SMALL.to_json() | {"decoder": 9})
    with pytest.raises(ModelError, match="decoder 9: unknown here; this release has 1") as caught:
        open_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_by_another_decoder_a_folder_is_checked_by_its_own_and_embeds_by_the_other(
    tmp_path, second_decoder
):
    model = make_model(tmp_path)
    other = replace(model.preprocessing, decoder=second_decoder)
    embedder = Embedder(model, other, model_backbone=ONE_WEIGHT)
    network = load_network(model, ONE_WEIGHT)
    assert embedder.spec.fingerprint == fingerprint(BackboneSpec(name=ONE_WEIGHT), network, other)
    assert embedder.spec.fingerprint != model.fingerprint
    assert (
        Embedder(model, model.preprocessing, model_backbone=ONE_WEIGHT).spec.fingerprint
        == model.fingerprint
    )
    edit(tmp_path, fingerprint="0" * 64)
    with pytest.raises(ModelError, match="its fingerprint is"):
        Embedder(open_model(str(tmp_path)), other, model_backbone=ONE_WEIGHT)


def test_what_an_index_says_of_its_embeddings_has_these_names_for_good():
    spec = EmbeddingSpec(fingerprint="f", backbone="b", weights="w", dim=2)
    assert spec.to_metadata() == {
        "fingerprint": "f",
        "backbone": "b",
        "weights": "w",
        "dim": "2",
        "dtype": "float16",
        "normalised": "True",
    }


def test_every_decoder_reads_through_the_same_checks(second_decoder):
    for version in decoders():
        with pytest.raises(images.ImageError) as caught:
            decode_image(b"", Preprocessing(decoder=version))
        assert caught.value.reason == "empty"
    assert isinstance(load_rgb(PHOTO, decoder=second_decoder)[0], Image.Image)
