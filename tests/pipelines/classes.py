"""Class folders of drawn buildings: pictures with something in them for techniques to change."""

from __future__ import annotations

import functools
import io

import pyarrow.parquet as pq
from PIL import Image

from pipelines.augment import AugmentConfig, run
from retrieval.drawn import draw_photo

SHEET = "augmentations.png"


@functools.cache
def building_bytes(building, number):
    """A small JPEG of a building of the drawn gallery."""
    buffer = io.BytesIO()
    draw_photo(building, number).resize((96, 72)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def blank_bytes():
    """A photo of which nearly every technique makes the same grey, or a destroyed picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (96, 72), (90, 90, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def write_classes(folder, **counts):
    """Folders of that many photos each, named NUMBER.jpg from 0; returns their root."""
    for building, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / label / f"{number}.jpg").write_bytes(building_bytes(building, number))
    return folder


def augment(photos, output, say=None, **settings):
    """Run the job on small pictures; without `say`, nothing may be said."""
    lines = []
    config = AugmentConfig(**{"per_class": 12, "size": 64, **settings})
    report = run(str(photos), str(output), config, say or lines.append).to_json()
    assert not lines
    return report


def manifest_of(output):
    return pq.read_table(output / ".augmented" / "manifest.parquet")


def files_of(folder):
    """Content of each file of a folder that is not hidden, by its path."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    return {str(path): (folder / path).read_bytes() for path in shown}
