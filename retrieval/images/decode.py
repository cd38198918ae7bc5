"""Bytes of a photo → RGB uint8, or the reason why not.

The rules of decoder 1. A decoder is a property of a model (`Preprocessing.decoder`), never of
the program: a model keeps the one that it was trained by.

    format         by content, never by name; only `FORMATS`; of animations the first frame
    orientation    EXIF (or XMP) is applied; where it is damaged it is ignored
    transparency   composited on white, before any resizing
    16-bit grey    value >> 8 (Pillow alone clips: 32768 would be white); 12-bit alike
    32-bit grey    as 16-bit if all values fit, else refused; float refused: which value is white?
    CMYK, YCCK     the plain formula; in JPEG inverted, as Adobe writes it. Lab through sRGB
    profiles       ignored: numbers are read as sRGB, as is usual with ImageNet
    size           stretched to size × size, bilinear with antialiasing, once
    damage         a file that ends early is refused, never filled up with grey. A changed
                   byte inside a JPEG scan decodes without complaint: only a hash finds that
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from retrieval.choices import FIRST_DECODER, IMAGE_SIZE
from retrieval.errors import ImageError, ModelError, UsageError
from retrieval.images.colours import to_rgb
from retrieval.images.memory_lock import one_at_a_time
from retrieval.images.reasons import Reason, open_image, refusing
from retrieval.images.structure import without_ballast
from retrieval.images.structure.limits import check_pixels, check_sides

__all__ = [
    "FIRST_DECODER",
    "FORMATS",
    "LATER_KEYS",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "DecodedImage",
    "Preprocessing",
    "Reason",
    "check_decoder",
    "decode_image",
    "decoders",
    "image_pixels",
    "load_rgb",
    "newest_decoder",
]

# Of Pillow's 43 readers those for photos. Never EPS, which starts Ghostscript.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# The largest common cameras have 102 megapixels. Peak memory of one photo at this limit, measured:
# JPEG 15 MiB (it is reduced), progressive JPEG 0.7 GiB, RGB 0.5 GiB, transparency or 16-bit grey
# 1 GiB, WebP 1.8 GiB. So large ones are decoded one at a time: see `retrieval.images.memory_lock`.
MAX_PIXELS: Final = 120_000_000
# MAX_PIXELS fit uncompressed at 4 bytes each: for photos the pixel budget decides, not this.
MAX_FILE_BYTES: Final = 512 * 2**20
# A JPEG is decoded at 1/2, 1/4 or 1/8 only where both sides stay >= this many times the target.
# Against the full decode of 48 photos (0.9-4.3 megapixels) at 224: mean difference 0.41 of 255,
# worst photo 0.99, worst value 17; 40 % less time. Without `box` in _load: 0.70, 2.8, 45.
_OVERSAMPLING: Final = 2
_Box: TypeAlias = tuple[float, float, float, float]
_Loaded: TypeAlias = tuple[Image.Image, _Box, int, tuple[int, int]]
_TURNS: Final = {  # EXIF orientation → what makes it upright; from 5 on the sides swap
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """All that lies between a file's bytes and the network; the defaults are the paper's.

    Attributes:
        size: Side in pixels of the square to which a photo is stretched, >= 1.
        mean: Of red, green, blue on the scale [0, 1]; ImageNet's.
        std: The same, > 0. A value outside its range raises UsageError.
        decoder: Version of the rules by which a file becomes pixels, one of `decoders()`.
    """

    size: int = IMAGE_SIZE
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    decoder: int = FIRST_DECODER

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # 0 and 0.0 are equal and must not give two fingerprints
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        is_complete = type(self.size) is int and len(self.mean) == len(self.std) == 3
        is_finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if not (is_complete and is_finite and self.size >= 1 and min(self.std) > 0):
            raise UsageError(f"{self}: needed are a whole size >= 1, 3 finite means, 3 stds > 0.")
        check_decoder(self.decoder)

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all that changes the input, the rules of decoding included.

        Pillow's version is left out: its patch releases must not invalidate an index.
        """
        values = self.to_json()
        values.pop("decoder", None)  # version 1 hashed it by another name, its value 1 too
        content = {"decoder_version": self.decoder, **values}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a model folder; `from_json` is the way back.

        A key that version 1 of the form did not have is there only where its value is another
        one than version 1 meant: see `LATER_KEYS`.
        """
        values = {"size": self.size, "mean": list(self.mean), "std": list(self.std)}
        later = {name: getattr(self, name) for name in LATER_KEYS}
        return values | {name: value for name, value in later.items() if value != LATER_KEYS[name]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Rebuild from `to_json`.

        Raises:
            ModelError: A key is unknown or missing, or a value is outside its range.
                Nothing is filled from the defaults: they may change, a model may not.
        """
        found, names = sorted(values), {field.name for field in fields(cls)}
        needed = names - LATER_KEYS.keys()
        if not needed <= values.keys() <= names:
            raise ModelError(
                f"Preprocessing of the model: keys {found}, needed are {sorted(needed)}."
            )
        try:
            return cls(**{**LATER_KEYS, **values})
        except (TypeError, ValueError) as error:
            raise ModelError(f"Preprocessing of the model: {error}") from error


