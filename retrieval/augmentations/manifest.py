"""What `augment` leaves beside the photos that it has multiplied, for whoever trains on them.

A copy must never be mistaken for a photo of its own: not when photos are held out to measure,
and not when they are multiplied again. The manifest tells. It is written last, so a folder that
has the settings but no manifest is unfinished.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

__all__ = ["AUGMENTED", "AUGMENT_FORMAT", "MANIFEST", "MANIFEST_SCHEMA", "SETTINGS"]

AUGMENT_FORMAT: Final = 1  # of the files below AUGMENTED and of the tables, each of which says it

AUGMENTED: Final = ".augmented"  # hidden, so that listings of photos pass it over
SETTINGS: Final = f"{AUGMENTED}/settings.json"  # written first: the folder is ours from then on
MANIFEST: Final = f"{AUGMENTED}/manifest.parquet"  # one row an image, by image id
MANIFEST_SCHEMA: Final = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),  # in the folder of the photos
        pa.field("source_sha256", pa.string(), nullable=False),  # of the photo's file
        pa.field("technique", pa.string()),  # null for the photo itself
        pa.field("parameters", pa.string()),  # as JSON; null for the photo itself
    ]
)
