"""An image in any mode → RGB, by the rules of decoder 1 (see `retrieval.images`)."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

from retrieval.errors import ImageError
from retrieval.images.reasons import Reason

__all__ = ["to_rgb"]


def to_rgb(image: Image.Image, data: bytes) -> Image.Image:
    """The loaded image in RGB, clear parts on white; `data` is the file that it was read from.

    Raises:
        ImageError: unsupported, where it is not agreed which value is white.
    """
    if image.mode == "F":
        raise ImageError(Reason.UNSUPPORTED, "float samples: no agreed value of white")
    if image.mode.startswith("I"):
        return _deep_grey_to_rgb(image)
    if not image.has_transparency_data:  # convert() would copy a picture that is RGB already
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.format == "PNG" and "transparency" in image.info:
        _scale_transparent_colour(image, bit_depth=data[24])
    if image.mode == "La":  # Pillow has no direct way from premultiplied grey
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas


def _scale_transparent_colour(image: Image.Image, bit_depth: int) -> None:
    # Pillow 13.0 scales samples to 8 bits and forgets the colour that stands for clear:
    # tbbn0g04 and tbbn2c16 of the PNG suite kept their background.
    colour = image.info["transparency"]
    if image.mode == "L":
        image.info["transparency"] = colour * 255 // (2**bit_depth - 1)
    elif image.mode == "RGB" and bit_depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    samples = np.asarray(image)  # (H, W), uint16 or int32
    if samples.min() < 0 or samples.max() > 0xFFFF:
        raise ImageError(Reason.UNSUPPORTED, "samples outside 0-65535: no agreed value of white")
    tags = getattr(image, "tag_v2", {})  # of a TIFF; Pillow applies neither of these two here
    num_bits = min(tags.get(ExifTags.Base.BitsPerSample, (16,))[0], 16)
    is_white_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    grey = (samples >> (num_bits - 8)).astype(np.uint8)  # (H, W)
    grey = 255 - grey if is_white_zero else grey
    grey[samples == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey).convert("RGB")
