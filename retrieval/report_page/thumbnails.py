"""Photo bytes → small data URIs, and how small they must be.

A thumbnail is WebP without any metadata: camera, place and colour profile stay in the photo.
"""

from __future__ import annotations

import base64
import io

from PIL import Image

from retrieval.images import load_rgb

__all__ = ["make_thumbnail", "thumbnail_size"]

# 738 photos of buildings at a longest side of 64 / 112 / 256 pixels: 0.8 / 1.9 / 7.8 kB each on
# average. JPEG at quality 70 took 35 / 21 / 17 % more; WebP's method 6 took 5 % less, but 2.5 times
# as long.
QUALITY = 70
METHOD = 4

# (up to this many photos, longest side in pixels): each line makes at most about 32 MB
# of base64, which leaves room for the rows themselves in a page of 40 MB.
SIZES = (
    (3_000, 256),
    (5_000, 192),
    (7_000, 160),
    (10_000, 128),
    (12_500, 112),
    (16_000, 96),
    (21_000, 80),
)
MIN_SIZE = 64


def make_thumbnail(data: bytes, *, size: int) -> str:
    """Shrink a photo to a data URI.

    A photo that is smaller already keeps its size: enlarging costs bytes and shows no more.

    Args:
        data: The photo's file, any format that `retrieval.images` reads.
        size: Longest side in pixels, >= 1.

    Returns:
        `data:image/webp;base64,...`, upright whatever the EXIF orientation.

    Raises:
        ImageError: The photo cannot be read.
    """
    image, _, _ = load_rgb(data, min_size=size)
    # reducing_gap: shrink by a whole factor first, filter the rest; same look, several times faster
    image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    # Pillow would copy the photo's colour profile, often larger than the thumbnail, from image.info
    image.save(file, "WEBP", quality=QUALITY, method=METHOD, icc_profile=b"")
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def thumbnail_size(num_photos: int) -> int:
    """Choose the longest side of the thumbnails so that the page stays under about 40 MB.

    The page shows a query about twice as large as its neighbours. To have queries as sharp,
    give them twice the size and count each three times, for that is what it then costs.

    Args:
        num_photos: Distinct photos on the page, queries and gallery together.

    Returns:
        Pixels: 256 for up to 3,000 photos, 64 above 21,000 (there the page grows on,
        by about 1 kB a photo).

    Example:
        >>> thumbnail_size(861), thumbnail_size(12_000), thumbnail_size(1_000_000)
        (256, 112, 64)
    """
    return next((size for most, size in SIZES if num_photos <= most), MIN_SIZE)
