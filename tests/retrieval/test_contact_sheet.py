"""The page of all techniques: what stands on it, and that it opens."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from retrieval.augmentations import CATALOGUE, contact_sheet, random_generator
from retrieval.augmentations.registry import GROUPS


def picture(height, width):
    values = np.indices((height, width)).sum(axis=0) * 3 % 256
    return np.stack([values, values[::-1], 255 - values], axis=2).astype(np.uint8)


def opened(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def texts(monkeypatch):
    """What is written on pages, with the place."""
    found = []
    write = ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **options):
        found.append((text, xy))
        return write(self, xy, text, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return found


def test_the_page_has_every_technique_under_its_group_with_its_parameters(texts):
    contact_sheet(picture(60, 80), 3, "a/b.jpg")
    words = [text for text, _ in texts]
    expected = ["a/b.jpg", "original", "80 x 60 pixels"]
    for group in GROUPS:
        expected.append(group)
        for technique in CATALOGUE.values():
            if technique.group == group:
                drawn = technique.draw(random_generator(3, "a/b.jpg", technique.name))
                captions = [f"{name} {value:.3g}" for name, value in drawn.items()]
                expected += [technique.name, ", ".join(captions)]
    assert words == expected


@pytest.mark.parametrize("height", [216, 100])  # fits a cell as it is; higher, stretched
def test_each_picture_stands_right_above_its_name(texts, height):
    image = picture(height, 288)
    page = opened(contact_sheet(image, 7, "a/b.jpg"))
    places = dict(texts)
    for name, expected in {
        "original": image,
        "flip_horizontal": image[:, ::-1],
        "flip_vertical": image[::-1],
        "invert": 255 - image,
    }.items():
        left, below = places[name]
        cell = page[below - 2 - height : below - 2, left : left + 288]
        np.testing.assert_array_equal(cell, expected)


def test_the_page_is_the_same_for_the_same_arguments_alone():
    image = picture(30, 40)
    first = contact_sheet(image, 3, "a")
    assert contact_sheet(image, 3, "a") == first
    assert contact_sheet(image, 4, "a") != first
    assert contact_sheet(image, 3, "b") != first


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (1, 3000), (600, 900)], ids=str)
def test_a_photo_of_any_size_fits(size, texts):
    page = opened(contact_sheet(picture(*size), 0, "a"))
    assert page.shape[1] == 1524
    assert all(
        0 <= left < page.shape[1] and 0 <= top < page.shape[0] - 10 for _, (left, top) in texts
    )


def test_a_large_photo_is_reduced_first_so_that_noise_stays_visible(texts):
    contact_sheet(picture(1024, 2048), 0, "a")
    assert "512 x 256 pixels" in dict(texts)
