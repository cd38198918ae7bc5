"""How one batch of photos is embedded."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import MismatchError, ModelError, RetrievalError, UsageError
from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec, build_backbone, fingerprint, inner_network
from retrieval.models.folder import ModelFolder, load_network
from retrieval.models.inference import QuickNetwork
from retrieval.models.network_input import as_network_input
from retrieval.models.own_networks import choose_preprocessing, is_own, stated_preprocessing
from retrieval.storage import first_line

__all__ = ["Embedder"]

# Photos in a forward pass. On a CPU each thread makes passes of its own: what lies between the
# layers then stays in the core's cache (passes of 32 take resnet18 1.3 times as long).
_BATCH_SIZE = {"cpu": 8, "cuda": 256}


class Embedder:
    """Turns pixels into embeddings with one network. Several threads may use it at a time.

    Attributes:
        spec: What the embeddings are; goes into the index.
        preprocessing: How the pixels must be made.
    """

    def __init__(  # noqa: PLR0913 - which network, and how it is run, by name
        self,
        backbone: BackboneSpec | ModelFolder,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        *,
        model_backbone: str | None = None,
        batch_size: int | None = None,
        dtype: str = "float16",
        precision: str = "auto",
        expect: str | None = None,
        num_photos: int = 0,
        device: str = "auto",
    ) -> None:
        """Build the network, on the GPU if this process sees one.

        Args:
            backbone: The network and its weights, or a model that was trained.
            preprocessing: How the pixels are made; a model has its own, but the decoder may be
                another one: then the fingerprint is another one, too. Of a network, some values
                of it by name are enough: the others are what one's own network states
                (`stated_preprocessing`), or the defaults.
            model_backbone: The name of a model's network where that is a function of one's own;
                see `load_network`.
            batch_size: Photos in one forward pass; by default 8, on a GPU 256. It is halved
                when a GPU has not enough memory for it.
            dtype: Stored type of a component, "float16" or "float32".
            precision: In which the network computes; see `QuickNetwork`.
            expect: The fingerprint that the network must have: a job's workers must all
                use the weights that its driver has seen.
            num_photos: That one thread will embed, as far as is known: long work is compiled.
            device: "cpu", "cuda", or "auto": a GPU where this process sees one.

        Raises:
            ModelError, UsageError: as `build_backbone` and `load_network`; or the network takes
                no photos of this size.
            MismatchError: the fingerprint, or a model's preprocessing, is another one.
        """
        network, preprocessing, made = _load(backbone, preprocessing, model_backbone)
        if expect not in (None, made["fingerprint"]):
            raise MismatchError(
                f"`backbone` {made['backbone']} `weights` {made['weights']}: this worker has "
                f"weights {made['fingerprint'][:12]}, the job began with {expect and expect[:12]}. "
                f"Give every machine the same file, or put it where all can read it."
            )
        self._device = _choose_device(device)
        network = network.to(self._device)
        self._batch_size = batch_size or _BATCH_SIZE[self._device.type]
        self._halving = threading.Lock()
        self._of_thread = threading.local()
        self.preprocessing = preprocessing
        self._dim = self._probe(network, made["backbone"])
        self._network = QuickNetwork(
            network, precision=precision, is_own=is_own(made["backbone"]), num_photos=num_photos
        )
        self.spec = EmbeddingSpec(**made, dim=self._dim, dtype=dtype, normalised=True)

    @torch.inference_mode()
    def _probe(self, network: nn.Module, name: str) -> int:
        """Dimensions D of the features, from a black photo."""
        side = self.preprocessing.size
        photo = self._as_input(np.zeros((1, side, side, 3), np.uint8))
        try:
            return int(network(photo).shape[1])
        except RetrievalError:
            raise
        except Exception as error:  # somebody's own network may raise anything
            raise UsageError(
                f"`backbone` {name}: does not take photos of {side} × {side} pixels "
                f"({first_line(error)}). Choose another `image_size`."
            ) from error

    @property
    def manner(self) -> str:
        """In words, how the photos so far were embedded: precision and size of a batch."""
        return f"{self._network.manner}, batches of {self._batch_size}"

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
            UsageError: the GPU's memory does not suffice for one photo.
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
        parts, start = [np.empty((0, self._dim), np.float32)], 0
        while start < len(pixels):
            size = self._batch_size
            some = pixels[start : start + size]
            try:
                parts.append(self._forward(_filled_up(some, size))[: len(some)])
            except torch.OutOfMemoryError as error:
                self._halve(size, error)
            else:
                start += len(some)
        return np.concatenate(parts)

    def _forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._stream():
            features = self._network(self._as_input(batch))
            return features.cpu().numpy()

    def _stream(self) -> AbstractContextManager[None]:
        """Of each thread its own on a GPU: one copies its photos there while another computes."""
        if self._device.type == "cpu":
            return nullcontext()
        if not hasattr(self._of_thread, "stream"):
            torch.cuda.synchronize()  # the weights came by the default stream
            self._of_thread.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._of_thread.stream)

    def _halve(self, size: int, error: torch.OutOfMemoryError) -> None:
        """Go on with half the batch, unless another thread has seen to that."""
        if size == 1:
            raise UsageError(
                f"{self.spec.backbone}: the GPU's memory does not suffice for one photo of "
                f"{self.preprocessing.size} × {self.preprocessing.size} pixels "
                f"({first_line(error)}). Choose a smaller `image_size`, or fewer `num_actors`."
            ) from error
        with self._halving:
            if self._batch_size == size:
                self._batch_size = size // 2
        torch.cuda.empty_cache()  # blocks of the larger batch are of no use now

    def _as_input(self, batch: NDArray[np.uint8]) -> Tensor:
        return as_network_input(batch, self.preprocessing, self._device)


def _choose_device(device: str) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"`device` {device!r}: none of auto, cpu, cuda.")
    if device == "cuda" and not has_gpu:
        raise UsageError("`device` 'cuda': torch finds no GPU here. Use 'cpu' or 'auto'.")
    return torch.device("cuda" if has_gpu and device != "cpu" else "cpu")


def _filled_up(some: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Photos (n, S, S, 3) with black ones up to the given number."""
    if len(some) == size:
        return some
    batch = np.zeros((size, *some.shape[1:]), np.uint8)
    batch[: len(some)] = some
    return batch


