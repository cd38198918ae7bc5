"""How fast are photos embedded, from JPEG files on disk to embeddings on disk?

Links the photos of a folder until there are enough, and lets the contenders embed them in turns,
each in a process of its own and with the same weights: ours, the usual script, Ray Data's own
example, OpenVINO fed by our decoder. Measures in the same rounds each of our stages alone, and
so the ceiling that they set. Prints a line of JSON a run to stderr, and the report at the end.

    python benchmarks/embed.py PHOTOS [--photos 5000] [--backbones resnet18,resnet50]
        [--rounds 3] [--contenders ours,script] [--output DIR] [--picture FILE.png]
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from embed_contenders import CONTENDERS
from embed_report import OURS, Row, draw, report
from numpy.typing import NDArray

ALL = (*OURS, *CONTENDERS)
EMBED = [sys.executable, "-c", "from pipelines.cli import main; main()", "embed"]


def link_photos(photos: Path, folder: Path, count: int) -> Path:
    """Link as many JPEG files into a folder, classes kept: each photo again and again, or some."""
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        sys.exit(f"{photos}: no JPEG file found.")
    spread = found[:: max(1, len(found) // count)]
    for number, file in enumerate(itertools.islice(itertools.cycle(spread), count)):
        name = f"{number // len(spread):03}-{file.name}"
        target = folder / file.relative_to(photos).with_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())
        target.read_bytes()  # all find them in the page cache
    return folder


def save_weights(backbone: str, scratch: Path) -> Path:
    """Random weights of seed 0, in a process of its own: this one stays small."""
    file = scratch / f"{backbone}.safetensors"
    code = (
        "import sys; from safetensors.torch import save_file;"
        "from retrieval.models.backbones import BackboneSpec, build_backbone;"
        "network = build_backbone(BackboneSpec(name=sys.argv[1], weights='none'));"
        "save_file(network.state_dict(), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, backbone, str(file)], check=True)
    return file


def run(command: Sequence[str], log: Path) -> Row:
    """Run a command; returns the JSON that it prints, or an error's text."""
    with log.open("wb") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, check=False)
    if done.returncode:
        return {"error": log.read_text(errors="replace")[-2000:]}
    text = done.stdout.decode()
    return json.loads(text if text.startswith("{") else text.splitlines()[-1])


def run_contender(name: str, job: Row, scratch: Path) -> Row:
    """One run of one contender, in figures that can be compared."""
    output = Path(job["output"])
    if name in OURS:
        command = [*EMBED, job["photos"], str(output), "--follow-links"]
        command += ["--backbone", job["backbone"], "--weights", job["weights"]]
        command += ["--precision", "float32"] if name == "ours-f32" else []
    else:
        job = {**job, "contender": name, "begun": time.monotonic()}
        command = [sys.executable, str(Path(__file__).with_name("embed_contenders.py"))]
        command += [json.dumps(job)]
    row = run(command, scratch / "stderr.txt")
    if name in OURS and "error" not in row:
        row = figures_of(row)
    if "photos" in row:
        row["whole_per_s"] = row["photos"] / (row["seconds"] + row["start_s"])
    return row


def figures_of(report: Row) -> Row:
    """What counts of the report of `retrieval-cli embed`."""
    seconds, rejected = report["seconds"], report["num_rejected"]
    row = {"photos": report["num_listed"], "seconds": seconds["embed"]}
    row |= {"photos_per_s": report["num_listed"] / seconds["embed"]}
    row |= {"start_s": round(seconds["start_ray"] + seconds["load_model"], 2)}
    row |= {"stages": report["stages"], "precision": ", ".join(report["precision"])}
    row |= {"ready_per_s": row["photos"] / (row["seconds"] - report["stages"]["start_s"])}
    return row | ({"rejected": rejected} if rejected else {})


