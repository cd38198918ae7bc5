"""Bytes → RGB uint8, or the reason why not.

decode             one image, in this process; the one Preprocessing
structure/         what a file is made of, counted before any decoder sees it
colours            other colour models → RGB
reasons            the closed list of reasons, and what Pillow raises and warns about as these
fetch              listed images: their content, their pixels, or the reason why not
subprocess_decode  a process that a crash or a hang costs one image
watchdog           ends it
memory_lock        one large image at a time
"""

from retrieval.images.decode import (
    FIRST_DECODER,
    FORMATS,
    LATER_KEYS,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    DecodedImage,
    Preprocessing,
    Reason,
    check_decoder,
    decode_image,
    decoders,
    image_pixels,
    load_rgb,
    newest_decoder,
)

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
