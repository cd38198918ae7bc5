"""Does training pay, and does augmentation? Retrieval of photos and buildings never trained on.

Every fifth class of PHOTOS is held out whole: unseen buildings. Of each other class three photos
are held out as queries. resnet18 learns from random weights on the rest, without augmentation
and with it, for the same number of steps; the untrained network is measured beside them. All by
the commands that a user would type:

    seen     the held-out photos are the queries, the photos trained on the gallery
    unseen   each photo of an unseen building against all others of them

    python benchmarks/holdout.py PHOTOS [--image-size 96] [--epochs 60] [--recipe light]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CLI = str(Path(sys.executable).with_name("retrieval-cli"))
QUERIES_PER_CLASS = 3


def share_out(photos: Path, folder: Path) -> None:
    """Link the photos into folder/train, folder/queries and folder/unseen."""
    for number, label in enumerate(sorted(path.name for path in photos.iterdir())):
        files = sorted((photos / label).iterdir())
        step = len(files) / QUERIES_PER_CLASS
        queries = {files[int(step * index)] for index in range(QUERIES_PER_CLASS)}
        for file in files:
            side = "queries" if file in queries else "train"
            if number % 5 == 4:
                side = "unseen"
            link = folder / side / label / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())


def command(*arguments: object) -> dict[str, Any]:
    """Run retrieval-cli; its report."""
    done = subprocess.run([CLI, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measure(folder: Path, name: str, network: Sequence[object]) -> dict[str, dict[str, Any]]:
    """Figures of one network on both tasks."""
    at = folder / name
    for side in ("train", "queries", "unseen"):
        command("embed", folder / side, at / side, "--follow-links", *network)
    figures = {}
    for task, queries, gallery, options in (
        ("seen", "queries", "train", ()),
        ("unseen", "unseen", "unseen", ("--exclude-self",)),
    ):
        ranking = at / f"ranking-{task}"
        command("rank", at / queries, at / gallery, ranking, "--top-k", "all", *options)
        figures[task] = command(
            "evaluate", ranking, "--queries", at / queries, "--gallery", at / gallery
        )
    return figures


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--image-size", default="96")
    parser.add_argument("--epochs", default="60")
    parser.add_argument("--recipe", default="light")
    parser.add_argument("--learning-rate", default="0.001")
    parser.add_argument("--output", type=Path, help="Keep everything there.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report(args, args.output or Path(scratch))


def report(args: argparse.Namespace, folder: Path) -> None:
    """Train, measure, print."""
    share_out(args.photos, folder)
    untrained = ["--backbone", "resnet18", "--weights", "none", "--image-size", args.image_size]
    rows = {"untrained": (measure(folder, "untrained", untrained), None, 0.0)}
    settings = ["--follow-links", "--mode", "from-scratch", "--image-size", args.image_size]
    settings += ["--epochs", args.epochs, "--learning-rate", args.learning_rate]
    for name, recipe in (("plain photos", "none"), (f"recipe {args.recipe}", args.recipe)):
        model, start = folder / f"model-{recipe}", time.monotonic()
        trained = command("train", folder / "train", model, *settings, "--recipe", recipe)
        seconds = time.monotonic() - start
        rows[name] = (measure(folder, recipe, ["--model", model]), trained, seconds)
    print(f"# Photos and buildings held out, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"resnet18 from random weights, {args.image_size} pixels, {args.epochs} epochs, Adam")
    print(f"{args.learning_rate}, batches of 32; {os.cpu_count()} cores, no GPU, Python")
    print(f"{platform.python_version()}. The best epoch by retrieval among a fifth of the training")
    print("photos, which were held back for that.\n")
    print("| network | task | queries × gallery | top-1 | top-3 | top-10 | mAP | best epoch | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (figures, trained, seconds) in rows.items():
        best = trained["best"]["epoch"] if trained else "–"
        for task, found in figures.items():
            print(
                f"| {name} | {task} | {found['num_queries']} × {found['num_gallery']} | "
                f"{found['top_1']:.3f} | {found['top_3']:.3f} | {found['top_10']:.3f} | "
                f"{found['map']:.3f} | {best} | {seconds:.0f} |"
            )


if __name__ == "__main__":
    main()
