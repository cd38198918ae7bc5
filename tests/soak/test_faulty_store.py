"""Weeks of nights on an object store of which 5 to 20 % of all requests go wrong.

Each night either succeeds or fails with one of our own errors, and a rerun goes on from there.
After each of them, and without faults, the index must be what a model says: a dictionary of photos.
RETRIEVAL_SEEDS says how many weeks (20); RETRIEVAL_FIRST_SEED which is the first.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from copy import deepcopy

import pytest

from retrieval.errors import RetrievalError
from retrieval.index import is_index, open_index
from retrieval.index import publish as publish_candidate
from retrieval.index.commit import commit_index
from retrieval.index.reading import read_whole_shard
from retrieval.index.schema import index_schema
from retrieval.storage import read_bytes, write_bytes
from tests.faults import faulty_store
from tests.retrieval.commits import SPEC as COMMIT_SPEC
from tests.retrieval.commits import make_shard
from tests.retrieval.nights import DAY_US, Gallery, LoopExecutor, begin, check, one_night, rows_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

NUM_SEEDS = int(os.environ.get("RETRIEVAL_SEEDS", "20"))
FIRST_SEED = int(os.environ.get("RETRIEVAL_FIRST_SEED", "0"))
NUM_NIGHTS = 5
NUM_TRIES = 4
COMMIT_FAULTS = ["lost", "reset", "503", "409", "412", "409_after", "412_after"]


class Week:
    """An index that lives on a faulty store, beside what it should be."""

    def __init__(self, store, seed):
        self.store, self.numbers, self.gallery = store, random.Random(seed), Gallery()
        self.uri = f"{store.uri}/{seed}"
        self.seed, self.num_set = seed, 0
        self.rate = self.numbers.uniform(0.05, 0.2)
        self.versions = {}  # number: the rows that it had when it was made
        self.counts, self.faults = Counter(), Counter()
        for number in range(12):
            self.gallery.put(f"{number % 4}/{number}", b"photo %d" % number)

    def set_rate(self, rate):
        """From now on this share goes wrong; and of the commits, a request of many, every other."""
        self.faults.update(self.store.faults())
        self.num_set += 1
        rules = []
        if rate and self.numbers.random() < 0.5:
            action = self.numbers.choice(COMMIT_FAULTS)
            rules = [{"action": action, "method": "PUT", "substring": "_delta_log", "count": 1}]
        self.store.set(*rules, seed=1000 * self.seed + self.num_set, rate=rate)

    def night(self):
        """Try until it is done; the last try meets no fault."""
        self.gallery.change(self.numbers)
        for attempt in range(NUM_TRIES + 1):
            self.gallery.now_us += DAY_US
            executor = LoopExecutor(self.uri, self.gallery)
            self.set_rate(0 if attempt == NUM_TRIES else self.rate)
            failed = run_id = None
            try:
                candidate = begin(self.uri, self.gallery, executor)
                run_id = candidate.index.run["run_id"]
                publish_candidate(candidate)
            except RetrievalError as error:
                failed = str(error)
            self.set_rate(0)
            self.counts["tries"] += 1
            if failed:
                assert attempt < NUM_TRIES, f"on a store that is well: {failed}"
                assert "\n" not in failed
                self.counts["failed"] += 1
                self._check_failed(failed, run_id)
                continue
            self._check_done(run_id, is_unchanged=candidate.is_unchanged)
            return

    def _current(self):
        return open_index(self.uri) if is_index(self.uri) else None

    def _check_failed(self, message, run_id):
        """A night that failed has changed nothing, or says that it cannot tell."""
        index = self._current()
        number = -1 if index is None else index.version
        if number == max(self.versions, default=-1):
            return
        assert "cannot be told" in message, f"committed, but it says: {message}"
        assert index.run["run_id"] == run_id
        self.counts["committed without an answer"] += 1
        self._check_version(index)

    def _check_done(self, run_id, *, is_unchanged):
        index = self._current()
        is_new = index.version not in self.versions
        assert is_new != is_unchanged
        assert not is_new or index.run["run_id"] == run_id
        self._check_version(index)

    def _check_version(self, index):
        check(self.uri, self.gallery)
        for shard in index.shards:
            read_whole_shard(self.uri, shard, index_schema(index.spec))
        self.versions.setdefault(index.version, rows_of(self.uri))
        assert sorted(self.versions) == list(range(index.version + 1))

    def check_end(self):
        executor, candidate = one_night(self.uri, self.gallery)
        assert (executor.embedded, candidate.is_unchanged) == ([], True)
        for version, rows in self.versions.items():  # whoever has opened one reads on in it
            assert by_id(rows_of(self.uri, version)) == by_id(rows)
        scratch = f"{self.uri}-scratch"
        one_night(scratch, deepcopy(self.gallery))
        assert by_id(rows_of(self.uri)) == by_id(rows_of(scratch))


def by_id(rows):
    return sorted(rows, key=lambda row: row["image_id"])


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + NUM_SEEDS))
def test_a_week_on_a_faulty_store_comes_to_what_it_does_on_a_good_one(
    s3, seed, monkeypatch, capsys
):
    # Clients that give up soon, so that some nights do fail.
    monkeypatch.setattr("retrieval.index.commit._PAUSES_S", (0.05, 0.1))
    patience_s = random.Random(seed).choice([0.06, 0.11, 0.21])
    start = time.monotonic()
    with faulty_store(s3, "weeks", patience_s=patience_s) as store:
        week = Week(store, seed)
        for _ in range(NUM_NIGHTS):
            week.night()
        week.check_end()
        week.set_rate(0)
    with capsys.disabled():
        print(
            f"\nseed {seed}: {week.rate:.0%} faults {dict(week.faults)}, {NUM_NIGHTS} nights in "
            f"{dict(week.counts)}, {len(week.versions)} versions, {time.monotonic() - start:.0f} s"
        )


def begin_outage(store, action):
    """A read, a write and a commit, each in a thread; and what each gives, with its seconds."""
    write_bytes(f"{store.uri}/a", b"content")
    shard = make_shard(store.uri, "a")
    uses = {
        "read": lambda: read_bytes(f"{store.uri}/a"),
        "write": lambda: write_bytes(f"{store.uri}/b", b"content"),
        "commit": lambda: commit_index(store.uri, COMMIT_SPEC, [shard], run={}, seen_version=None),
    }
    found, begun = {}, time.monotonic()

    def use(name):
        try:
            answer = uses[name]()
        except (RetrievalError, OSError) as error:
            answer = error
        found[name] = answer, time.monotonic() - begun

    threads = [threading.Thread(target=use, args=[name]) for name in uses]
    store.fail(action, count=None)
    for thread in threads:
        thread.start()
    return found, threads


@pytest.mark.parametrize("outage_s", [20, 40])
@pytest.mark.parametrize("action", ["503", "reset"])
def test_an_outage_is_ridden_out(s3, outage_s, action):
    with faulty_store(s3, f"outage-{outage_s}-{action}") as store:
        found, threads = begin_outage(store, action)
        time.sleep(outage_s)
        assert found == {}
        store.set()
        for thread in threads:
            thread.join()
        answers = {name: answer for name, (answer, _) in found.items()}
        assert answers == {"read": b"content", "write": None, "commit": 0}


@pytest.mark.parametrize("action", ["503", "reset"])
def test_an_outage_without_end_is_told_after_about_a_minute(s3, action, capsys):
    with faulty_store(s3, f"outage-{action}") as store:
        found, threads = begin_outage(store, action)
        for thread in threads:
            thread.join()
        store.set()
    for answer, seconds in found.values():
        assert isinstance(answer, RetrievalError | OSError)
        assert "\n" not in str(answer)
        assert 40 < seconds < 180
    with capsys.disabled():
        print(f"\n{action}: given up after", {name: round(s) for name, (_, s) in found.items()})
