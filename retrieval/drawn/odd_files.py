"""Files as they turn up in real galleries: unusual ones, and ones that nothing can read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

__all__ = ["ODD_FILES", "OddFile"]

EXIF_ORIENTATION = 0x0112
ROTATE_TO_VIEW = 6  # the viewer must turn the pixels a quarter clockwise


@dataclass(frozen=True)
class OddFile:
    """One way in which a file is odd.

    Attributes:
        ending: What follows the building's name in the file name, with extension.
        is_readable: A decoder can get pixels out of it.
        write: Writes a photo in this way.
    """

    ending: str
    is_readable: bool
    write: Callable[[Image.Image, Path], None]


def _write_truncated(image: Image.Image, path: Path) -> None:
    content = BytesIO()
    image.save(content, "JPEG", quality=85)
    path.write_bytes(content.getvalue()[: content.tell() * 2 // 5])


def _write_text(image: Image.Image, path: Path) -> None:
    path.write_text(
        f"404 Not Found: the photo of {image.width} x {image.height} pixels was moved.\n",
        encoding="utf-8",
    )


def _write_empty(image: Image.Image, path: Path) -> None:
    path.touch()


def _write_cmyk(image: Image.Image, path: Path) -> None:
    image.convert("CMYK").save(path, "JPEG", quality=90)


def _write_16_bit(image: Image.Image, path: Path) -> None:
    grey = np.asarray(image.convert("L"), dtype=np.uint16)  # (H, W)
    Image.fromarray(grey * np.uint16(257)).save(path, "PNG")  # 257: 255 becomes 65535


def _write_transparent(image: Image.Image, path: Path) -> None:
    alpha = Image.new("L", image.size, 0)
    box = (2, 2, image.width - 3, image.height - 3)
    ImageDraw.Draw(alpha).rounded_rectangle(box, radius=min(image.size) // 6, fill=255)
    cut_out = image.copy()
    cut_out.putalpha(alpha)
    cut_out.save(path, "PNG")


def _write_exif_rotated(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATE_TO_VIEW
    image.transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", quality=90, exif=exif)


def _write_animated(image: Image.Image, path: Path) -> None:
    frames = [ImageEnhance.Brightness(image).enhance(share) for share in (0.8, 0.6)]
    image.save(path, "GIF", save_all=True, append_images=frames, duration=400, loop=0)


def _write_png_as_jpeg(image: Image.Image, path: Path) -> None:
    image.save(path, "PNG")


ODD_FILES: tuple[OddFile, ...] = (
    OddFile("truncated.jpg", False, _write_truncated),
    OddFile("text.jpg", False, _write_text),
    OddFile("empty.jpg", False, _write_empty),
    OddFile("cmyk.jpg", True, _write_cmyk),
    OddFile("16-bit.png", True, _write_16_bit),
    OddFile("transparent.png", True, _write_transparent),
    OddFile("exif-rotated.jpg", True, _write_exif_rotated),
    OddFile("animated.gif", True, _write_animated),
    OddFile("png-inside.jpg", True, _write_png_as_jpeg),
)
