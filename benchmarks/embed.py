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
import ctypes
import itertools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from embed_contenders import CONTENDERS, CORES
from numpy.typing import NDArray

OURS = ("ours", "ours-f32")
ALL = (*OURS, *CONTENDERS)
CEILINGS = ("ceiling", "ceiling-f32")
READY = ", once the network is ready"
EMBED = [sys.executable, "-c", "from pipelines.cli import main; main()", "embed"]
Row = dict[str, Any]


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
        "from retrieval.backbones import BackboneSpec, build_backbone;"
        "network = build_backbone(BackboneSpec(name=sys.argv[1], weights='none'));"
        "save_file(network.state_dict(), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, backbone, str(file)], check=True)
    return file


def adopt_orphans() -> None:
    """Become the parent of what a contender leaves behind, so that its CPU time is counted."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def wait_for_orphans(patience_s: float = 20) -> None:
    """Wait until all processes that a contender started have ended."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return


def run(command: Sequence[str], log: Path) -> tuple[Row, float]:
    """Run a command; returns the JSON that it prints and its CPU seconds, or an error's text."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("wb") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, check=False)
    wait_for_orphans()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    if done.returncode:
        return {"error": log.read_text(errors="replace")[-2000:]}, cpu
    text = done.stdout.decode()
    return json.loads(text if text.startswith("{") else text.splitlines()[-1]), cpu


def run_contender(name: str, job: Row, scratch: Path) -> Row:
    """One run of one contender, in figures that can be compared."""
    output = Path(job["output"])
    if name in OURS:
        command = [*EMBED, job["photos"], str(output)]
        command += ["--backbone", job["backbone"], "--weights", job["weights"]]
        command += ["--precision", "float32"] if name == "ours-f32" else []
    else:
        job = {**job, "contender": name, "begun": time.monotonic()}
        command = [sys.executable, str(Path(__file__).with_name("embed_contenders.py"))]
        command += [json.dumps(job)]
    row, cpu = run(command, scratch / "stderr.txt")
    if name in OURS and "error" not in row:
        row = figures_of(row)
    if "photos" in row:
        row["core_ms_per_photo"] = 1000 * cpu / row["photos"]
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


def rates_of(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Photos/s by contender and round; the ceilings count as contenders."""
    rates: dict[str, dict[int, float]] = {}
    for row in rows:
        values = {name: row[name] for name in CEILINGS if name in row}
        if "photos_per_s" in row:
            values[row["contender"]] = row["photos_per_s"]
        if "ready_per_s" in row:
            values[f"{row['contender']}{READY}"] = row["ready_per_s"]
        for name, value in values.items():
            rates.setdefault(name, {})[row["round"]] = value
    order = [*OURS, *(f"{name}{READY}" for name in OURS), *CEILINGS, *CONTENDERS]
    return {name: rates[name] for name in sorted(rates, key=order.index)}


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and from where to where."""
    if not values:
        return ""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} – {high:.{digits}f})"


def table_of(rows: Sequence[Row]) -> list[str]:
    """The contenders with one network, as lines of Markdown."""
    rates = rates_of(rows)
    lines = ["| contender | photos/s | ours ÷ it | ours-f32 ÷ it | core-ms a photo | start, s |"]
    lines[0] += " lowest cosines | notes |"
    lines.append("|---" * 8 + "|")
    for name, by_round in rates.items():
        own = [row for row in rows if row["contender"] == name and "photos" in row]
        ratios = [
            [rates[mine][turn] / by_round[turn] for turn in rates.get(mine, {}) if turn in by_round]
            for mine in OURS
        ]
        cores, starts = ([row[key] for row in own] for key in ("core_ms_per_photo", "start_s"))
        cosines = (own[0].get("lowest_cosines") if own else None) or []
        notes = [f"{key} {own[0][key]}" for key in ("batch", "precision", "streams", "rejected")
                 if own and key in own[0]]  # fmt: skip
        cells = [name, spread([*by_round.values()], 1), *(spread(ratio, 2) for ratio in ratios)]
        cells += [
            spread(cores, 0),
            spread(starts, 1),
            ", ".join(f"{cosine:.5f}" for cosine in cosines),
        ]
        lines.append("| " + " | ".join([*cells, ", ".join(notes)]) + " |")
    failed = sorted({row["contender"] for row in rows if "error" in row})
    return lines + ([f"\nFailed: {', '.join(failed)}."] if failed else [])


def stages_of(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Core-milliseconds a photo of each stage alone, one value a round."""
    measured = [row["stages"] for row in rows if row["contender"] == "ceiling" and "stages" in row]
    return {name: [stages[name] for stages in measured] for name in (measured or [{}])[0]}


