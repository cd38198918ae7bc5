"""What does Ray cost a training? Seconds a step, against a plain PyTorch loop.

Both train resnet18 from random weights on the same photos with the same batch size, image size,
optimizer and layout of memory; both decode with the library's own decoder: the plain loop in
the worker processes of a DataLoader, `retrieval-cli train` in tasks of Ray Data. The runs
alternate. The first epoch of each is left out: there processes start and caches fill.

    python benchmarks/train_step.py PHOTOS [--image-size 112] [--batch-size 32] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

BIN = Path(sys.executable).parent


def plain_loop(args: argparse.Namespace, rows: list[tuple[str, int]], num_classes: int) -> float:
    """Median over epochs of seconds a step, of the loop that everybody writes."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
    from torchvision.models import resnet18

    from retrieval.images import Preprocessing, decode_image

    preprocessing = Preprocessing(size=args.image_size)

    class Photos(Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            pixels = decode_image(Path(rows[row][0]).read_bytes(), preprocessing).pixels
            return torch.from_numpy(pixels), rows[row][1]

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    network = resnet18()
    network.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(512, num_classes))
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    loader = DataLoader(
        Photos(), args.batch_size, shuffle=True, drop_last=True, num_workers=2,
        persistent_workers=True,
    )  # fmt: skip
    seconds = []
    for _ in range(args.epochs):
        start = time.perf_counter()
        for pixels, labels in loader:
            images = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
            images = images.contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # shown on the progress bar
        seconds.append((time.perf_counter() - start) / len(loader))
    return statistics.median(seconds[1:])


def our_command(args: argparse.Namespace, model: Path) -> tuple[list[dict[str, float]], float]:
    """Records of the epochs, and seconds of the whole command."""
    command = [str(BIN / "retrieval-cli"), "train", args.photos, str(model)]
    command += ["--mode", "from-scratch", "--epochs", str(args.epochs)]
    command += ["--image-size", str(args.image_size), "--batch-size", str(args.batch_size)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    lines = (model / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], seconds


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain:
        rows = [tuple(row) for row in json.loads(Path(args.plain).read_text())]
        print(plain_loop(args, rows, len({label for _, label in rows})))
        return
    print(f"# A step of train, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"resnet18 from scratch, {args.image_size} pixels, batches of {args.batch_size},")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}.\n")
    print("| round | plain loop, s a step | train, s a step | ratio | of it waiting | command, s |")
    print("|---|---|---|---|---|---|")
    ratios = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            records, seconds = our_command(args, Path(scratch, "model"))
            plain = run_plain(args, Path(scratch))
        ours = statistics.median(record["train_s"] / record["num_steps"] for record in records[1:])
        wait = statistics.median(record["wait_s"] / record["train_s"] for record in records[1:])
        ratios.append(ours / plain)
        print(
            f"| {number + 1} | {plain:.3f} | {ours:.3f} | {ratios[-1]:.2f} | {wait:.0%} | "
            f"{seconds:.0f} |",
            flush=True,
        )
    print(f"\nMedian of the ratios: {statistics.median(ratios):.2f}.")


def run_plain(args: argparse.Namespace, scratch: Path) -> float:
    """The plain loop in a process of its own, over the photos that `train` trained on."""
    import pyarrow.parquet as pq

    table = pq.read_table(scratch / "model" / "split.parquet").to_pylist()
    labels = sorted({row["label"] for row in table})
    rows = [(row["uri"], labels.index(row["label"])) for row in table if row["side"] == "training"]
    listed = scratch / "rows.json"
    listed.write_text(json.dumps(rows))
    command = [sys.executable, __file__, args.photos, "--plain", str(listed)]
    for name in ("image_size", "batch_size", "epochs"):
        command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
