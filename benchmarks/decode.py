"""Which decoder should make the pixels that a network sees?

Candidates turn each JPEG file, in memory already, into a square of pixels, on one thread and in
turns. The report says how fast each is, how far its pixels are from those of Pillow at full
size, and how far the embeddings are; the latter also after the mean embedding was subtracted,
which is stricter, because all embeddings of a network have much in common.

    python benchmarks/decode.py PHOTOS [--model MODEL] [--rounds 5] [--photos N]

MODEL is a folder that `retrieval-cli train` made; without it a resnet18 with random weights
embeds. Photos that lie on their side by EXIF and those that are not RGB or grey are left out,
since only ours turns and converts all of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from retrieval.images import Preprocessing, decode_image
from retrieval.models.backbones import BackboneSpec
from retrieval.models.embedder import Embedder
from retrieval.models.folder import open_model

Pixels = NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg")
Decoder = Callable[[bytes, int], Pixels]


def pillow_full(data: bytes, side: int) -> Pixels:
    """The reference: the whole photo, then one resize."""
    image = Image.open(BytesIO(data)).convert("RGB")
    return np.array(image.resize((side, side), Image.Resampling.BILINEAR))


def ours(data: bytes, side: int) -> Pixels:
    """What `embed` does."""
    return decode_image(data, Preprocessing(size=side)).pixels


def turbo(data: bytes, side: int, oversampling: int, fast: bool) -> Pixels:
    """libjpeg-turbo at the smallest n/8 of its size that is some times the target."""
    least = {"min_height": oversampling * side, "min_width": oversampling * side}
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    if min(height, width) < oversampling * side:
        least = {}
    return simplejpeg.decode_jpeg(data, fastdct=fast, fastupsample=fast, strict=False, **least)


def turbo_pillow(data: bytes, side: int, oversampling: int = 2, fast: bool = False) -> Pixels:
    """Then Pillow; `box` leaves out what a fraction of a pixel at the edge was filled with."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    pixels = turbo(data, side, oversampling, fast)
    eighths = (
        max(1, round(8 * pixels.shape[1] / width)),
        max(1, round(8 * pixels.shape[0] / height)),
    )
    box = (0, 0, width * eighths[0] / 8, height * eighths[1] / 8)
    image = Image.fromarray(pixels)
    return np.array(image.resize((side, side), Image.Resampling.BILINEAR, box=box))


def turbo_area(data: bytes, side: int, oversampling: int = 2, fast: bool = False) -> Pixels:
    """Then OpenCV, which averages areas."""
    return cv2.resize(
        turbo(data, side, oversampling, fast), (side, side), None, 0, 0, cv2.INTER_AREA
    )


def turbo_torch(data: bytes, side: int, oversampling: int = 2, fast: bool = False) -> Pixels:
    """Then torch, which a decoding process would have to load."""
    pixels = torch.from_numpy(turbo(data, side, oversampling, fast)).permute(2, 0, 1)[None]
    square = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return square[0].permute(1, 2, 0).contiguous().numpy()


def opencv(data: bytes, side: int) -> Pixels:
    """OpenCV alone, at full size."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(pixels, (side, side), None, 0, 0, cv2.INTER_AREA)


def torchvision_io(data: bytes, side: int) -> Pixels:
    """What torchvision brings: decoder and resize, at full size."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2.functional import resize

    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    return resize(pixels, [side, side], antialias=True).permute(1, 2, 0).contiguous().numpy()


def candidates() -> dict[str, Decoder]:
    """By their names in the report; the reference first."""
    found: dict[str, Decoder] = {
        "Pillow, full size": pillow_full,
        "ours: Pillow, draft ≥ 2×": ours,
    }
    resizes = {"Pillow bilinear": turbo_pillow, "torch bilinear": turbo_torch}
    for name, resize in {**resizes, "OpenCV area": turbo_area}.items():
        for oversampling in (2, 1):
            title = f"simplejpeg ≥ {oversampling}×, {name}"
            found[title] = partial(resize, oversampling=oversampling)
            found[f"{title}, fast"] = partial(resize, oversampling=oversampling, fast=True)
    found["OpenCV, full size, area"] = opencv
    try:
        from torchvision.io import decode_jpeg  # noqa: F401 - is being retired
    except ImportError:
        return found
    return {**found, "torchvision.io, full size": torchvision_io}


