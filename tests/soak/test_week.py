"""A week of nights on real photos comes to what one night makes of the last day's gallery.

Every day photos are added, edited, deleted, copied and moved, and a class is renamed. Meanwhile
other tools (Polars and DuckDB, through deltalake) read the index again and again: each time
they must see one of its versions, whole. RETRIEVAL_PHOTOS names a folder with class folders of
photos; without it the drawn gallery serves.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from pipelines import rank
from pipelines.embed import EmbedConfig
from pipelines.reindex import ReindexConfig, run
from retrieval.drawn import draw_gallery
from retrieval.index import open_index, read_index
from retrieval.ranking.files import open_ranking
from retrieval.ranking.verification import verify

pytestmark = pytest.mark.soak

EMBED = EmbedConfig(weights="none", image_size=96)


class OutsideReader(threading.Thread):
    """Reads the newest version by two tools until it is told to stop."""

    def __init__(self, index: Path) -> None:
        super().__init__(daemon=True)
        self.index, self.stopped = index, threading.Event()
        self.seen: dict[int, set[tuple[str, str]]] = {}
        self.faults: list[str] = []
        self.num_reads = 0

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            if not (self.index / "_delta_log").exists():
                continue
            table = DeltaTable(str(self.index))
            by_polars = polars.scan_delta(table).select("image_id", "content_sha256").collect()
            files = table.file_uris()
            by_duckdb = duckdb.sql(
                f"SELECT image_id, content_sha256 FROM read_parquet({files})"
            ).fetchall()
            rows = set(by_polars.rows())
            self.num_reads += 1
            if rows != set(by_duckdb) or len(rows) != len(by_duckdb):
                self.faults.append(f"version {table.version()}: the two tools differ")
            if self.seen.setdefault(table.version(), rows) != rows:
                self.faults.append(f"version {table.version()} has changed")


def change(gallery: Path, numbers: random.Random, day: int) -> Counter[str]:
    """A day; gives what was done."""
    files = sorted(file for file in gallery.rglob("*") if file.is_file())
    done = Counter()
    for file in numbers.sample(files, 24):
        kind = numbers.choice(["add", "edit", "delete", "copy", "move", "break"])
        done[kind] += 1
        if kind == "add":
            file.with_name(f"day-{day}-{file.name}").write_bytes(
                file.read_bytes() + f"day {day}".encode()
            )
        elif kind == "edit":
            other = numbers.choice(files)
            content = other.read_bytes() if other.exists() else b""
            file.write_bytes(content + f"day {day}".encode())
        elif kind == "delete":
            file.unlink()
        elif kind == "copy":
            shutil.copy2(file, file.with_name(f"copy-{day}-{file.name}"))
        elif kind == "move":
            file.rename(file.with_name(f"moved-{day}-{file.name}"))
        else:
            file.write_bytes(file.read_bytes()[:200])
    label = numbers.choice(sorted(folder for folder in gallery.iterdir() if folder.is_dir()))
    label.rename(label.with_name(f"{label.name}-{day}"))
    done["rename a class"] += 1
    return done


@pytest.fixture
def gallery(tmp_path):
    """A copy of the photos that may be changed."""
    source = os.environ.get("RETRIEVAL_PHOTOS") or str(draw_gallery(tmp_path / "drawn").gallery)
    shutil.copytree(source, tmp_path / "gallery")
    return tmp_path / "gallery"


def test_a_week_of_nights_is_what_one_night_makes(gallery, tmp_path, capsys):
    numbers, index = random.Random(7), tmp_path / "index"
    queries = tmp_path / "queries"
    for file in numbers.sample(sorted(gallery.rglob("*.*")), 20):
        to = queries / file.relative_to(gallery)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, to)
    config = ReindexConfig(
        embed=EMBED, queries=str(queries), rankings=str(tmp_path / "ranking"),
        rank=rank.RankConfig(top_k=50),
    )  # fmt: skip
    reader = OutsideReader(index)
    reader.start()
    totals = Counter()
    for day in range(7):
        record = run(str(gallery), str(index), config).to_json()
        listed = sum(record[f"num_{name}"] for name in
                     ("unchanged", "moved", "resumed", "embedded", "rejected"))  # fmt: skip
        assert listed == record["num_listed"]
        totals += Counter({name: value for name, value in record.items()
                           if name.startswith("num_") and isinstance(value, int)})  # fmt: skip
        totals["num_spared_queries"] += record["ranking"]["num_spared_queries"] or 0
        if day < 6:
            totals += change(gallery, numbers, day)
    reader.stopped.set()
    reader.join(60)
    assert reader.faults == []
    assert verify.run(str(tmp_path / "ranking"), sample=20)["is_exact"]

    scratch = ReindexConfig(
        embed=EMBED, queries=str(queries), rankings=str(tmp_path / "scratch-ranking"),
        rank=rank.RankConfig(top_k=50),
    )  # fmt: skip
    run(str(gallery), str(tmp_path / "scratch"), scratch)
    ours, theirs = read_index(str(index)), read_index(str(tmp_path / "scratch"))
    assert (ours.ids, ours.labels) == (theirs.ids, theirs.labels)
    np.testing.assert_array_equal(
        ours.embeddings.view(np.uint16), theirs.embeddings.view(np.uint16)
    )
    assert rejects(index) == rejects(tmp_path / "scratch")
    assert rows(tmp_path / "ranking") == rows(tmp_path / "scratch-ranking")
    with capsys.disabled():
        print(
            f"\nA week: {dict(totals)}; {len(ours.ids)} rows in {len(ours.index.shards)} shards; "
              f"{reader.num_reads} reads by others saw {len(reader.seen)} versions.")  # fmt: skip


def rejects(index):
    folder = index / open_index(str(index)).run["rejects"]
    return pq.read_table(folder).select(["image_id", "reason"]).to_pylist()


def rows(ranking):
    opened = open_ranking(str(ranking))
    return [row for part in opened.parts for row in pq.read_table(ranking / part).to_pylist()]
