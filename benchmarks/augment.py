"""How much faster is `augment` than a plain loop over the same filters?

The plain loop is what one writes first: one process that for each result reads a photo, decodes
it at full size, applies one technique of the catalogue, encodes a JPEG and writes it. It makes
a random sample of the results that `augment` plans; OpenCV may use all cores in it, as is
its default. A second loop reduces each photo to 256 pixels before, as `augment` does: so one
sees how much comes from that, and how much from decoding once and from all cores. `augment` runs
as a command, with a Ray of its own, and makes all results. They take turns, on the same photos.

    python benchmarks/augment.py PHOTOS [--per-class 600] [--runs 3] [--sample 500]

PHOTOS has one folder a class.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2

from retrieval.augmentations.registry import CATALOGUE, random_generator
from retrieval.augmentations.shares import share_out

QUALITY = 90


def planned_results(photos: Path, per_class: int) -> list[tuple[Path, str]]:
    """Photo and technique of each result that a class needs, as `augment` plans them."""
    names, planned = list(CATALOGUE), []
    for folder in sorted(path for path in photos.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for file, share in zip(files, share_out(len(files), per_class, len(names)), strict=True):
            turns = range(share.first, share.first + share.count)
            planned += [(file, names[turn % len(names)]) for turn in turns]
    return planned


def plain_loop(results: list[tuple[Path, str]], output: Path, size: int | None) -> float:
    """Make results one after the other; returns results per second.

    Args:
        results: Photos and techniques.
        output: A folder.
        size: Shorter side to which a larger photo is reduced before; None leaves it.
    """
    start = time.monotonic()
    for number, (file, name) in enumerate(results):
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        if size and min(image.shape[:2]) > size:
            scale = size / min(image.shape[:2])
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        technique = CATALOGUE[name]
        rng = random_generator(0, str(file), name, number)
        result = technique.apply(image, rng, technique.draw(rng))
        target = output / file.parent.name / f"{file.name}.{name}-{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        cv2.imwrite(str(target), cv2.cvtColor(result, cv2.COLOR_RGB2BGR), settings)
    return len(results) / (time.monotonic() - start)


def run_augment(photos: Path, output: Path, per_class: int) -> tuple[dict[str, Any], float]:
    """Run the command; returns its report and the seconds of the whole."""
    command = [Path(sys.executable).with_name("retrieval-cli"), "augment", photos, output]
    options = ["--per-class", str(per_class), "--quality", str(QUALITY)]
    start = time.monotonic()
    done = subprocess.run([*map(str, command), *options], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), time.monotonic() - start


def measure(args: argparse.Namespace) -> list[tuple[float, float, dict[str, Any], float]]:
    """Results per second of both loops, report and seconds of `augment`, run by run."""
    planned = planned_results(args.photos, args.per_class)
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(args.runs):
            sample = random.Random(number).sample(planned, min(args.sample, len(planned)))
            whole = plain_loop(sample, Path(scratch, "loop"), None)
            reduced = plain_loop(sample, Path(scratch, "reduced"), 256)
            report, seconds = run_augment(args.photos, Path(scratch, "augment"), args.per_class)
            runs.append((whole, reduced, report, seconds))
            for name in ("loop", "reduced", "augment"):
                shutil.rmtree(Path(scratch, name))
    return runs


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--per-class", type=int, default=600)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sample", type=int, default=500)
    args = parser.parse_args()
    runs = measure(args)
    reports = [report for *_, report, _ in runs]
    report = reports[0]
    print(f"# augment against a plain loop, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{report['num_originals']} photos of {report['num_classes']} classes, multiplied to")
    print(f"{args.per_class} images a class ({report['num_augmented']} results), recipe paper;")
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, OpenCV {cv2.__version__}.\n"
    )
    loop, reduced = ([run[column] for run in runs] for column in (0, 1))
    work = [found["images_per_s"] for found in reports]
    whole = [count_images(found) / seconds for *_, found, seconds in runs]
    print("| images/s | smallest | median | largest |\n|---|---|---|---|")
    print_row("plain loop, full size", loop)
    print_row("plain loop, reduced to 256", reduced)
    print_row("augment: the work itself", work)
    print_row("augment: the whole command", whole)
    print("\n| ratio | smallest | median | largest |\n|---|---|---|---|")
    print_row("**work to loop at full size**", ratios(work, loop))
    print_row("whole command to loop at full size", ratios(whole, loop))
    print_row("work to loop reduced to 256", ratios(work, reduced))
    print("\n| seconds of augment | smallest | median | largest |\n|---|---|---|---|")
    for step in report["seconds"]:
        print_row(step, [found["seconds"][step] for found in reports])
    print_row("whole command", [seconds for *_, seconds in runs])


def ratios(ones: list[float], others: list[float]) -> list[float]:
    """Run by run."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def count_images(report: dict[str, Any]) -> int:
    """Images that a run has written."""
    return report["num_originals"] + report["num_augmented"]


def print_row(name: str, values: list[float]) -> None:
    """One row of a table."""
    figures = (min(values), statistics.median(values), max(values))
    print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in figures) + " |")


if __name__ == "__main__":
    main()
