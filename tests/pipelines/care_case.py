"""An index of three versions and a probe for it, for the tests of the commands of care."""

from __future__ import annotations

import json

from tests.pipelines.ranks import invoke
from tests.versions import add_rejects, add_shard, commit, unit_vector

PHOTOS = {f"p{n}": (f"c{n}", f"label {n % 3}") for n in range(12)}


def some(*numbers):
    return {f"p{n}": PHOTOS[f"p{n}"] for n in numbers}


def make_gallery(path):
    """Three versions of a gallery: 8 photos; 4 more; one of the first gone."""
    shards = [add_shard(path, some(*range(4))), add_shard(path, some(*range(4, 8)))]
    commit(path, shards, run_id="a", num_listed=8, num_embedded=8, created_at="2026-01-01")
    added = add_shard(path, some(8, 9, 10, 11))
    rejects = add_rejects(path, "b", ["x", "y"])
    commit(path, [*shards, added], run_id="b", num_listed=14, num_rejected=2, rejects=rejects)
    rewritten = add_shard(path, some(1, 2, 3))
    commit(path, [rewritten, shards[1], added], run_id="c", num_listed=11, rejects=None)
    return path


def make_queries(path):
    """Queries that are photos of the gallery."""
    names = ["p0", "p5", "p9"]
    vectors = [unit_vector(name) for name in names]
    photos = {f"q{name}": PHOTOS[name] for name in names}
    commit(path, [add_shard(path, photos, vectors=vectors)])
    return path


def report_of(*arguments):
    done = invoke(*arguments)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def error_of(*arguments, code=1):
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    return done.stderr.strip()
