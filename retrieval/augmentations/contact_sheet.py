"""A page of pictures: a photo under every technique of the catalogue, for a person to look at."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retrieval.augmentations.registry import CATALOGUE, GROUPS, Technique, random_generator
from retrieval.augmentations.sizes import RGB

__all__ = ["WORKING_SIZE", "contact_sheet"]

# Shorter side to which a larger photo is reduced first: noise of one pixel would vanish in a
# cell, and the default ranges were chosen at this size.
WORKING_SIZE: Final = 256
_COLUMNS: Final = 5
_CELL_WIDTH, _CELL_HEIGHT = 288, 216  # of the picture in a cell
_MARGIN, _LINE, _HEADING = 14, 20, 48
_PAPER, _INK, _FAINT = "white", "black", "#666666"


@dataclass(frozen=True)
class _Cell:
    """One picture of the page, made to fit, and what stands below it."""

    picture: Image.Image
    name: str
    caption: str


def contact_sheet(image: RGB, seed: int, image_id: str) -> bytes:
    """Show what every technique does to a photo, with the parameters that were drawn.

    Args:
        image: uint8 RGB (H, W, 3).
        seed: Of the parameters and the noise.
        image_id: The photo's; shown as the title. Same arguments, same picture.

    Returns:
        A PNG: the photo, then one cell a technique, a heading a group.
    """
    image = _working_size(image)
    size = f"{image.shape[1]} x {image.shape[0]} pixels"
    sections = {image_id: [_Cell(_fitted(image), "original", size)]}
    for group in GROUPS:
        techniques = [each for each in CATALOGUE.values() if each.group == group]
        sections[group] = [_cell(image, each, seed, image_id) for each in techniques]
    buffer = io.BytesIO()
    _drawn(sections).save(buffer, "PNG")
    return buffer.getvalue()


def _working_size(image: RGB) -> RGB:
    scale = WORKING_SIZE / min(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (round(side * scale) for side in image.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _fitted(image: RGB) -> Image.Image:
    # Not ImageOps.contain, which makes nothing of a strip.
    scale = min(_CELL_WIDTH / image.shape[1], _CELL_HEIGHT / image.shape[0])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)


def _cell(image: RGB, technique: Technique, seed: int, image_id: str) -> _Cell:
    rng = random_generator(seed, image_id, technique.name)
    parameters = technique.draw(rng)
    caption = ", ".join(f"{name} {value:.3g}" for name, value in parameters.items())
    return _Cell(_fitted(technique.apply(image, rng, parameters)), technique.name, caption)


def _drawn(sections: Mapping[str, Sequence[_Cell]]) -> Image.Image:
    rows: list[tuple[int, str, Sequence[_Cell]]] = []  # top; heading, if the row has one; cells
    top = 0
    for heading, cells in sections.items():
        for start in range(0, len(cells), _COLUMNS):
            row = cells[start : start + _COLUMNS]
            rows.append((top, "" if start else heading, row))
            top += (0 if start else _HEADING) + _row_height(row)
    page = Image.new("RGB", (_COLUMNS * (_CELL_WIDTH + _MARGIN) + _MARGIN, top), _PAPER)
    for top, heading, row in rows:
        _draw_row(page, top, heading, row)
    return page


def _row_height(row: Sequence[_Cell]) -> int:
    return max(cell.picture.height for cell in row) + 2 * _LINE + _MARGIN


def _draw_row(page: Image.Image, top: int, heading: str, row: Sequence[_Cell]) -> None:
    draw = ImageDraw.Draw(page)
    if heading:
        draw.text((_MARGIN, top + 10), heading, _INK, ImageFont.load_default(size=24))
        top += _HEADING
    below = top + _row_height(row) - 2 * _LINE - _MARGIN
    for column, cell in enumerate(row):
        left = _MARGIN + column * (_CELL_WIDTH + _MARGIN)
        page.paste(cell.picture, (left, below - cell.picture.height))
        draw.text((left, below + 2), cell.name, _INK, ImageFont.load_default(size=16))
        caption = (left, below + _LINE + 2)
        draw.text(caption, cell.caption, _FAINT, ImageFont.load_default(size=13))