def report(args: argparse.Namespace, rows: Sequence[Row]) -> str:
    """The whole report in Markdown."""
    packages = ["torch", "torchvision", "ray", "pillow"]
    packages += ["openvino"] * any(name.startswith("openvino") for name in args.contenders)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = [
        f"# Embedding, {datetime.now(UTC):%Y-%m-%d}\n",
        f"{args.num_photos:,} JPEG files, {CORES} cores ({cpu_name()}), Python",
        f"{platform.python_version()}, {versions}.",
        "Medians (from – to); ratios round by round. Start-up is no part of photos/s, but is of",
        "the core-milliseconds. Cosines: of the worst of 200 photos against ours-f32; the second",
        "after the mean embedding was subtracted, which is far stricter.",
    ]
    for backbone in args.backbones:
        some = [row for row in rows if row["backbone"] == backbone]
        lines += [f"\n## {backbone}\n", *table_of(some)]
        stages = stages_of(some)
        if stages:
            lines += ["\n| stage alone | core-ms a photo |", "|---|---|"]
            lines += [f"| {name} | {spread(values, 3)} |" for name, values in stages.items()]
        for row in some:
            if row["contender"] in OURS and "stages" in row and row["round"] == args.rounds:
                told = json.dumps(row["stages"])
                lines += [f"\nWhat {row['contender']} told of its stages: `{told}`"]
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    """Of the processor, where Linux says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine()) or platform.machine()


def draw(args: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Two panels a network: what each stage costs, and how fast each contender is."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    size = (13, 3.6 * len(args.backbones))
    figure, panels = plt.subplots(
        len(args.backbones), 2, figsize=size, layout="constrained", squeeze=False
    )
    for (left, right), backbone in zip(panels, args.backbones, strict=True):
        some = [row for row in rows if row["backbone"] == backbone]
        stages, rates = stages_of(some), rates_of(some)
        bars(left, stages, ["#7a9e7e"] * len(stages))
        left.set(title=f"{backbone}: each stage alone", xlabel="core-milliseconds a photo")
        speeds = {name: [*by_round.values()] for name, by_round in rates.items()}
        bars(right, speeds, [colour_of(name) for name in speeds])
        right.set(title=f"{backbone}: files to embeddings", xlabel="photos a second")
    figure.suptitle(f"{args.num_photos:,} JPEG files, {CORES} cores: medians, and from – to")
    figure.savefig(args.picture, dpi=110)
    plt.close(figure)


def colour_of(name: str) -> str:
    """Ours, our ceiling, others."""
    return "#1b6ca8" if name.startswith(OURS) else "#c8d8e8" if name in CEILINGS else "#999999"


def bars(panel: Any, values: dict[str, list[float]], colours: Sequence[str]) -> None:  # noqa: ANN401
    """Horizontal bars with whiskers, and each median in figures."""
    medians = [statistics.median(some) for some in values.values()]
    below = [statistics.median(some) - min(some) for some in values.values()]
    above = [max(some) - statistics.median(some) for some in values.values()]
    panel.barh([*values], medians, xerr=[below, above], color=colours, ecolor="#444444", capsize=3)
    panel.invert_yaxis()
    for row, (median, more) in enumerate(zip(medians, above, strict=True)):
        text = f"{median:.2f}" if median < 10 else f"{median:.1f}"
        panel.annotate(text, (median + more, row), (5, 0), textcoords="offset points", va="center")
    panel.margins(x=0.12)
    panel.set_xlim(left=0)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


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
    adopt_orphans()
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
