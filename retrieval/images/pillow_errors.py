"""What Pillow raises and warns about while it opens and decodes, as one `ImageError`."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from retrieval.errors import ImageError
from retrieval.images.reasons import Reason, refusal

__all__ = ["open_image", "refusing"]


def open_image(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """An image by its content, not decoded yet.

    Args:
        data: Content of the file.
        formats: Pillow's names of those that may be read.

    Raises:
        ImageError: it is none of these.
        Exception: what the reader of its format raises.
    """
    try:
        return Image.open(BytesIO(data), formats=formats)
    except UnidentifiedImageError:  # which hides what the reader of the right format said
        # Pillow seeks a JPEG's resolution in its EXIF and gives the photo up over damage there.
        data = data.replace(b"Exif\0\0", b"Void\0\0")
        for factory, accepts in map(Image.OPEN.__getitem__, formats):
            if accepts and accepts(data[:16]):
                return factory(BytesIO(data), "")
        raise ImageError(Reason.UNKNOWN_FORMAT, f"none of {', '.join(formats)}") from None


_decoding_lock = threading.Lock()
_decoding: list[warnings.catch_warnings[None]] = []  # an entry per decoding thread, all the same


@contextmanager
def refusing(data: bytes, max_pixels: int) -> Iterator[None]:
    """Turn what a decoder raises into an `ImageError`, and keep in what Pillow warns about.

    `warnings.catch_warnings` swaps a list of the whole process, and two threads that overlap
    could restore the wrong one. So the first one in swaps and the last one out restores.

    Args:
        data: Content of the file that is decoded.
        max_pixels: The limit that the message names.
    """
    with _decoding_lock:
        if not _decoding:
            swap = warnings.catch_warnings()
            swap.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
        _decoding.append(_decoding[0] if _decoding else swap)
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # ten types were seen; one photo must not end a night's run
        raise refusal(error, data, max_pixels) from error
    finally:
        with _decoding_lock:
            swap = _decoding.pop()
            if not _decoding:
                swap.__exit__(None, None, None)
