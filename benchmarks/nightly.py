"""What does a night cost against a full run, and how large may an index grow?

    python benchmarks/nightly.py night PHOTOS [--photos 100000] [--backbone resnet18]
    python benchmarks/nightly.py scale [--rows 10000000] [--commits 1000]

`night` links PHOTOS to so many files and embeds them; then a night without a change; then a night
with 1 % new, 0.5 % changed and 0.5 % deleted photos, each of a content of its own. Core-seconds
are those of the whole machine (/proc/stat), so nothing else may run beside.

`scale` makes an index of so many rows of few dimensions from a manifest, by a night whose photos
are not really embedded, and compares the manifest with it: nothing changed, then 1 % deleted and
1 % new. Then it commits so many times, and opens the index.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.gallery.listing import list_batches
from retrieval.index import (
    Candidate,
    EmbeddingSpec,
    UpdateOptions,
    UpdatePlan,
    commit_index,
    finish,
    index_schema,
    is_index,
    open_index,
    plan_update,
    publish,
    stage,
    write_shard,
)
from retrieval.index.compaction import compact
from retrieval.index.staging import INDEX_REJECT_SCHEMA

CLI = [sys.executable, "-c", "from pipelines.cli import main; main()"]


def core_seconds() -> float:
    """User and system time of all cores since the machine's start."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def embed(photos: Path, index: Path, backbone: str) -> dict[str, Any]:
    """Run the command; its report, with seconds of the clock and of the cores."""
    command = [*CLI, "reindex", str(photos), str(index), "--backbone", backbone]
    start, before = time.perf_counter(), core_seconds()
    done = subprocess.run([*command, "--weights", "none"], stdout=subprocess.PIPE, check=True)
    wall, cores = time.perf_counter() - start, core_seconds() - before
    return {**json.loads(done.stdout), "wall_s": wall, "core_s": cores}


def link_photos(source: Path, folder: Path, num_photos: int) -> list[Path]:
    """Hard links in a hundred folders."""
    files = sorted(file for file in source.rglob("*") if file.is_file())
    made = []
    for number in range(num_photos):
        file = files[number % len(files)]
        link = folder / f"{number % 100:02d}" / f"{number:07d}{file.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(file)
        made.append(link)
    return made


def change(photos: list[Path], seed: int = 0) -> dict[str, int]:
    """A day in the gallery: new, changed and deleted photos, no two of a content."""
    numbers = random.Random(seed)
    count = len(photos) // 200
    chosen = numbers.sample(photos, 4 * count)
    for number, file in enumerate(chosen[: 2 * count]):  # what follows a JPEG's end is no part
        new = file.with_name(f"new-{file.name}")
        new.write_bytes(file.read_bytes() + f"new {number}".encode())
    for number, file in enumerate(chosen[2 * count : 3 * count]):
        content = file.read_bytes() + f"changed {number}".encode()
        file.unlink()  # a link, whose other names stay as they are
        file.write_bytes(content)
    for file in chosen[3 * count :]:
        file.unlink()
    return {"new": 2 * count, "changed": count, "deleted": count}


