"""Embeddings of a million crops of real photos, without a million forward passes.

A network's embedding of a photo is the mean of its last feature map. The mean over a window
of that map stands for the embedding of the crop under it (what R-MAC does for regions), and
one pass over a photo gives a thousand of them by an integral image. Each photo is also taken
mirrored, darker and with less contrast. Rows come photo by photo, as an index sorted by id
has them; queries are rows drawn at random and taken out of the gallery.

    python benchmarks/photo_vectors.py PHOTOS OUTPUT --backbone resnet18 --gallery 1000000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import nn

from retrieval.models.backbones import BackboneSpec, build_backbone, inner_network

_MIN_CELLS = 3  # sides of the smallest window: a crop of about 96 pixels


def variants(path: Path, short_side: int) -> Iterator[Image.Image]:
    """A photo and three augmentations of it."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scale = short_side / min(image.size)
    size = [min(32 * round(side * scale / 32), 2 * short_side) for side in image.size]
    image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    yield image
    yield ImageOps.mirror(image)
    yield ImageEnhance.Brightness(image).enhance(0.6)
    yield ImageEnhance.Contrast(image).enhance(0.6)


def windows(maps: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float16]:
    """Means over random windows of a feature map: (C, H, W) → (count, C), of length one."""
    _, height, width = maps.shape
    total = np.zeros((height + 1, width + 1, len(maps)))
    total[1:, 1:] = maps.transpose(1, 2, 0).astype(np.float64).cumsum(0).cumsum(1)
    tops, lefts = (rng.integers(0, side - _MIN_CELLS + 1, count) for side in (height, width))
    bottoms = rng.integers(tops + _MIN_CELLS, height + 1)
    rights = rng.integers(lefts + _MIN_CELLS, width + 1)
    sums = total[bottoms, rights] - total[tops, rights] - total[bottoms, lefts] + total[tops, lefts]
    return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float16)


def feature_maps(network: nn.Module) -> nn.Module:
    """The network up to its last feature map, without pooling and head."""
    return nn.Sequential(*list(inner_network(network).children())[:-2]).eval()


def main() -> None:
    """Write gallery.npy and queries.npy, float16 (N, D)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--short-side", type=int, default=320)
    args = parser.parse_args()
    network = feature_maps(build_backbone(BackboneSpec(name=args.backbone, weights=args.weights)))
    paths = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() == ".jpg")
    num_rows = args.gallery + args.queries
    rng = np.random.default_rng(0)
    ends = np.linspace(0, num_rows, 4 * len(paths) + 1).round().astype(int)
    counts = iter(np.diff(ends))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    parts = []
    with torch.inference_mode():
        for path in paths:
            for image in variants(path, args.short_side):
                pixels = (np.asarray(image, np.float32) / 255 - mean) / std
                batch = torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1)[None].copy())
                parts.append(windows(network(batch)[0].numpy(), next(counts), rng))
    rows = np.concatenate(parts)
    is_query = np.zeros(num_rows, bool)
    is_query[rng.choice(num_rows, args.queries, replace=False)] = True
    args.output.mkdir(parents=True, exist_ok=True)
    np.save(args.output / "queries.npy", rows[is_query])
    np.save(args.output / "gallery.npy", rows[~is_query])


if __name__ == "__main__":
    main()
