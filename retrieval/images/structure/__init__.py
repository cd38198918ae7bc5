"""What a file is made of, read from its bytes before any decoder sees it.

A decoder's time and memory depend on more than the number of pixels: 2,000 scans, 3,000 segments
or a million strips take minutes, in a file of a few megabytes. So the parts are counted first, in
a walk along their headers, and a file with more of them than photos have is refused. The limits
count parts and pixels, never seconds: the answer is the same on every machine.

The walk also leaves out what does not decide a pixel (text, profiles, comments): a decoder gives
a whole photo up over damage in there, or unpacks gigabytes.

A walk ends where the format is damaged, and what follows is left as it is: the decoder says it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from retrieval.images.structure import jpeg, other_formats, png

__all__ = ["without_ballast"]

_WALKS: Final[tuple[tuple[bytes, Callable[[bytes], bytes]], ...]] = (
    (b"\xff\xd8\xff", jpeg.walk),
    (b"\x89PNG\r\n\x1a\n", png.walk),
    (b"RIFF", other_formats.walk_webp),
    (b"GIF8", other_formats.walk_gif),
    (b"BM", other_formats.walk_bmp),
    (b"II", other_formats.walk_tiff),
    (b"MM", other_formats.walk_tiff),
)


def without_ballast(data: bytes) -> bytes:
    """Check the parts of a file, and leave out those that decide no pixel.

    Returns:
        A file of the same pixels and orientation; `data` itself where nothing is left out.

    Raises:
        ImageError: `too_complex` or `too_many_pixels`; the message has what was found and the
            limit.

    Cost: a microsecond a part; at most one copy of the file.
    """
    for start, walk in _WALKS:
        if data.startswith(start):
            return walk(data)
    return data