def night(args: argparse.Namespace) -> None:
    """Print the table of the three runs."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        photos, index = Path(scratch, "photos"), Path(scratch, "index")
        files = link_photos(Path(args.photos), photos, args.num_photos)
        runs = {"all": embed(photos, index, args.backbone)}
        runs["no change"] = embed(photos, index, args.backbone)
        changed = change(files)
        time.sleep(3)  # as on any day, nothing changed just before the night
        runs["night"] = embed(photos, index, args.backbone)
        runs["no change again"] = embed(photos, index, args.backbone)
    print(f"# A night, {datetime.now(UTC):%Y-%m-%d}\n")
    print(f"{args.num_photos:,} photos, {args.backbone}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}. Of the night: {changed}.\n")  # fmt: skip
    print("| run | embedded | wall, s | of it Ray's start and end | core-s | steps |")
    print("|---|---|---|---|---|---|")
    for name, run in runs.items():
        seconds = run["seconds"]
        ray = seconds.get("start_ray", 0) + seconds.get("stop_ray", 0)
        steps = ", ".join(f"{step} {value}" for step, value in seconds.items())
        print(f"| {name} | {run['num_embedded']} | {run['wall_s']:.1f} | {ray:.1f} | "
              f"{run['core_s']:.1f} | {steps} |")  # fmt: skip
    whole, one = runs["all"], runs["night"]

    def work(run: dict[str, Any]) -> float:
        seconds = run["seconds"]
        return run["wall_s"] - seconds.get("start_ray", 0) - seconds.get("stop_ray", 0)

    print(f"\nThe night beyond Ray's start: {work(one) / work(whole):.2%} of the full run's "
          f"seconds, {one['core_s'] / whole['core_s']:.2%} of its core-seconds.")  # fmt: skip


class LoopExecutor:
    """Rows without photos: vectors of zeros but one."""

    def __init__(self, uri: str, spec: EmbeddingSpec) -> None:
        self.uri, self.spec = uri, spec

    def hash_photos(self, photos: pa.Table) -> pa.Table:
        """No content is that of another."""
        hashes = [f"{image_id:0>64}" for image_id in photos["image_id"].to_pylist()]
        return pa.table({"image_id": photos["image_id"], "content_sha256": hashes})

    def embed(self, photos: pa.Table, options: UpdateOptions) -> list[Any]:
        """One shard for each 64 Ki rows."""
        rows = range(0, photos.num_rows, options.shard_rows)
        return [self._stage(photos.slice(start, options.shard_rows), options) for start in rows]

    def _stage(self, photos: pa.Table, options: UpdateOptions) -> Any:  # noqa: ANN401
        ids, schema = photos["image_id"], index_schema(self.spec)
        vector = np.ones(self.spec.dim, self.spec.dtype).tobytes()
        more = {
            "content_sha256": [f"{image_id:0>64}" for image_id in ids.to_pylist()],
            "width": pa.array([640] * len(ids), pa.int32()),
            "height": pa.array([480] * len(ids), pa.int32()),
            "embedding": pa.array([vector] * len(ids), pa.binary(len(vector))),
        }
        for name, column in more.items():
            photos = photos.append_column(name, pa.array(column))
        good = photos.select(schema.names).cast(schema)
        run = options.run_id, options.listed_us
        return stage(self.uri, self.spec, run, good, INDEX_REJECT_SCHEMA.empty_table())

    def run(self, plan: UpdatePlan) -> Candidate:
        """All that a plan asks for, one thing after the other."""
        plan.settle(self.hash_photos(plan.to_hash))
        receipts = self.embed(plan.to_embed(), plan.options)
        rewritten = [compact(self.uri, self.spec, group) for group in plan.rewrites]
        return finish(plan, receipts, rewritten)


def write_manifest(path: Path, numbers: Any) -> None:  # noqa: ANN401
    """Photos of these numbers, changed long ago."""
    schema = pa.schema(
        [("image_id", "string"), ("uri", "string"), ("size_bytes", "int64"),
         ("modified_at", pa.timestamp("us", "UTC"))]
    )  # fmt: skip
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(numbers), 2**18):
            some = numbers[start : start + 2**18]
            ids = [f"class-{number % 1000:03d}/photo-{number:08d}.jpg" for number in some]
            uris = [f"/gallery/{image_id}" for image_id in ids]
            times = pa.array([10**15] * len(some), pa.timestamp("us", "UTC"))
            writer.write_table(pa.table([ids, uris, [200_000] * len(some), times], schema=schema))


def one_night(uri: str, manifest: Path, spec: EmbeddingSpec, name: str) -> None:
    """A night in a process of its own, which prints seconds and peak memory."""
    start = time.perf_counter()
    seen = open_index(uri) if is_index(uri) else None
    options = UpdateOptions(
        run_id=name, listed_us=2 * 10**15, shard_rows=2**16, settled_us=2 * 10**15
    )

    def listed() -> Any:  # noqa: ANN401
        for batch in list_batches(str(manifest)):
            yield batch.append_column("label", pa.nulls(batch.num_rows, pa.string()))

    with plan_update(uri, seen, spec, listed(), options) as plan:
        candidate = LoopExecutor(uri, spec).run(plan)
    publish(candidate)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {key: value for key, value in asdict(candidate.counts).items() if value}
    print(f"| {name} | {time.perf_counter() - start:.1f} | {peak:.2f} | {found} |", flush=True)


def scale(args: argparse.Namespace) -> None:
    """Print the table."""
    spec = EmbeddingSpec(fingerprint="f" * 64, backbone="none", weights="none", dim=4)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        uri, manifest = f"{scratch}/index", Path(scratch, "photos.parquet")
        print(f"# An index of {args.rows:,} rows, {datetime.now(UTC):%Y-%m-%d}\n")
        print(f"{os.cpu_count()} cores, Python {platform.python_version()}.\n")
        print("| night | wall, s | peak memory of the process, GiB | counts |\n|---|---|---|---|")
        changed = np.arange(args.rows + args.rows // 100)
        changed = changed[np.arange(len(changed)) % 101 != 7]
        for name, numbers in {
            "first": np.arange(args.rows), "no change": np.arange(args.rows), "changed": changed,
        }.items():  # fmt: skip
            write_manifest(manifest, numbers)
            child = os.fork()
            if not child:
                one_night(uri, manifest, spec, name)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert not status, f"the night {name!r} failed"
        extra = write_shard(uri, pq.read_table(f"{uri}/{open_index(uri).shards[0].path}")[:1])
        for number in range(args.commits):
            index = open_index(uri)
            shards = [shard for shard in index.shards if shard.path != extra.path]
            shards += [extra] * (number % 2)
            commit_index(uri, spec, shards, run={"n": number}, seen_version=index.version)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            index = open_index(uri)
            times.append(time.perf_counter() - start)
        log = shutil.disk_usage(scratch) and sum(
            file.stat().st_size for file in Path(uri, "_delta_log").iterdir()
        )
        print(f"\nOpening version {index.version} ({index.num_rows:,} rows, {len(index.shards)} "
              f"shards, log of {log / 2**20:.1f} MiB): median {np.median(times):.3f} s of 5, "
              f"longest {max(times):.3f} s.")  # fmt: skip


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", help="Folder for what is made; it is removed again.")
    commands = parser.add_subparsers(required=True)
    parts = commands.add_parser("night")
    parts.add_argument("photos", metavar="PHOTOS")
    parts.add_argument("--photos", dest="num_photos", type=int, default=100_000)
    parts.add_argument("--backbone", default="resnet18")
    parts.set_defaults(run=night)
    parts = commands.add_parser("scale")
    parts.add_argument("--rows", type=int, default=10_000_000)
    parts.add_argument("--commits", type=int, default=1_000)
    parts.set_defaults(run=scale)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
