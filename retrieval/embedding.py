"""How one batch of photos is embedded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.backbones import BackboneSpec, build_backbone, fingerprint
from retrieval.errors import MismatchError, ModelError
from retrieval.images import Preprocessing
from retrieval.index.schema import EmbeddingSpec

__all__ = ["Embedder"]


class Embedder:
    """Turns pixels into embeddings with one network.

    Attributes:
        spec: What the embeddings are; goes into the index.
    """

    def __init__(
        self,
        backbone: BackboneSpec,
        preprocessing: Preprocessing,
        *,
        batch_size: int = 32,
        dtype: str = "float16",
        expect: str | None = None,
    ) -> None:
        """Build the network, on the GPU if this process sees one.

        Args:
            backbone: The network and its weights.
            preprocessing: How the pixels were made.
            batch_size: Photos in one forward pass.
            dtype: Stored type of a component, "float16" or "float32".
            expect: The fingerprint that the network must have: a job's workers must all
                use the weights that its driver has seen.

        Raises:
            ModelError, UsageError: as `build_backbone`.
            MismatchError: the fingerprint is another one.
        """
        network = build_backbone(backbone)
        found = fingerprint(backbone, network, preprocessing)
        if expect not in (None, found):
            raise MismatchError(
                f"--backbone {backbone.name} --weights {backbone.weights}: this worker has "
                f"weights {found[:12]}, the job began with {expect and expect[:12]}. Give every "
                f"machine the same file, or put it where all can read it."
            )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device)
        self._batch_size = batch_size
        self._preprocessing = preprocessing
        side = preprocessing.size
        with torch.inference_mode():
            probe = np.zeros((1, side, side, 3), np.uint8)
            self._dim = int(self._network(self._as_input(probe)).shape[1])
        self.spec = EmbeddingSpec(
            fingerprint=found,
            backbone=backbone.name,
            weights=backbone.weights,
            dim=self._dim,
            dtype=dtype,
            normalised=True,
        )

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Embed photos.

        A photo's embedding does not depend on the photos beside it: every forward pass has
        exactly `batch_size` photos, the last one filled up, since libraries choose other
        kernels, with other rounding, for other sizes.

        Args:
            pixels: uint8 (B, S, S, 3), RGB.

        Returns:
            (B, D) of the spec's dtype, each of length 1 before rounding to it. A row is zero
            where the network gives no direction (all features zero).

        Raises:
            ModelError: the features are not finite.
        """
        features = self._features(pixels)
        if not np.isfinite(features).all():
            raise ModelError(
                f"{self.spec.backbone}: gives features that are not finite. The weights are "
                f"damaged or diverged in training; use others."
            )
        lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        return (features / np.where(lengths > 0, lengths, 1)).astype(self.spec.dtype)

    @torch.inference_mode()
    def _features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (B, D)."""
        parts = [np.empty((0, self._dim), np.float32)]
        for start in range(0, len(pixels), self._batch_size):
            some = pixels[start : start + self._batch_size]
            batch = np.zeros((self._batch_size, *pixels.shape[1:]), np.uint8)
            batch[: len(some)] = some
            features = self._network(self._as_input(batch)).float().cpu().numpy()
            parts.append(features[: len(some)])
        return np.concatenate(parts)

    def _as_input(self, batch: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 (B, S, S, 3) → float32 (B, 3, S, S), normalised, on the device."""
        images = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor(self._preprocessing.mean, device=self._device).view(3, 1, 1)
        std = torch.tensor(self._preprocessing.std, device=self._device).view(3, 1, 1)
        return (images - mean) / std
