"""Does the memory of `embed` grow with the number of photos?

Embeds a folder of photos, then the same photos linked ten times, each by the command line in
a process of its own, and prints the largest memory that the command and all the processes of
its Ray held together (PSS: shared pages counted once, the object store included).

    python benchmarks/embed_memory.py [PHOTOS] [--copies 10] [--backbone resnet18]

Without PHOTOS the drawn gallery serves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

from retrieval.drawn import draw_gallery


def memory_of_tree(root: int) -> dict[str, int]:
    """Bytes of memory (PSS) of a process and its descendants, by the role of the process."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                names[int(entry.name)] = (entry / "cmdline").read_text().split("\0")[0]
            except OSError:
                continue  # ended meanwhile
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    total: dict[str, int] = {}
    for pid in parents:
        ancestor = pid
        while ancestor not in (root, 0, 1):
            ancestor = parents.get(ancestor, 0)
        if ancestor == root:
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            role = "driver" if pid == root else role_of(names[pid])
            pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
            total[role] = total.get(role, 0) + int(pss.split()[1]) * 1024
    return total


def role_of(name: str) -> str:
    """What a Ray process does, from the title that Ray gives it."""
    for role in ("EmbedPhotos", "Decode", "Write", "raylet"):
        if role in name:
            return role
    return "other workers of Ray" if name.startswith("ray::") else "rest of Ray"


def link_photos(photos: Path, folder: Path, copies: int) -> int:
    """Link every photo `copies` times into a folder; returns how many links there are."""
    count = 0
    for file in sorted(path for path in photos.rglob("*") if path.is_file()):
        for copy in range(copies):
            target = folder / f"copy-{copy}" / file.relative_to(photos)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file.resolve())
            count += 1
    return count


def embed_and_watch(photos: Path, index: Path, backbone: str) -> tuple[dict, dict[str, int]]:
    """Run the command; returns its report and the largest memory of each role."""
    command = [Path(sys.executable).with_name("retrieval-cli"), "embed", photos, index]
    options = ["--follow-links", "--backbone", backbone, "--weights", "none"]
    process = subprocess.Popen([*map(str, command), *options], stdout=subprocess.PIPE, text=True)
    peaks: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            now = memory_of_tree(process.pid)
            now["all together"] = sum(now.values())
            for role, size in now.items():
                peaks[role] = max(peaks.get(role, 0), size)

    thread = threading.Thread(target=watch)
    thread.start()
    output, _ = process.communicate()
    done.set()
    thread.join()
    if process.returncode:
        sys.exit(f"embed failed with exit code {process.returncode}")
    return json.loads(output), peaks


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--backbone", default="resnet18")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos = args.photos or draw_gallery(Path(scratch, "drawn")).gallery
        rows = []
        for copies in (1, args.copies):
            folder = Path(scratch, f"photos-{copies}")
            count = link_photos(photos, folder, copies)
            report, peaks = embed_and_watch(folder, Path(scratch, f"index-{copies}"), args.backbone)
            rows.append((count, report, peaks))
    print(f"# Memory of embed, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{args.backbone}, {os.cpu_count()} cores, Python {platform.python_version()}. ")
    print("Largest PSS in MiB, sampled twice a second; a role's peak may be at another moment.\n")
    roles = sorted({role for _, _, peaks in rows for role in peaks} - {"all together"})
    print("| photos | embedded | photos/s | all together | " + " | ".join(roles) + " |")
    print("|---" * (4 + len(roles)) + "|")
    for count, report, peaks in rows:
        cells = [count, report["num_embedded"], report["photos_per_s"]]
        cells += [round(peaks.get(role, 0) / 2**20) for role in ("all together", *roles)]
        print("| " + " | ".join(map(str, cells)) + " |")
    smaller, larger = (peaks["all together"] for _, _, peaks in rows)
    print(f"\n{args.copies} × the photos took {larger / smaller:.2f} × the memory.")


if __name__ == "__main__":
    main()
