"""Listed photos: their content, their pixels, or the reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import ImageError, RetrievalError
from retrieval.gallery.listing import LINK_OUTSIDE_BYTES, NAME_NOT_UTF8_BYTES
from retrieval.images import MAX_FILE_BYTES, Preprocessing, Reason, decode_image
from retrieval.one_line import one_line
from retrieval.storage import FileTooLargeError, first_line, read_bounded

__all__ = [
    "FETCH_AT_ONCE",
    "OpenedPhoto",
    "check_fetch",
    "fetch_photo",
    "fetch_photos",
    "hash_photos",
    "open_photo",
    "read_bytes",
]

# Files fetched side by side: hides the latency of an object store, and bounds the encoded
# bytes in memory.
FETCH_AT_ONCE = 32
# What file systems raise of an address that others have written: ValueError for a NUL, Arrow's own
# for an empty part of a key, ours for an unknown scheme.
_UNREADABLE = (OSError, ValueError, pa.ArrowException, RetrievalError)
_NOT_FETCHED = {
    LINK_OUTSIDE_BYTES: (
        Reason.LINK_OUTSIDE,
        "a link that leads out of the gallery; `follow_links` follows it",
    ),
    NAME_NOT_UTF8_BYTES: (Reason.MISSING, "a name that is not UTF-8, so no address; rename it"),
}


def fetch_photos(uris: Sequence[str], sizes: Sequence[int]) -> list[bytes | ImageError]:
    """Fetch files side by side, in their order.

    Args:
        uris: Addresses of the files.
        sizes: Bytes of each, as it was listed; one above MAX_FILE_BYTES is not fetched, nor one of
            LINK_OUTSIDE_BYTES or NAME_NOT_UTF8_BYTES. Whatever was listed, no more than
            MAX_FILE_BYTES is read.

    Returns:
        Each file's content, or an error (returned and not raised, so that one bad file does not
        end the others): link_outside, too_large, missing or unreadable.
    """
    # Not a generator: one that is left half read joins its threads when garbage is collected,
    # and if that is while Python starts another thread, it waits for itself.
    with ThreadPoolExecutor(FETCH_AT_ONCE) as threads:
        return list(threads.map(fetch_photo, uris, sizes))


def hash_photos(uris: Sequence[str], sizes: Sequence[int]) -> list[str | None]:
    """SHA-256 of each file's content in hexadecimal, or None where it cannot be read."""
    contents = fetch_photos(uris, sizes)
    return [
        None if isinstance(content, ImageError) else hashlib.sha256(content).hexdigest()
        for content in contents
    ]


def check_fetch(uris: Sequence[str], sizes: Sequence[int]) -> list[tuple[str, str] | None]:
    """The reason and the message of each file that cannot be fetched; None where it can."""
    return [
        (content.reason, content.message) if isinstance(content, ImageError) else None
        for content in fetch_photos(uris, sizes)
    ]


def read_bytes(uri: str) -> bytes:
    """The content of one file; errors as of `storage.read_bounded`, beyond MAX_FILE_BYTES too."""
    return read_bounded(uri, MAX_FILE_BYTES)


def fetch_photo(uri: str, size_bytes: int = 0) -> bytes | ImageError:
    """Fetch one file; see `fetch_photos`."""
    if size_bytes in _NOT_FETCHED:
        return ImageError(*_NOT_FETCHED[size_bytes])
    if size_bytes > MAX_FILE_BYTES:
        return ImageError(Reason.TOO_LARGE, f"{size_bytes} bytes; {MAX_FILE_BYTES} at most")
    try:
        return read_bytes(uri)
    except FileNotFoundError:
        return ImageError(
            Reason.MISSING, "gone since it was listed, a dangling link, or a name not in UTF-8"
        )
    except FileTooLargeError:
        return ImageError(Reason.TOO_LARGE, f"{MAX_FILE_BYTES} bytes at most")
    except _UNREADABLE as error:
        return ImageError(Reason.UNREADABLE, one_line(first_line(error)))


@dataclass(frozen=True, eq=False)
class OpenedPhoto:
    """One photo after decoding; either pixels or a reason is there.

    Attributes:
        sha256: Of the content, in hexadecimal; empty where there is none.
        width, height: Of the whole photo, after orientation; 0 where there is none.
        pixels: uint8 (S, S, 3).
        reason: Member of `retrieval.images.Reason`, and `message` one line.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    pixels: NDArray[np.uint8] | None = None
    reason: str | None = None
    message: str | None = None


def open_photo(content: bytes | ImageError, preprocessing: Preprocessing) -> OpenedPhoto:
    """Hash and decode what `fetch_photos` brought; never raises for a bad photo."""
    if isinstance(content, ImageError):
        return OpenedPhoto(reason=content.reason, message=content.message)
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        image = decode_image(content, preprocessing)
    except ImageError as error:
        return OpenedPhoto(sha256, reason=error.reason, message=error.message)
    return OpenedPhoto(sha256, image.width, image.height, image.pixels)