def is_plain(data: bytes) -> bool:
    """A JPEG in RGB or grey that lies as it is seen."""
    image = Image.open(BytesIO(data))
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1


def measure(photos: list[bytes], side: int, rounds: int) -> dict[str, list[float]]:
    """Photos/s of each candidate and round; they take turns, from another one in each round."""
    rates: dict[str, list[float]] = {name: [] for name in candidates()}
    order = list(candidates().items())
    for number in range(rounds):
        for name, decode in order[number % len(order) :] + order[: number % len(order)]:
            decode(photos[0], side)
            begin = time.perf_counter()
            for data in photos:
                decode(data, side)
            rates[name].append(len(photos) / (time.perf_counter() - begin))
    return rates


def make_embedder(model: str | None) -> tuple[Embedder, Preprocessing]:
    """In float32, since it is the decoder that is looked at."""
    if model:
        folder = open_model(model)
        return Embedder(
            folder, folder.preprocessing, dtype="float32", precision="float32"
        ), folder.preprocessing
    spec = BackboneSpec(name="resnet18", weights="none")
    return Embedder(spec, Preprocessing(), dtype="float32", precision="float32"), Preprocessing()


def pixel_cells(pixels: Pixels, reference: Pixels) -> list[str]:
    """Absolute differences of 255: mean, mean of the worst photo, worst value."""
    differences = np.abs(pixels.astype(np.int16) - reference)
    means = differences.mean(axis=(1, 2, 3))
    return [f"{means.mean():.2f}", f"{means.max():.2f}", str(differences.max())]


def cosine_cells(rows: NDArray[np.float64], reference: NDArray[np.float64]) -> list[str]:
    """Lowest and mean cosine, as the embeddings are and without the mean of the reference's."""
    cells = []
    for mean in (0, reference.mean(axis=0)):
        a, b = rows - mean, reference - mean
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        cells += [f"{cosines.min():.5f}", f"{cosines.mean():.5f}"]
    return cells


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="PHOTOS")
    parser.add_argument("--model", help="Folder of a trained model.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=int, help="Of all, spread evenly.")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    embedder, preprocessing = make_embedder(args.model)
    side = preprocessing.size
    files = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    files = files[:: max(1, len(files) // (args.photos or len(files)))][: args.photos]
    contents = [file.read_bytes() for file in files]
    photos = [data for data in contents if is_plain(data)]
    sizes = [Image.open(BytesIO(data)).size for data in photos]
    megapixels = statistics.median(width * height for width, height in sizes) / 1e6
    packages = ("pillow", "simplejpeg", "opencv-python-headless", "torchvision")
    print(f"# Decoding JPEG, {datetime.now(UTC):%Y-%m-%d}\n")
    print(
        f"{len(photos)} photos (median {megapixels:.2f} megapixels; {len(files) - len(photos)} left"
    )
    print(f"out) to {side} × {side} pixels, one thread, files in memory; embedded by")
    print(f"{embedder.spec.backbone} ({'trained' if args.model else 'random weights'}) in float32.")
    print(f"Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in packages) + ".\n")
    print("| decoder | photos/s | ÷ ours | mean difference of 255 | worst photo | worst value "
          "| lowest cosine | mean | lowest, centred | mean, centred |")  # fmt: skip
    print("|---" * 10 + "|")
    rates = measure(photos, side, args.rounds)
    for line in lines(rates, photos, embedder, side):
        print(line, flush=True)


def lines(
    rates: dict[str, list[float]], photos: list[bytes], embedder: Embedder, side: int
) -> list[str]:
    """The rows of the table."""
    reference = np.stack([pillow_full(data, side) for data in photos])
    wanted = embedder.embed(reference).astype(np.float64)
    table = []
    for name, decode in candidates().items():
        pixels = np.stack([decode(data, side) for data in photos])
        middle, low, high = statistics.median(rates[name]), min(rates[name]), max(rates[name])
        pairs = zip(rates[name], rates["ours: Pillow, draft ≥ 2×"], strict=True)
        ratio = statistics.median(theirs / mine for theirs, mine in pairs)
        cells = [name, f"{middle:.0f} ({low:.0f} – {high:.0f})", f"{ratio:.2f}"]
        cells += pixel_cells(pixels, reference)
        cells += cosine_cells(embedder.embed(pixels).astype(np.float64), wanted)
        table.append("| " + " | ".join(cells) + " |")
    return table


if __name__ == "__main__":
    main()
