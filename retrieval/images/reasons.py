"""Why an image was refused: what Pillow raises and warns about, as one clear `ImageError`."""

from __future__ import annotations

import ast
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from io import BytesIO
from typing import Final

from PIL import Image, UnidentifiedImageError

from retrieval.errors import ImageError

__all__ = ["Reason", "open_image", "refusal", "refusing"]


class Reason(StrEnum):
    """Why a photo was refused. Closed: reports and tables count by these words."""

    MISSING = "missing"  # vanished since it was listed (set by whoever reads the file)
    UNREADABLE = "unreadable"  # I/O error or no permission (set by whoever reads the file)
    LINK_OUTSIDE = "link_outside"  # a link that leads out of the gallery (set likewise)
    EMPTY = "empty"  # 0 bytes
    TOO_LARGE = "too_large"  # more than MAX_FILE_BYTES
    UNKNOWN_FORMAT = "unknown_format"  # the content is none of FORMATS, whatever the name says
    UNSUPPORTED = "unsupported"  # one of FORMATS, in a variant that is not read: float, 12-bit JPEG
    TOO_MANY_PIXELS = "too_many_pixels"  # more than MAX_PIXELS, or than there is memory for
    TOO_COMPLEX = "too_complex"  # more scans, segments, chunks, … than images have
    TRUNCATED = "truncated"  # the data ends early
    CORRUPT = "corrupt"  # the decoder refuses the data
    NO_EMBEDDING = "no_embedding"  # decoded, but the network gives no direction (set by embed)
    CRASHED = "crashed"  # the decoder brought its process down (set by whoever ran it apart)
    TIMED_OUT = "timed_out"  # the decoder did not come to an end (the same)


# Pillow has words for these two, not types.
_SAYS_TRUNCATED: Final = re.compile(
    "(?i)truncated|requires a buffer|not enough image data|no more images"
)
_SAYS_UNSUPPORTED: Final = re.compile(
    "(?i)unsupported|cannot handle|unknown (data organiz|pixel mode)"
)
# What it says in no words that help → ours.
_IN_WORDS: Final = {
    "not identified by this driver": "its header has no size or no colours",
    "cannot load this image": "there is no image data",
    "could not create decoder object": "no image can be found in it",
    "failed to read next frame": "its image data is damaged",
    "codec configuration error when reading image file": "its image data does not fit its header",
    "decoder error -2": "its image data is damaged",
}
# Errors of Python in a decoder that took the file to be sound.
_NO_WORDS: Final = (LookupError, TypeError, AssertionError, AttributeError, struct.error)
_BYTES: Final = re.compile(r"""\bb(['"])(?:\\.|(?!\1).)*\1""")
_ADDRESS: Final = re.compile(r"<[^<>]* at 0x[^<>]*>")
_PIXELS: Final = re.compile(r"\((\d+) pixels\)")
_COLOUR_MAP: Final = 320


def refusal(error: Exception, data: bytes, max_pixels: int) -> ImageError:
    """What a decoder raised, as the error that a user sees: a reason and one line.

    Args:
        error: What was raised.
        data: The file.
        max_pixels: Our limit. Pillow has one of its own, at which it stops first.
    """
    if isinstance(error, Image.DecompressionBombError):
        found = _PIXELS.search(str(error))
        message = f"{found[1] if found else 'more'} pixels; the limit is {max_pixels}"
        return ImageError(Reason.TOO_MANY_PIXELS, message)
    if isinstance(error, MemoryError):
        return ImageError(Reason.TOO_MANY_PIXELS, "not enough memory")
    text = " ".join(str(error).split())  # in one line
    # WebP says of everything "could not create decoder object", but begins with its length.
    is_cut_webp = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if is_cut_webp or _SAYS_TRUNCATED.search(text):
        return ImageError(Reason.TRUNCATED, f"the data ends early, after {len(data)} bytes")
    if text in _IN_WORDS:
        return ImageError(Reason.CORRUPT, _IN_WORDS[text])
    # Pillow makes a SyntaxError of what its readers meet.
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    is_tiff = data[:2] in (b"II", b"MM")
    if is_tiff and isinstance(cause, KeyError) and type(cause.args[0]) is int:
        return _missing_key(cause.args[0])
    if isinstance(cause, _NO_WORDS) and text != "Missing dimensions":
        kind = f"{type(cause).__name__}: {text}" if text else type(cause).__name__
        return ImageError(Reason.CORRUPT, f"a field of its header is missing or wrong ({kind})")
    text = _ADDRESS.sub("the file", _BYTES.sub(_name_or_numbers, text)) or type(error).__name__
    reason = Reason.UNSUPPORTED if _SAYS_UNSUPPORTED.search(text) else Reason.CORRUPT
    return ImageError(reason, f"the decoder says: {text}")


def _missing_key(key: int) -> ImageError:
    """Of a TIFF Pillow looks up the colours of a palette and the compression."""
    if key == _COLOUR_MAP:
        return ImageError(Reason.CORRUPT, f"the colours of its palette are missing (tag {key})")
    return ImageError(Reason.UNSUPPORTED, f"compression {key} of TIFF is not read")


def _name_or_numbers(literal: re.Match[str]) -> str:
    """Bytes, which Pillow writes as Python does: the name of a chunk, or what is in its place."""
    content: bytes = ast.literal_eval(literal[0])
    return content.decode() if content.isalnum() else content.hex(" ")


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
