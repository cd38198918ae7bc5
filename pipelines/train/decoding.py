"""The decoding tasks of `train`. Without torch, so that they start in a second and stay small."""

from __future__ import annotations

import pyarrow as pa

from retrieval.augmentations import Recipe
from retrieval.errors import ImageError, StorageError
from retrieval.fetching import fetch_photos
from retrieval.images import Preprocessing
from retrieval.training.photos import training_pixels

__all__ = ["DecodePhotos"]


class DecodePhotos:
    """Rows of the split → their pixels and labels, in a decoding task."""

    def __init__(self, preprocessing: Preprocessing, recipe: Recipe, seed: int) -> None:
        self._preprocessing, self._recipe, self._seed = preprocessing, recipe, seed

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns `pixels` and `code` of a batch."""
        contents = fetch_photos(table["uri"].to_pylist(), table["size_bytes"].to_pylist())
        ids, numbers = table["image_id"].to_pylist(), table["number"].to_pylist()
        pixels = [
            self._pixels(content, image_id, number)
            for content, image_id, number in zip(contents, ids, numbers, strict=True)
        ]
        kind = pa.binary(self._preprocessing.size**2 * 3)
        return pa.table({"pixels": pa.array(pixels, kind), "code": table["code"]})

    def _pixels(self, content: bytes | ImageError, image_id: str, number: int) -> bytes:
        try:
            if isinstance(content, ImageError):
                raise content
            return training_pixels(
                content,
                self._preprocessing,
                self._recipe,
                seed=self._seed,
                draw=(image_id, number),
            ).tobytes()
        except ImageError as error:
            # The first pass could read it. Training without it would be another training.
            raise StorageError(
                f"{image_id}: could be read when training began, but no more ({error}). Put it "
                f"back and run the same command again: training goes on after its last epoch."
            ) from error