# Keys that the form of version 1 did not have → what version 1 meant. Constants, whatever the
# defaults of `Preprocessing` become: at these values a key is neither written nor hashed, so that
# what was written and hashed before stays as it was.
LATER_KEYS: Final[Mapping[str, Any]] = {"decoder": 1}


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One photo, ready for a batch: RGB uint8 (S, S, 3), C-contiguous, in memory of its own.

    Width and height are those of the whole photo as one sees it, after orientation.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


def decode_image(data: bytes, preprocessing: Preprocessing) -> DecodedImage:
    """Turn a whole file into a square of pixels; normalising is left to the device.

    Returns:
        uint8 (S, S, 3) with S = preprocessing.size, and the size of the whole photo.

    Raises:
        ImageError: The photo cannot be decoded; `reason` is a `Reason`, `message` one line.
    """
    side, load = preprocessing.size, _LOADERS[preprocessing.decoder]
    with (
        refusing(data, MAX_PIXELS),
        load(data, _OVERSAMPLING * side) as (stored, box, orientation, size),
    ):
        # Turned after resizing, because `box` lies in the picture as it is stored.
        square = stored.resize((side, side), Image.Resampling.BILINEAR, box=box)
        upright = square.transpose(_TURNS[orientation]) if orientation > 1 else square
        # np.array copies: asarray would be read-only, about which torch warns.
        return DecodedImage(np.array(upright), *size)


def image_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """An image in memory as a square of pixels, by the rules of `decode_image`.

    Of a JPEG that Pillow has opened, pixels may differ by a few of 255 from those of its bytes,
    which are decoded at a reduced size where that is enough.

    Args:
        image: In any mode; EXIF orientation is applied, transparency is white.
        preprocessing: Its size.

    Returns:
        uint8 (S, S, 3) with S = preprocessing.size, RGB.

    Raises:
        ImageError: it cannot be read, or has more pixels than a file may have.
    """
    with refusing(b"", MAX_PIXELS):
        check_pixels(*image.size, MAX_PIXELS)
        check_sides(*image.size)
        image = image.copy()  # loads it, and leaves the caller's as it is
        orientation = _orientation(image)
        rgb = to_rgb(image, b"")
        square = rgb.resize((preprocessing.size,) * 2, Image.Resampling.BILINEAR)
        return np.array(square.transpose(_TURNS[orientation]) if orientation > 1 else square)


def load_rgb(
    data: bytes, *, min_size: int | None = None, decoder: int = FIRST_DECODER
) -> tuple[Image.Image, int, int]:
    """Decode a whole file at the photo's own size: the step before resizing.

    Args:
        data: Content of the file.
        min_size: If given, a JPEG may come out at 1/2, 1/4 or 1/8 of its size while both
            sides stay >= min_size >= 1. Its edges may then reach part of a pixel too far.
        decoder: One of `decoders()`.

    Returns:
        The upright picture in mode RGB; width and height of the whole photo, reduced or not.

    Raises:
        ImageError: As `decode_image`.
    """
    with (
        refusing(data, MAX_PIXELS),
        _LOADERS[decoder](data, min_size) as (stored, _, orientation, size),
    ):
        upright = stored.transpose(_TURNS[orientation]) if orientation > 1 else stored
        return upright, *size


@contextmanager
def _load(data: bytes, min_size: int | None) -> Iterator[_Loaded]:
    """The picture as stored, in RGB; the part of it to resize; orientation; upright full size."""
    if not data:
        raise ImageError(Reason.EMPTY, "the file has 0 bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(Reason.TOO_LARGE, f"{len(data)} bytes; the limit is {MAX_FILE_BYTES}")
    data = without_ballast(data)
    image = open_image(data, FORMATS)
    size = image.size
    check_pixels(*size, MAX_PIXELS)
    check_sides(*size)
    draft = image.draft(None, (min_size, min_size)) if min_size else None
    # However much it is reduced, the coefficients of a progressive JPEG are all in memory.
    held = size if "progressive" in image.info else image.size
    with one_at_a_time(held[0] * held[1]):
        image.load()
        if draft:  # a JPEG of 1001 columns has 501 at 1/2, of which the last is half empty: 500.5
            box: _Box = draft[1]
        else:  # a TIFF turns itself while it loads: only now its size is what one sees
            size = image.size
            box = (0, 0, *size)
        orientation = _orientation(image)
        yield to_rgb(image, data), box, orientation, size[::-1] if orientation >= 5 else size


# A mended decoder is added here under the next number, and the older ones stay as they are: a
# model's pixels never change. The number rises only where the pixels of a photo change that was
# accepted before; to accept more photos, or to refuse some by their structure, needs none.
_LOADERS: Final[dict[int, Callable[[bytes, int | None], AbstractContextManager[_Loaded]]]] = {
    FIRST_DECODER: _load
}


def decoders() -> tuple[int, ...]:
    """Versions of the decoder that this program has, ascending."""
    return tuple(sorted(_LOADERS))


def newest_decoder() -> int:
    """The decoder of models that are trained from now on."""
    return max(_LOADERS)


def check_decoder(version: int) -> None:
    """Refuse a decoder that this program does not have.

    Raises:
        UsageError: with those that it has.
    """
    if type(version) is not int or version not in _LOADERS:
        raise UsageError(
            f"decoder {version!r}: unknown here; this release has {', '.join(map(str, decoders()))}"
            f". Choose one of them, or upgrade retrieval-cli where a newer one was used."
        )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - whatever damaged EXIF raises, the photo is good
        return 1
    return value if value in _TURNS else 1
