"""What does `--mode last-layer` change, if the head is cut off before embedding?

A network trained on other buildings is trained further on the classes of PHOTOS, the head alone,
with the statistics of batch normalisation following the photos and with them frozen. Each photo is
then a query against all others, which shows what the features have become.

    python benchmarks/last_layer.py PHOTOS WEIGHTS [--image-size 64] [--epochs 5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CLI = str(Path(sys.executable).with_name("retrieval-cli"))


def command(*arguments: object) -> dict[str, Any]:
    """Run retrieval-cli; its report."""
    done = subprocess.run([CLI, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measure(photos: str, folder: Path, network: list[object]) -> dict[str, Any]:
    """Figures of a network, each photo against all others."""
    index, ranking = folder / "index", folder / "ranking"
    embedded = command("embed", photos, index, *network)
    command("rank", index, index, ranking, "--top-k", "all", "--exclude-self")
    figures = command("evaluate", ranking, "--queries", index, "--gallery", index)
    return {**figures, "fingerprint": embedded["model"]["fingerprint"]}


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("weights")
    parser.add_argument("--image-size", default="64")
    parser.add_argument("--epochs", default="5")
    args = parser.parse_args()
    start = ["--backbone", "resnet18", "--weights", args.weights, "--image-size", args.image_size]
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        rows["before"] = measure(args.photos, Path(scratch, "before"), start)
        for batch_norm in ("train", "frozen"):
            model = Path(scratch, f"model-{batch_norm}")
            options = ["--mode", "last-layer", "--batch-norm", batch_norm, "--epochs", args.epochs]
            command("train", args.photos, model, *start, *options)
            name = f"last-layer, statistics {'follow' if batch_norm == 'train' else 'frozen'}"
            rows[name] = measure(args.photos, Path(scratch, batch_norm), ["--model", model])
    print(f"# The last layer alone, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"resnet18, {args.image_size} pixels, {args.epochs} epochs, defaults else.\n")
    print("| network | fingerprint | queries | top-1 | top-3 | top-10 | mAP |")
    print("|---|---|---|---|---|---|---|")
    for name, found in rows.items():
        print(
            f"| {name} | {found['fingerprint'][:12]} | {found['num_queries']} | "
            f"{found['top_1']:.3f} | {found['top_3']:.3f} | {found['top_10']:.3f} | "
            f"{found['map']:.3f} |"
        )


if __name__ == "__main__":
    main()