def read_embeddings(name: str, job: Row) -> dict[str, NDArray[np.float64]]:
    """Embeddings that a contender wrote, of 200 photos spread over all, by image id."""
    output = Path(job["output"])
    if name in OURS:
        import retrieval

        rows = retrieval.read_index(str(output))
        ids, vectors = rows.ids, rows.embeddings
    elif name.startswith("ray-data"):
        import pyarrow.parquet as pq

        table = pq.read_table(output)
        column = table["embedding"].combine_chunks()
        ids = [str(Path(path).relative_to(job["photos"])) for path in table["path"].to_pylist()]
        flat = getattr(column, "storage", column).flatten()
        vectors = flat.to_numpy(zero_copy_only=False).reshape(len(ids), -1)
    else:
        ids = json.loads((output / "names.json").read_text())
        vectors = np.load(output / "embeddings.npy")
    some = sorted(zip(ids, range(len(ids)), strict=True))[:: max(1, len(ids) // 200)]
    return {image_id: vectors[row].astype(np.float64) for image_id, row in some}


def lowest_cosines(ours: dict[str, Any], theirs: dict[str, Any]) -> list[float]:
    """Over the photos compared: as they are, and without ours' mean, which tells photos apart."""
    if ours.keys() != theirs.keys():
        sys.exit("The contenders did not embed the same photos.")
    a, b = (np.stack([rows[image_id] for image_id in ours]) for rows in (ours, theirs))
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    mean = a.mean(axis=0)
    found = []
    for x, y in ((a, b), (a - mean, b - mean)):
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        found.append(float(((x * y).sum(axis=1) / lengths).min()))
    return found


def run_rounds(args: argparse.Namespace, backbone: str, photos: Path, scratch: Path) -> list[Row]:
    """All runs with one network, in turns; the first round's embeddings are compared."""
    job = {"photos": str(photos), "backbone": backbone, "stage_photos": args.stage_photos}
    job |= {"weights": str(save_weights(backbone, scratch))}
    rows, batches, found = [], {}, {}
    for number, name in itertools.product(range(args.rounds), args.contenders):
        output = scratch / "output"
        job |= {"output": str(output), "batch": batches.get(name, 0)}
        row = {"backbone": backbone, "round": number + 1, "contender": name}
        row |= run_contender(name, job, scratch)
        batches[name] = row.get("batch", 0)  # OpenVINO tries some in the first round alone
        if number == 0 and "photos" in row:
            found[name] = read_embeddings(name, job)
            reference = found.get("ours-f32")
            row["lowest_cosines"] = reference and lowest_cosines(reference, found[name])
        shutil.rmtree(output, ignore_errors=True)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {"type": lambda text: text.split(",")}
    parser.add_argument("folder", type=Path, metavar="PHOTOS")
    parser.add_argument("--photos", dest="num_photos", type=int, default=5000)
    parser.add_argument("--backbones", default=["resnet18", "resnet50"], **names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", default=[*ALL], help=f"Of {','.join(ALL)}.", **names)
    parser.add_argument("--stage-photos", type=int, default=1000, help="For each stage alone.")
    parser.add_argument("--output", type=Path, help="Folder for runs.jsonl and report.md.")
    parser.add_argument("--picture", type=Path, help="Image file to draw.")
    args = parser.parse_args()
    unknown = set(args.contenders) - set(ALL)
    if unknown:
        parser.error(f"unknown contenders: {', '.join(sorted(unknown))}")
    # Their embeddings are what the others' are compared with.
    args.contenders.sort(key=lambda name: name != "ours-f32")
    return args


def main() -> None:
    """Measure and print the report."""
    args = arguments()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        photos = link_photos(args.folder, Path(scratch, "photos"), args.num_photos)
        for backbone in args.backbones:
            rows += run_rounds(args, backbone, photos, Path(scratch))
    print(report(args, rows))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (args.output / "runs.jsonl").write_text(lines)
        (args.output / "report.md").write_text(report(args, rows))
    if args.picture:
        draw(args, rows)


if __name__ == "__main__":
    main()
