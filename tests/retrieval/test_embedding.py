"""Embeddings of photos: known by hand, and the same bits whatever photos lie beside."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from retrieval.errors import MismatchError, ModelError, UsageError
from retrieval.images import Preprocessing
from retrieval.index import EmbeddingSpec
from retrieval.models.backbones import BackboneSpec, build_backbone, fingerprint
from retrieval.models.embedder import Embedder
from tests.retrieval.models import make_model

HERE = "tests.retrieval.test_embedding"
MEAN_COLOUR = BackboneSpec(name="tests.fakes:mean_colour", weights="none")
ONE_WEIGHT = BackboneSpec(name="tests.fakes:one_weight", weights="none")
RAW = Preprocessing(size=8, mean=(0, 0, 0), std=(1, 1, 1))  # pixels / 255 and no more


def photos(rng, count, size=8):
    """Noise around a colour of each photo's own."""
    colours = rng.integers(0, 256, (count, 1, 1, 3))
    noise = rng.integers(-40, 40, (count, size, size, 3))
    return (colours + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(params=range(3), ids="seed{}".format)
def rng(request):
    return np.random.default_rng(request.param)


class PlainMean(nn.Module):
    """The mean of each channel and no more: a black photo gives zeros."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


class Shapes(nn.Module):
    """Remembers what it was given."""

    seen: tuple[tuple[int, ...], ...] = ()

    def forward(self, images):
        Shapes.seen += (tuple(images.shape),)
        return images.mean(dim=(2, 3)) + 1


class Spoilt(nn.Module):
    """NaN for a photo whose red is brightest, infinity for green, else ones."""

    def forward(self, images):
        red, green, blue = images.mean(dim=(2, 3)).T
        features = images.new_ones(len(images), 2)
        features[(red > green) & (red > blue), 1] = float("nan")
        features[(green > red) & (green > blue), 1] = float("inf")
        return features


def test_embeddings_of_pure_colours_are_known_by_hand():
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    pixels[1, ..., 0] = 255  # red
    pixels[2, ..., 2] = 255  # blue
    pixels[3, :4] = 255  # half white
    found = Embedder(MEAN_COLOUR, RAW).embed(pixels)
    features = np.array([[3, 3, 3], [4, 3, 3], [3, 3, 4], [3.5, 3.5, 3.5]])
    lengths = np.array([27, 34, 34, 36.75])[:, None] ** 0.5
    assert found.tolist() == (features / lengths).astype(np.float16).tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "preprocessing",
    [Preprocessing(size=8), Preprocessing(size=8, mean=(0.1, 0.6, 0.3), std=(0.5, 0.25, 0.9))],
    ids=["imagenet", "other"],
)
def test_embeddings_are_the_normalised_features_of_normalised_pixels(rng, dtype, preprocessing):
    pixels = photos(rng, 9)
    found = Embedder(MEAN_COLOUR, preprocessing, batch_size=4, dtype=dtype).embed(pixels)
    assert found.dtype == dtype
    for photo, row in zip(pixels, found, strict=True):
        features = []
        for channel in range(3):
            values = photo[..., channel].astype(np.float64).ravel() / 255
            mean, std = preprocessing.mean[channel], preprocessing.std[channel]
            features.append(sum((value - mean) / std for value in values) / len(values) + 3)
        expected = np.array(features) / sum(value**2 for value in features) ** 0.5
        half_a_step = np.spacing(np.abs(expected).astype(dtype)).astype(np.float64) / 2
        assert (np.abs(row - expected) <= half_a_step + 1e-6).all()


def test_embeddings_have_length_1_within_the_rounding_of_their_type(rng):
    backbone = BackboneSpec(weights="none", seed=2)
    for dtype, precision in (("float16", 2.0**-11), ("float32", 2.0**-24)):
        embedder = Embedder(backbone, Preprocessing(size=32), dtype=dtype)
        rows = embedder.embed(photos(rng, 5, 32)).astype(np.float64)
        assert rows.shape == (5, 512)
        assert (np.abs((rows**2).sum(axis=1) ** 0.5 - 1) <= precision).all()


def test_a_photo_s_embedding_has_the_same_bits_alone_and_in_any_batch(rng):
    pixels = photos(rng, 10, 64)
    embedder = Embedder(
        BackboneSpec(weights="none"), Preprocessing(size=64), batch_size=4, dtype="float32"
    )
    whole = embedder.embed(pixels)
    assert len({row.tobytes() for row in whole}) == 10
    for n in range(10):
        assert embedder.embed(pixels[n : n + 1]).tobytes() == whole[n].tobytes()
    for start in (1, 2, 3, 7):
        assert embedder.embed(pixels[start:]).tobytes() == whole[start:].tobytes()
    order = rng.permutation(10)
    assert embedder.embed(pixels[order]).tobytes() == whole[order].tobytes()
    assert embedder.embed(pixels[::-1]).tobytes() == whole[::-1].tobytes()


def test_every_forward_pass_has_the_same_number_of_photos():
    embedder = Embedder(
        BackboneSpec(name=f"{HERE}:Shapes", weights="none"), Preprocessing(size=8), batch_size=4
    )
    Shapes.seen = ()
    assert embedder.embed(np.zeros((9, 8, 8, 3), np.uint8)).shape == (9, 3)
    assert embedder.embed(np.zeros((4, 8, 8, 3), np.uint8)).shape == (4, 3)
    assert embedder.embed(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)
    assert Shapes.seen == ((4, 3, 8, 8),) * 5


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_photos_give_no_embeddings(dtype):
    embedder = Embedder(ONE_WEIGHT, Preprocessing(size=16), dtype=dtype)
    found = embedder.embed(np.zeros((0, 16, 16, 3), np.uint8))
    assert (found.shape, found.dtype) == ((0, 5), dtype)


def test_a_photo_without_direction_gives_zeros_and_leaves_the_others_alone():
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    pixels[1, ..., 1] = 255
    embedder = Embedder(BackboneSpec(name=f"{HERE}:PlainMean", weights="none"), RAW)
    assert embedder.embed(pixels).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_pixels_are_neither_changed_nor_need_to_be_writable():
    pixels = photos(np.random.default_rng(0), 3)
    before = pixels.copy()
    pixels.flags.writeable = False
    Embedder(MEAN_COLOUR, Preprocessing(size=8), batch_size=3).embed(pixels)
    assert (pixels == before).all()


@pytest.mark.parametrize("channel", [0, 1])
def test_features_that_are_not_finite_are_refused(channel):
    name = f"{HERE}:Spoilt"
    embedder = Embedder(BackboneSpec(name=name, weights="none"), RAW, batch_size=2)
    pixels = np.zeros((5, 8, 8, 3), np.uint8)
    assert embedder.embed(pixels).shape == (5, 2)
    pixels[4, ..., channel] = 255
    with pytest.raises(ModelError) as caught:
        embedder.embed(pixels)
    assert str(caught.value) == (
        f"{name}: gives features that are not finite. The weights are damaged or diverged in "
        f"training; use others."
    )


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    state = build_backbone(ONE_WEIGHT).network.state_dict()
    state["conv.bias"][3] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    damaged = dataclasses.replace(ONE_WEIGHT, weights=str(tmp_path / "w.pth"))
    embedder = Embedder(damaged, Preprocessing(size=16))
    with pytest.raises(ModelError, match=r"^tests\.fakes:one_weight: gives features that are not"):
        embedder.embed(np.zeros((1, 16, 16, 3), np.uint8))


def test_the_spec_says_how_the_embeddings_were_made():
    preprocessing = Preprocessing(size=16)
    backbone = dataclasses.replace(ONE_WEIGHT, seed=3)
    embedder = Embedder(backbone, preprocessing, dtype="float32")
    assert embedder.spec == EmbeddingSpec(
        fingerprint=fingerprint(backbone, build_backbone(backbone), preprocessing),
        backbone="tests.fakes:one_weight",
        weights="none",
        dim=5,
        dtype="float32",
        normalised=True,
    )
    assert Embedder(ONE_WEIGHT, preprocessing).spec.dtype == "float16"


def test_a_worker_with_the_weights_that_the_job_began_with_is_taken():
    first = Embedder(MEAN_COLOUR, Preprocessing(size=8))
    again = Embedder(MEAN_COLOUR, Preprocessing(size=8), expect=first.spec.fingerprint)
    assert again.spec == first.spec


def test_a_worker_with_other_weights_is_refused():
    job = Embedder(ONE_WEIGHT, Preprocessing(size=16)).spec.fingerprint
    other = dataclasses.replace(ONE_WEIGHT, seed=1)
    found = fingerprint(other, build_backbone(other), Preprocessing(size=16))
    with pytest.raises(MismatchError) as caught:
        Embedder(other, Preprocessing(size=16), expect=job)
    assert str(caught.value) == (
        f"`backbone` tests.fakes:one_weight `weights` none: this worker has weights "
        f"{found[:12]}, the job began with {job[:12]}. Give every machine the same file, or put "
        f"it where all can read it."
    )


def test_a_model_embeds_as_its_network_with_its_weights_and_preprocessing(tmp_path):
    model = make_model(tmp_path)
    embedder = Embedder(model, model.preprocessing, dtype="float32", model_backbone=model.backbone)
    backbone = BackboneSpec(name=ONE_WEIGHT.name, weights=model.weights_uri)
    plain = Embedder(backbone, model.preprocessing, dtype="float32")
    assert embedder.spec == dataclasses.replace(plain.spec, weights=str(tmp_path))
    assert embedder.spec.fingerprint == model.fingerprint
    pixels = photos(np.random.default_rng(0), 3, model.preprocessing.size)
    assert embedder.embed(pixels).tobytes() == plain.embed(pixels).tobytes()
    assert len({row.tobytes() for row in plain.embed(pixels)}) == 3


def test_a_model_takes_pixels_of_its_own_preprocessing_alone(tmp_path):
    model = make_model(tmp_path)
    with pytest.raises(MismatchError) as caught:
        Embedder(model, dataclasses.replace(model.preprocessing, size=17))
    assert str(caught.value) == (
        f"{tmp_path}: was trained with Preprocessing(size=16, mean=(0.5, 0.25, 0.125), "
        f"std=(0.5, 1.0, 2.0), decoder=1), not with Preprocessing(size=17, "
        f"mean=(0.5, 0.25, 0.125), std=(0.5, 1.0, 2.0), decoder=1). Make the pixels "
        f"as the model wants them."
    )


def test_photos_that_are_too_small_for_a_network_are_refused():
    with pytest.raises(UsageError) as caught:
        Embedder(BackboneSpec(name="googlenet", weights="none"), Preprocessing(size=8))
    assert str(caught.value) == (
        "`backbone` googlenet: does not take photos of 8 × 8 pixels (Given input size: "
        "(480x1x1). Calculated output size: (480x0x0). Output size is too small). "
        "Choose another `image_size`."
    )


class SmallMemory(nn.Module):
    """As a GPU with memory for three photos; remembers what it was given."""

    seen: tuple[int, ...] = ()

    def forward(self, images):
        SmallMemory.seen += (len(images),)
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return images.mean(dim=(2, 3)) + 3


class NoMemory(nn.Module):
    """Takes the photo of the probe at the start, then none."""

    num_calls = 0

    def forward(self, images):
        self.num_calls += 1
        if self.num_calls > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return images.mean(dim=(2, 3))


def test_a_gpu_without_enough_memory_halves_the_batch_and_says_so(rng):
    pixels = photos(rng, 11)
    own = BackboneSpec(name=f"{HERE}:SmallMemory", weights="none")
    embedder = Embedder(own, Preprocessing(size=8), batch_size=16, dtype="float32")
    SmallMemory.seen = ()
    found = embedder.embed(pixels)
    assert SmallMemory.seen == (16, 8, 4, 2, 2, 2, 2, 2, 2)
    assert embedder.manner == "float32, batches of 2"
    embedder.embed(pixels[:2])
    assert SmallMemory.seen[-1:] == (2,)  # it does not try again what failed
    expected = Embedder(MEAN_COLOUR, Preprocessing(size=8), dtype="float32").embed(pixels)
    assert np.allclose(found, expected, atol=1e-6)


def test_a_gpu_without_memory_for_one_photo_is_a_clear_error():
    own = BackboneSpec(name=f"{HERE}:NoMemory", weights="none")
    embedder = Embedder(own, Preprocessing(size=8), batch_size=4)
    with pytest.raises(UsageError) as caught:
        embedder.embed(np.ones((1, 8, 8, 3), np.uint8))
    assert str(caught.value) == (
        f"{HERE}:NoMemory: the GPU's memory does not suffice for one photo of 8 × 8 pixels (CUDA "
        f"out of memory. Tried to allocate 2.00 GiB). Choose a smaller `image_size`, or fewer "
        f"`num_actors`."
    )


def test_threads_that_embed_at_a_time_get_what_they_would_get_alone(rng):
    pixels = photos(rng, 12, 64)
    embedder = Embedder(
        BackboneSpec(weights="none"), Preprocessing(size=64), batch_size=4, precision="float32"
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = [embedder.embed(pixels[start : start + 3]) for start in range(0, 12, 3)]
        with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            fresh = Embedder(
                BackboneSpec(weights="none"),
                Preprocessing(size=64),
                batch_size=4,
                precision="float32",
            )
            parts = [pixels[start : start + 3] for start in range(0, 12, 3)]
            together = list(threads.map(fresh.embed, parts))
    finally:
        torch.set_num_threads(before)
    assert [rows.tobytes() for rows in together] == [rows.tobytes() for rows in alone]
