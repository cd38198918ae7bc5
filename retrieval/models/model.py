"""A network that is called with images: the same pixels and embeddings as those of an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import ImageError, UsageError
from retrieval.images import Preprocessing, decode_image, image_pixels
from retrieval.images.fetch import fetch_photo
from retrieval.models.backbones import BACKBONES, BackboneSpec
from retrieval.models.embedder import Embedder
from retrieval.models.folder import open_model
from retrieval.models.own_networks import is_own
from retrieval.settings import COUNT, MANY, SIDE, Range
from retrieval.storage import absolute_uri

__all__ = ["Encodable", "Model", "load_model"]

Encodable = Image.Image | NDArray[np.uint8] | bytes | str | os.PathLike[str]

_AT_ONCE = 256  # images whose pixels are in memory together: 39 MB at 224 × 224


class Model:
    """A network without its head, its preprocessing and its weights.

    Attributes:
        spec: Name, weights, fingerprint, dimensions and type of its embeddings.
        preprocessing: How pixels are made for it.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.spec: EmbeddingSpec = embedder.spec
        self.preprocessing: Preprocessing = embedder.preprocessing

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"Model({spec.backbone!r}, weights={spec.weights!r}, {spec.dim} dimensions, "
            f"{self.preprocessing.size} pixels, fingerprint {spec.fingerprint[:12]})"
        )

    def encode(
        self, images: Encodable | Sequence[Encodable], *, batch_size: int | None = None
    ) -> NDArray[Any]:
        """Embed images, as `retrieval-cli embed` does.

        Args:
            images: Each a Pillow image, an array uint8 (H, W, 3) RGB or (H, W) grey, the bytes of
                an image file, or a path or address of one. One alone is taken for a list of it.
            batch_size: Images that are decoded before they pass through the network; by default
                256. It changes memory, not the embeddings.

        Returns:
            (N, D) of the type of `spec.dtype`, each row of length 1 before rounding to it; a row
            is zero where the network gives no direction.

        Raises:
            UsageError: an image is of another type or shape.
            ImageError: one cannot be read; the message says which, the attribute `reason` why.
            ModelError: the network gives features that are not finite.

        Cost: one forward pass an image, on all cores for a batch; decoding is one after the other.
        """
        _check("batch_size", batch_size, MANY)
        if isinstance(images, Image.Image | bytes | str | os.PathLike) or _is_one_array(images):
            images = [images]  # type: ignore[list-item]
        step = batch_size or _AT_ONCE
        parts = [np.empty((0, self.spec.dim), self.spec.dtype)]
        for start in range(0, len(images), step):
            some = [
                self._pixels(image, start + number)
                for number, image in enumerate(images[start : start + step])
            ]
            parts.append(self._embedder.embed(np.stack(some)))
        return np.concatenate(parts)

    def _pixels(self, image: Encodable, number: int) -> NDArray[np.uint8]:
        try:
            if isinstance(image, Image.Image):
                return image_pixels(image, self.preprocessing)
            if isinstance(image, np.ndarray):
                return image_pixels(_as_image(image, number), self.preprocessing)
            return decode_image(_content(image, number), self.preprocessing).pixels
        except ImageError as error:
            name = f" ({os.fspath(image)})" if isinstance(image, str | os.PathLike) else ""
            raise ImageError(error.reason, f"image {number}{name}: {error.message}") from error


def load_model(  # noqa: PLR0913 - what may be said of a network, by name
    model: str | os.PathLike[str],
    *,
    weights: str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    decoder: int | None = None,
    seed: int = 0,
    dtype: str = "float16",
    precision: str = "auto",
    device: str = "auto",
) -> Model:
    """Load a network for `Model.encode`.

    Args:
        model: A folder that `retrieval-cli train` has made, one of
            `retrieval.models.backbones.BACKBONES` (such as "resnet18"), or
            "package.module:function" for a network of one's own.
        weights: "imagenet" (torchvision's, from its cache or downloaded), "none" (random), or a
            .safetensors or .pth state dict; by default imagenet, of one's own network what it has.
        backbone: "package.module:function" where a folder's network is that of a function: no
            file has its code run alone.
        image_size: Side of the square in pixels; by default the network's own, or 224.
        mean: Of red, green, blue on the scale [0, 1]; by default the network's or ImageNet's.
        std: Deviation, alike.
        decoder: Version of the rules by which files become pixels; by default the model's, or 1.
        seed: Of random weights.
        dtype: Type of a component, "float16" or "float32".
        precision: In which the network computes: "auto", "float32", "bfloat16", "float16".
        device: "cpu", "cuda", or "auto".

    Raises:
        UsageError: no such network, or a setting that a model's folder decides.
        ModelError: weights that do not fit, or a damaged folder.
    """
    name = os.fspath(model)
    _check("image_size", image_size, SIDE)
    _check("decoder", decoder, COUNT)
    if dtype not in ("float16", "float32"):
        raise UsageError(f"`dtype` {dtype!r}: float16 or float32 is needed.")
    settings: dict[str, Any] = {"dtype": dtype, "precision": precision, "device": device}
    given = {"size": image_size, "mean": mean, "std": std, "decoder": decoder}
    given = {key: value for key, value in given.items() if value is not None}
    if _is_network(name):
        spec = BackboneSpec(name=name, weights=weights or "", seed=seed)
        return Model(Embedder(spec, given, **settings))
    decided = {"weights": weights, "image_size": image_size, "mean": mean, "std": std}
    for key, value in decided.items():
        if value is not None:
            raise UsageError(f"`{key}` {value}: the folder {name} decides it. Leave it out.")
    folder = open_model(name)
    made = {"decoder": decoder or folder.preprocessing.decoder}
    return Model(Embedder(folder, made, model_backbone=backbone, **settings))


def _is_network(name: str) -> bool:
    return name in BACKBONES or (is_own(name) and "://" not in name)


def _check(name: str, value: int | None, needed: Range) -> None:
    if value is not None and not needed.holds(value):
        raise UsageError(f"`{name}` {value!r}: {needed} is needed.")


def _is_one_array(images: object) -> bool:
    return isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype == np.uint8


def _as_image(array: NDArray[Any], number: int) -> Image.Image:
    is_rgb = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or not (is_rgb or array.ndim == 2) or not array.size:
        raise UsageError(
            f"image {number}: an array of {array.dtype} {array.shape}; uint8 (height, width, 3) in "
            f"RGB, or (height, width) in grey, is needed."
        )
    return Image.fromarray(array)


def _content(image: object, number: int) -> bytes:
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | os.PathLike):
        raise UsageError(
            f"image {number}: a {type(image).__name__}; a Pillow image, a uint8 array, bytes of a "
            f"file, or a path is needed."
        )
    found = fetch_photo(absolute_uri(os.fspath(image)))
    if isinstance(found, ImageError):
        raise found
    return found
