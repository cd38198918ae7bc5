"""A model that is called with images gives what an index of the same images holds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import ImageError, ModelError, UsageError
from retrieval.images import Preprocessing, decode_image
from retrieval.models.backbones import BackboneSpec
from retrieval.models.embedder import Embedder
from retrieval.models.model import load_model
from tests.retrieval.models import ONE_WEIGHT, make_model

MEAN = "tests.fakes:mean_colour"


def photo(seed=0, size=(40, 30), mode="RGB", kind="PNG", **options):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).convert(mode)
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.fixture(scope="module")
def model():
    return load_model(MEAN, image_size=32)


def test_a_hand_worked_colour():
    """The mean of each channel, plus 3, of length 1, of a red image on the scale [0, 1]."""
    red = np.zeros((5, 7, 3), np.uint8)
    red[..., 0] = 255
    found = load_model(MEAN, image_size=8, mean=(0, 0, 0), std=(1, 1, 1), dtype="float32")
    row = np.array([4, 3, 3]) / np.sqrt(16 + 9 + 9)
    np.testing.assert_allclose(found.encode(red), [row], rtol=1e-6)


def test_bytes_paths_images_and_arrays_are_alike(model, tmp_path):
    data = photo()
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    image = Image.open(io.BytesIO(data))
    given = [data, str(path), path, image, np.asarray(image)]
    found = model.encode(given)
    assert found.shape == (5, 3)
    assert found.dtype == np.float16
    assert (found == found[0]).all()
    assert image.size == (40, 30)  # is as it was


def test_it_is_what_an_index_holds(model):
    data = [photo(seed, kind="JPEG", size=(640, 480)) for seed in range(5)]
    preprocessing = Preprocessing(size=32)
    embedder = Embedder(BackboneSpec(name=MEAN), preprocessing)
    pixels = np.stack([decode_image(each, preprocessing).pixels for each in data])
    expected = embedder.embed(pixels)
    assert model.encode(data).tobytes() == expected.tobytes()
    assert model.encode(data, batch_size=2).tobytes() == expected.tobytes()
    assert model.spec == embedder.spec


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_in_memory_follows_the_rules_of_files(model, mode, orientation):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    exif = Image.Exif()
    exif[0x0112] = orientation
    if mode == "I;16":
        image = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", exif=exif)
        data = buffer.getvalue()
    else:
        data = photo(mode=mode, kind=kind, exif=exif)
    from_bytes, from_image = model.encode([data, Image.open(io.BytesIO(data))])
    assert from_bytes.tobytes() == from_image.tobytes()


def test_one_image_is_a_list_of_it_and_none_gives_no_row(model):
    for one in (photo(), Image.open(io.BytesIO(photo())), np.zeros((4, 4, 3), np.uint8)):
        assert model.encode(one).shape == (1, 3)
    assert model.encode([]).shape == (0, 3)
    batch = np.zeros((3, 4, 4, 3), np.uint8)
    assert model.encode(batch).shape == (3, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), r"image 1: an array of float64 \(4, 4, 3\); uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"image 1: an array of uint8 \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "image 1: an array of uint8"),
        (7, "image 1: a int; a Pillow image"),
    ],
)
def test_what_is_no_image_is_refused(model, image, message):
    with pytest.raises(UsageError, match=message):
        model.encode([photo(), image])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "unknown_format"),
        (photo()[:200], "truncated"),
        ("/no/such/file.jpg", "missing"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(model, image, reason):
    with pytest.raises(ImageError, match="image 1") as caught:
        model.encode([photo(), image])
    assert caught.value.reason == reason


def test_a_models_folder_is_loaded_by_its_path(tmp_path):
    folder = make_model(tmp_path / "model")
    found = load_model(folder.uri, backbone=ONE_WEIGHT)
    assert found.spec.fingerprint == folder.fingerprint
    assert found.preprocessing == folder.preprocessing
    assert repr(found).startswith(f"Model({ONE_WEIGHT!r}, weights={folder.uri!r}, ")
    assert "\n" not in repr(found)
    with pytest.raises(UsageError, match="no code is run"):
        load_model(folder.uri)  # no code of a file is run alone


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "`image_size` 0: a whole number from 1"),
        ({"image_size": 2.5}, "`image_size` 2.5"),
        ({"dtype": "float64"}, "`dtype` 'float64'"),
        ({"device": "tpu"}, "`device` 'tpu'"),
        ({"std": (0, 1, 1)}, "std"),
        ({"precision": "int8"}, "int8"),
        ({"decoder": 9}, "decoder"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        load_model(MEAN, **settings)


def test_what_a_folder_decides_is_not_given_again(tmp_path):
    folder = make_model(tmp_path / "model")
    with pytest.raises(UsageError, match=r"`image_size` 64: the folder .* decides it"):
        load_model(folder.uri, backbone=ONE_WEIGHT, image_size=64)


def test_an_unknown_name_is_said_to_be_no_model(tmp_path):
    with pytest.raises(ModelError, match="resnet19"):
        load_model("resnet19")
