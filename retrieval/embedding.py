"""How one batch of photos is embedded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from retrieval.backbones import BackboneSpec, build_backbone, fingerprint
from retrieval.errors import MismatchError, ModelError, RetrievalError, UsageError
from retrieval.images import Preprocessing
from retrieval.index.schema import EmbeddingSpec
from retrieval.model_folder import ModelFolder, load_network
from retrieval.network_input import as_network_input
from retrieval.storage import first_line

__all__ = ["Embedder"]


class Embedder:
    """Turns pixels into embeddings with one network.

    Attributes:
        spec: What the embeddings are; goes into the index.
    """

    def __init__(
        self,
        backbone: BackboneSpec | ModelFolder,
        preprocessing: Preprocessing,
        *,
        batch_size: int = 32,
        dtype: str = "float16",
        expect: str | None = None,
    ) -> None:
        """Build the network, on the GPU if this process sees one.

        Args:
            backbone: The network and its weights, or a model that was trained.
            preprocessing: How the pixels were made; for a model its own.
            batch_size: Photos in one forward pass.
            dtype: Stored type of a component, "float16" or "float32".
            expect: The fingerprint that the network must have: a job's workers must all
                use the weights that its driver has seen.

        Raises:
            ModelError, UsageError: as `build_backbone` and `load_network`; or the network takes
                no photos of this size.
            MismatchError: the fingerprint, or a model's preprocessing, is another one.
        """
        network, made = _load(backbone, preprocessing)
        if expect not in (None, made["fingerprint"]):
            raise MismatchError(
                f"--backbone {made['backbone']} --weights {made['weights']}: this worker has "
                f"weights {made['fingerprint'][:12]}, the job began with {expect and expect[:12]}. "
                f"Give every machine the same file, or put it where all can read it."
            )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device)
        self._batch_size = batch_size
        self._preprocessing = preprocessing
        self._dim = self._probe(made["backbone"])
        self.spec = EmbeddingSpec(**made, dim=self._dim, dtype=dtype, normalised=True)

    @torch.inference_mode()
    def _probe(self, name: str) -> int:
        """Dimensions D of the features, from a black photo."""
        side = self._preprocessing.size
        photo = self._as_input(np.zeros((1, side, side, 3), np.uint8))
        try:
            return int(self._network(photo).shape[1])
        except RetrievalError:
            raise
        except Exception as error:  # somebody's own network may raise anything
            raise UsageError(
                f"--backbone {name}: does not take photos of {side} × {side} pixels "
                f"({first_line(error)}). Choose another --image-size."
            ) from error

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
        return as_network_input(batch, self._preprocessing, self._device)


def _load(
    backbone: BackboneSpec | ModelFolder, preprocessing: Preprocessing
) -> tuple[nn.Module, dict[str, str]]:
    """The network, and what the spec says of it: fingerprint, backbone, weights."""
    if isinstance(backbone, BackboneSpec):
        network = build_backbone(backbone)
        found = fingerprint(backbone, network, preprocessing)
        return network, {
            "fingerprint": found,
            "backbone": backbone.name,
            "weights": backbone.weights,
        }
    if preprocessing != backbone.preprocessing:
        raise MismatchError(
            f"{backbone.uri}: was trained with {backbone.preprocessing}, not with "
            f"{preprocessing}. Make the pixels as the model wants them."
        )
    return load_network(backbone), {
        "fingerprint": backbone.fingerprint,
        "backbone": backbone.backbone,
        "weights": backbone.uri,
    }
