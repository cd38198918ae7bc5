"""Nights, restores and vacuums at once on one index, and what must hold of it all the time."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from retrieval import errors
from retrieval.errors import MismatchError, UsageError
from retrieval.index import (
    UpdateOptions,
    is_index,
    last_check_us,
    open_index,
    plan_update,
    publish,
)
from retrieval.index.folder import stored_files
from retrieval.index.staging import read_rejects
from retrieval.maintenance.restore import restore_index
from retrieval.maintenance.vacuum import vacuum_index
from retrieval.storage import join, read_buffer, read_bytes
from tests.retrieval.interleaving import Job, Killed, Turns, stop_at_every_place
from tests.retrieval.nights import SPEC, Gallery, LoopExecutor, sha256, vector_of
from tests.versions import DAY_S, date_commit

# What ends a try of a night, which then compares anew.
_ANEW = getattr(errors, "VacuumedError", ())
_TRIES = 6


@dataclass
class World:
    """An index, and what each of its runs meant to commit.

    Attributes:
        uri: The index.
        meant: The gallery of a run, by its id.
        cutoffs_s: Of the vacuums: versions that had gone before may be lost.
    """

    uri: str
    meant: dict[str, Gallery] = field(default_factory=dict)
    cutoffs_s: list[float] = field(default_factory=list)
    said: dict[int, dict] = field(default_factory=dict)

    def begin(self, gallery: Gallery):
        """All of a night but the commit."""
        seen = open_index(self.uri) if is_index(self.uri) else None
        run_id = f"run-{len(self.meant):03d}"
        self.meant[run_id] = gallery
        options = UpdateOptions(
            run_id=run_id,
            listed_us=gallery.now_us,
            shard_rows=4,
            settled_us=0 if seen is None else last_check_us(seen),
        )
        executor = LoopExecutor(self.uri, gallery)
        with plan_update(self.uri, seen, SPEC, gallery.listed(), options) as plan:
            return executor.run(plan)

    def night(self, gallery: Gallery, *, rebase: bool, pause=lambda place: None) -> None:
        """A night as the job does it: where a vacuum has taken its work away, anew."""
        for _ in range(_TRIES):
            try:
                candidate = self.begin(gallery)
                pause("candidate")
                publish(candidate)
            except _ANEW:
                continue
            except MismatchError:
                if not rebase:
                    raise
                continue
            if candidate.is_unchanged:
                assert self.meaning(candidate.seen_version).photos == gallery.photos
            return
        raise AssertionError(f"no end in {_TRIES} tries")

    def vacuum(self, keep_days: float) -> None:
        now_s = time.time()
        self.cutoffs_s.append(now_s - keep_days * DAY_S)
        vacuum_index(self.uri, keep_days, force=keep_days < 1, now_s=now_s)

    def info(self, version: int) -> dict:
        """What the entry of a version says, which never changes."""
        if version not in self.said:
            path = f"{self.uri}/_delta_log/{version:020d}.json"
            info = json.loads(self.read(path).splitlines()[0])["commitInfo"]
            self.said[version] = {**json.loads(info["retrieval.run"]), "at_ms": info["timestamp"]}
        return self.said[version]

    def read(self, path: str) -> bytes:
        return read_bytes(path)

    def names(self, folder: str = "") -> set[str]:
        return {file.name for file in stored_files(join(self.uri, folder).rstrip("/"))}

    def newest(self) -> int:
        return max(int(n[:20]) for n in self.names("_delta_log") if n.endswith(".json"))

    def meaning(self, version: int) -> Gallery:
        """The gallery that a version must hold."""
        said = self.info(version)
        if said["run_id"] in self.meant:
            return self.meant[said["run_id"]]
        if "vacuum" in said:
            return self.meaning(version - 1)
        return self.meaning(said["restored_version"])

    def missing(self, version: int) -> set[str]:
        """What a version names and the folder does not hold."""
        said = self.info(version)
        missing = set(said["shards_sha256"]) - self.names()
        if said["rejects"] and not self.names(said["rejects"]):
            missing.add(said["rejects"])
        return missing

    def check_newest(self) -> None:
        version = self.newest()
        assert not self.missing(version), f"version {version} lacks {self.missing(version)}"

    def check_all(self) -> None:
        """Each version that no vacuum may have taken is whole and holds what it must."""
        newest, cutoff_ms = self.newest(), max(self.cutoffs_s, default=0.0) * 1000
        for version in range(newest, -1, -1):
            if version < newest and self.info(version + 1)["at_ms"] <= cutoff_ms:
                return
            assert not self.missing(version), f"version {version} lacks {self.missing(version)}"
            self.check(version, self.meaning(version))

    def check(self, version: int, gallery: Gallery) -> None:
        said = self.info(version)
        rows = [row for name in said["shards_sha256"] for row in self.rows(name)]
        found = {row["image_id"]: row for row in rows}
        assert len(found) == len(rows), "an id twice"
        good = gallery.good()
        assert found.keys() == good.keys()
        for name, content in good.items():
            assert found[name]["content_sha256"] == sha256(content)
            assert found[name]["embedding"] == vector_of(content).tobytes()
        refused = read_rejects(self.uri, [said["rejects"]] if said["rejects"] else [])
        assert sorted(refused["image_id"].to_pylist()) == sorted(gallery.bad())

    def rows(self, name: str) -> list[dict]:
        columns = ["image_id", "content_sha256", "embedding"]
        return pq.read_table(read_buffer(join(self.uri, name)), columns=columns).to_pylist()


def gallery_of(names, *, edited=()) -> Gallery:
    """A photo of each name; those that begin with "bad" are none."""
    gallery = Gallery()
    for name in sorted(names):
        content = f"{name} edited" if name in edited else name
        gallery.put(name, content.encode())
        gallery.photos[name] = (gallery.photos[name][0], gallery.now_us + len(content))
    gallery.now_us += 10**9
    # Of the same photo the same time, whatever else is in the gallery.
    gallery.photos = {
        name: (content, int(sha256(content)[:8], 16))
        for name, (content, _) in gallery.photos.items()
    }
    return gallery


BASE = [f"a{number}" for number in range(9)]
WORK = [f"k{number}" for number in range(6)]
VERSIONS = [
    gallery_of([*BASE, "bad 1"]),
    gallery_of([*BASE[1:], "b0", "b1", "bad 2"], edited=["a3"]),
    gallery_of([*BASE[2:], "b1", "b2", "b3", "bad 1"], edited=["a3"]),
]
NEWEST = VERSIONS[-1].photos
TODAY = [
    gallery_of([*NEWEST, *WORK, "bad k"], edited=["a3"]),
    gallery_of([*NEWEST, *WORK, "bad k", "c0", "bad c"], edited=["a3"]),
    gallery_of([*[name for name in NEWEST if name != "a5"], *WORK[:5], "bad k"], edited=["a3"]),
    gallery_of([*[name for name in NEWEST if name != "b3"], "d0", "d1"], edited=["a3", "a4"]),
]


def make_world(uri: str) -> World:
    """Three versions, and what a night has left that was killed before its commit, all old."""
    world = World(uri)
    for gallery in VERSIONS:
        publish(world.begin(gallery))
    world.begin(gallery_of([*NEWEST, *WORK, "bad k"], edited=["a3"]))
    return world


def date_back(uri: str) -> None:
    """All has been there for 20 days; version 2 has been current for 10 of them."""
    for path in Path(uri).rglob("*"):
        when_s = time.time() - 20 * DAY_S
        os.utime(path, (when_s, when_s))
    for version, age in enumerate([30, 20, 10]):
        date_commit(uri, version, time.time() - age * DAY_S)


def some_jobs(world: World, numbers: random.Random) -> tuple[list[Job], list]:
    """Three or four jobs, of which some are killed; and their `pause`, to be set."""
    pauses: list = [lambda place: None]

    def night():
        gallery, rebase = numbers.choice(TODAY), numbers.random() < 0.5
        return lambda: world.night(gallery, rebase=rebase, pause=lambda name: pauses[0](name))

    def restore():
        version = numbers.choice([0, 1])
        return lambda: restore_index(world.uri, version)

    def vacuum():
        keep_days = numbers.choice([7, 7, 0])
        return lambda: world.vacuum(keep_days)

    makers = {"night": night, "restore": restore, "vacuum": vacuum}
    kinds = ["vacuum", numbers.choice(["night", "restore"])]
    kinds += numbers.choices(["night", "night", "restore", "vacuum"], k=numbers.randint(1, 2))
    jobs = []
    for number, kind in enumerate(kinds):
        dies = numbers.randint(0, 16) if numbers.random() < 0.3 else None
        jobs.append(Job(f"{kind} {number}", makers[kind](), dies))
    return jobs, pauses


def run_beside(world: World, numbers: random.Random, patch) -> None:
    """One interleaving; AssertionError where something does not hold."""
    jobs, pauses = some_jobs(world, numbers)
    turns = Turns(jobs, numbers)
    pauses[0] = turns.reached
    with patch.context() as inner:
        stop_at_every_place(inner, turns)
        turns.run(world.check_newest)
    judge(world, jobs)


def meet(world: World, committer, script, patch, keep_days: float = 7) -> list[Job]:
    """A committer and a vacuum, in the order of a script of 0 and 1."""
    jobs = [Job("committer", committer), Job("vacuum", lambda: world.vacuum(keep_days))]
    turns = Turns(jobs, random.Random(0))
    with patch.context() as inner:
        stop_at_every_place(inner, turns)
        turns.run_in(script, world.check_newest)
    return jobs


def judge(world: World, jobs: list[Job]) -> None:
    for job in jobs:
        if isinstance(job.error, AssertionError):
            raise job.error
        is_fine = job.error is None or isinstance(job.error, (Killed, MismatchError))
        is_refused = job.name.startswith("restore") and isinstance(job.error, UsageError)
        assert is_fine or is_refused, f"{job.name}: {job.error!r}"
    world.check_all()
