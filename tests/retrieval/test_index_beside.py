"""Nights, killed nights, restores, candidates and vacuums at once, in thousands of orders."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from functools import partial
from itertools import product
from types import NoneType

import pyarrow.fs as pafs
import pytest

from retrieval.errors import UsageError, VacuumedError
from retrieval.index import publish, update_plan
from retrieval.maintenance.restore import restore_index
from retrieval.storage import open_store
from tests.retrieval.beside import (
    NEWEST,
    TODAY,
    World,
    date_back,
    gallery_of,
    make_world,
    meet,
    run_beside,
)
from tests.retrieval.plain_difference import plain_difference

NUM_ORDERS, AT_ONCE = 200, 50


@pytest.fixture
def quick(monkeypatch):
    """Without syncing, and without a database for each comparison."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(update_plan, "open_difference", plain_difference)


@pytest.fixture
def folder():
    """In memory, where the machine has a place for it."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        yield name


def check_orders(folder, seeds):
    made = make_world(f"{folder}/made")
    for seed in seeds:
        uri = shutil.copytree(made.uri, f"{folder}/{seed}")
        date_back(uri)
        world, numbers = World(uri, dict(made.meant)), random.Random(seed)
        try:
            run_beside(world, numbers, pytest.MonkeyPatch)
            # Whatever they have left harms no later run.
            world.vacuum(7)
            world.night(numbers.choice(TODAY), rebase=False)
            world.vacuum(7)
            world.check_all()
            assert not world.names("_vacuum")
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        shutil.rmtree(uri)


@pytest.mark.parametrize("first", range(0, NUM_ORDERS, AT_ONCE))
def test_no_order_of_jobs_loses_anything(quick, folder, first):
    check_orders(folder, range(first, first + AT_ONCE))


MOST_STEPS = 16
GALLERIES = {  # which takes up old work, and adds none; and which adds nothing but rejects
    "night": TODAY[0],
    "rejects alone": gallery_of([*NEWEST, "bad new"], edited=["a3"]),
}


@pytest.mark.parametrize("committer", ["night", "rejects alone", "restore"])
@pytest.mark.parametrize("who_begins", [0, 1])
@pytest.mark.parametrize("each", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_a_commit_and_a_vacuum_meet_in_every_way(quick, folder, committer, who_begins, each):
    """One goes so far, the other so far, the first to its end, and then the other."""
    made, outcomes = make_world(f"{folder}/made"), Counter()
    for first, second in product(range(MOST_STEPS), range(1, MOST_STEPS)):
        if (first + 2 * second) % each:  # a knight's leaps: some of every row and column
            continue
        uri = shutil.copytree(made.uri, f"{folder}/{first}-{second}")
        date_back(uri)
        world = World(uri, dict(made.meant))
        work = partial(restore_index, uri, 0)
        if committer != "restore":  # takes up old work, and none of its own; or has rejects alone
            work = partial(publish, world.begin(GALLERIES[committer]))
        script = [(who_begins, first), (1 - who_begins, second), (who_begins, 99)]
        keep_days = 0 if committer == "rejects alone" else 7
        jobs = meet(world, work, script, pytest.MonkeyPatch, keep_days)
        assert jobs[1].error is None, (first, second)
        assert isinstance(jobs[0].error, (NoneType, VacuumedError, UsageError)), (first, second)
        world.check_all()
        outcomes[type(jobs[0].error)] += 1
        shutil.rmtree(uri)
    assert len(outcomes) == 2  # of some the commit came first, of others the vacuum


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 6000, 500))
def test_no_order_of_thousands_loses_anything(quick, folder, first):
    check_orders(folder, range(first, first + 500))


def test_no_order_of_jobs_loses_anything_in_a_store(quick, s3, tmp_path):
    made = make_world(f"{s3}/{tmp_path.name}/made")
    for seed in (1, 4, 6, 7):
        check_order_in_store(made, seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_order_of_a_hundred_loses_anything_in_a_store(quick, s3, tmp_path):
    made = make_world(f"{s3}/{tmp_path.name}/made")
    for seed in range(100, 200):
        check_order_in_store(made, seed)


def check_order_in_store(made, seed):
    """As on a disk, but that nothing can be dated back there: each vacuum takes all it may."""
    uri = f"{made.uri.removesuffix('made')}{seed}"
    filesystem, source = open_store(made.uri)
    target = open_store(uri)[1]
    for info in filesystem.get_file_info(pafs.FileSelector(source, recursive=True)):
        if info.is_file:
            filesystem.copy_file(info.path, f"{target}{info.path.removeprefix(source)}")
    world, numbers = World(uri, dict(made.meant)), random.Random(seed)
    try:
        run_beside(world, numbers, pytest.MonkeyPatch)
        world.vacuum(0)
        world.night(numbers.choice(TODAY), rebase=False)
        world.check_all()
        world.vacuum(0)
        assert not world.names("_vacuum")
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
