"""What does half precision change in the embeddings of a trained network, and in their ranking?

Embeds photos in class folders twice with one model, in float32 and in what `--precision auto`
takes on this machine, and compares: each photo's two embeddings, as they are and after the mean
embedding was subtracted (which is stricter, because all have much in common), and how well each
photo finds the others of its class.

    python benchmarks/precision.py PHOTOS MODEL
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile

import numpy as np
from numpy.typing import NDArray

import retrieval

EMBED = [sys.executable, "-c", "from pipelines.cli import main; main()", "embed"]
Vectors = NDArray[np.float64]


def embed(photos: str, model: str, precision: str, index: str) -> tuple[str, Vectors, list[str]]:
    """How the network computed, the embeddings by id, and their labels."""
    command = [*EMBED, photos, index, "--model", model, "--precision", precision]
    command += ["--dtype", "float32"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    rows = retrieval.read_index(index)
    order = np.argsort(rows.ids)
    labels = [rows.labels[row] for row in order]
    manner = ", ".join(json.loads(done.stdout)["precision"])
    return manner, rows.embeddings[order].astype(np.float64), labels


def lowest_cosine(ours: Vectors, theirs: Vectors) -> float:
    """Of a photo's two embeddings."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


def neighbours(vectors: Vectors) -> NDArray[np.intp]:
    """All others of each photo, nearest first."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :-1]


def accuracy(near: NDArray[np.intp], labels: list[str]) -> dict[str, float]:
    """Top-1, top-10 and mAP among all others."""
    names = np.array(labels)
    hits = names[near] == names[:, None]
    found = hits.cumsum(axis=1)
    precisions = np.where(hits, found / np.arange(1, hits.shape[1] + 1), 0).sum(axis=1)
    has_others = hits.any(axis=1)
    return {
        "top-1": float(hits[:, 0].mean()),
        "top-10": float(hits[:, :10].any(axis=1).mean()),
        "mAP": float((precisions[has_others] / found[has_others, -1]).mean()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", metavar="PHOTOS")
    parser.add_argument("model", metavar="MODEL")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _, full, labels = embed(args.photos, args.model, "float32", f"{folder}/float32")
        manner, half, _ = embed(args.photos, args.model, "auto", f"{folder}/auto")
    mean = full.mean(axis=0)
    print(f"{len(full)} photos; {manner} against float32\n")
    print(f"lowest cosine {lowest_cosine(full, half):.5f}, ", end="")
    print(f"after subtracting the mean {lowest_cosine(full - mean, half - mean):.5f}")
    near = [neighbours(vectors) for vectors in (full, half)]
    print("\n| | top-1 | top-10 | mAP |\n|---|---|---|---|")
    for name, order in zip(("float32", manner), near, strict=True):
        print(f"| {name} |", " | ".join(f"{v:.4f}" for v in accuracy(order, labels).values()), "|")
    same = (near[0][:, 0] == near[1][:, 0]).mean()
    tens = zip(near[0][:, :10], near[1][:, :10], strict=True)
    among = np.mean([len(np.intersect1d(ours, theirs)) / 10 for ours, theirs in tens])
    print(f"\nThe same nearest photo: {same:.3f}; the same of the ten nearest: {among:.3f}")


if __name__ == "__main__":
    main()
