"""Tables and picture of what `embed.py` measured."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embed_contenders import CONTENDERS, CORES

OURS = ("ours", "ours-f32")
CEILINGS = ("ceiling", "ceiling-f32")
READY = ", once the network is ready"
Row = dict[str, Any]


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
    lines = ["| contender | photos/s | ours ÷ it | ours-f32 ÷ it | with all starts | start, s |"]
    lines[0] += " lowest cosines | notes |"
    lines.append("|---" * 8 + "|")
    for name, by_round in rates.items():
        own = [row for row in rows if row["contender"] == name and "photos" in row]
        ratios = [
            [rates[mine][turn] / by_round[turn] for turn in rates.get(mine, {}) if turn in by_round]
            for mine in OURS
        ]
        whole, starts = ([row[key] for row in own] for key in ("whole_per_s", "start_s"))
        cosines = (own[0].get("lowest_cosines") if own else None) or []
        notes = [f"{key} {own[0][key]}" for key in ("batch", "precision", "streams", "rejected")
                 if own and key in own[0]]  # fmt: skip
        cells = [name, spread([*by_round.values()], 1), *(spread(ratio, 2) for ratio in ratios)]
        cells += [
            spread(whole, 1),
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
        "Medians (from – to); ratios round by round. Start: of Python, imports, Ray, the model;",
        "no part of photos/s. Ours' holds the start of the worker that has the network; its second",
        "line leaves that out, though photos are decoded meanwhile. Cosines: of the worst of 200",
        "photos against ours-f32; the second after the mean embedding was subtracted, which is far",
        "stricter.",
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
        count = max(row.get("photos", 0) for row in some)
        bars(left, stages, ["#7a9e7e"] * len(stages))
        left.set(title=f"{backbone}: each stage alone", xlabel="core-milliseconds a photo")
        speeds = {name: [*by_round.values()] for name, by_round in rates.items()}
        bars(right, speeds, [colour_of(name) for name in speeds])
        right.set(title=f"{backbone}: {count:,} files to embeddings", xlabel="photos a second")
    figure.suptitle(f"Embedding JPEG files on {CORES} cores: medians, and from – to")
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
