"""The decoding tasks of `train`. Without torch, so that they start in a second and stay small."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from retrieval.augmentations import Recipe
from retrieval.errors import ImageError, StorageError
from retrieval.images import Preprocessing, Reason
from retrieval.images.fetch import fetch_photos
from retrieval.training.photos import training_pixels

__all__ = ["DecodePhotos", "PhotoLostError"]


class PhotoLostError(StorageError):
    """A photo that training had begun with and that is no longer there, or no longer as it was."""


class DecodePhotos:
    """Rows of the split → their pixels and labels, in a decoding task."""

    def __init__(self, preprocessing: Preprocessing, recipe: Recipe, seed: int) -> None:
        self._preprocessing, self._recipe, self._seed = preprocessing, recipe, seed

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns `pixels` and `code` of a batch."""
        contents = fetch_photos(table["uri"].to_pylist(), table["size_bytes"].to_pylist())
        ids, numbers = table["image_id"].to_pylist(), table["number"].to_pylist()
        is_known = "content_sha256" in table.column_names
        hashes = table["content_sha256"].to_pylist() if is_known else [None] * len(ids)
        for image_id, content, sha256 in zip(ids, contents, hashes, strict=True):
            _check_same(image_id, content, sha256)
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
            # The first pass could read it. Training without it would be another training. A store
            # that does not answer may do so after a restart.
            kind = StorageError if error.reason == Reason.UNREADABLE else PhotoLostError
            raise kind(
                f"{image_id}: could be read when training began, but no more ({error}). Put it "
                f"back and run the same command again: training goes on after its last epoch."
            ) from error


def _check_same(image_id: str, content: bytes | ImageError, sha256: str | None) -> None:
    """Refuse a photo with another content than training began with: half of it would be of each."""
    if sha256 is None or isinstance(content, ImageError):
        return
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PhotoLostError(
            f"{image_id}: has changed since training began. Put the photo back and run the same "
            f"command again, or train in another folder."
        )