def _load(
    backbone: BackboneSpec | ModelFolder,
    preprocessing: Preprocessing | Mapping[str, Any] | None,
    model_backbone: str | None,
) -> tuple[nn.Module, Preprocessing, dict[str, str]]:
    """The network, its input, and what the spec says of it: fingerprint, backbone, weights."""
    if isinstance(backbone, BackboneSpec):
        network = build_backbone(backbone)
        if not isinstance(preprocessing, Preprocessing):
            stated = {}
            if is_own(backbone.name):
                stated = stated_preprocessing(inner_network(network), backbone.name)
            preprocessing = choose_preprocessing(preprocessing or {}, stated)
        found = fingerprint(backbone, network, preprocessing)
        return (
            network,
            preprocessing,
            {"fingerprint": found, "backbone": backbone.name, "weights": backbone.weights},
        )
    own = backbone.preprocessing
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = replace(own, **(preprocessing or {}))
    if preprocessing != replace(own, decoder=preprocessing.decoder):
        raise MismatchError(
            f"{backbone.uri}: was trained with {own}, not with {preprocessing}. Make the pixels as "
            f"the model wants them."
        )
    network, found = load_network(backbone, model_backbone), backbone.fingerprint  # by its own
    if preprocessing != own:
        found = fingerprint(BackboneSpec(name=backbone.backbone), network, preprocessing)
    return (
        network,
        preprocessing,
        {"fingerprint": found, "backbone": backbone.backbone, "weights": backbone.uri},
    )
