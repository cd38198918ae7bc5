"""What the tests of `rank` share: folders of vectors, index versions, budgets, parts."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.index import commit_index, index_schema, open_index, write_shard
from retrieval.ranking.files import RankingWriter, open_ranking
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.write import write_ranking
from tests.conftest import make_spec


def run(queries, gallery, ranking, config, **options):
    """Write a ranking; its report as the file has it."""
    return write_ranking(queries, gallery, ranking, config, **options).to_json()


def budget(num_gallery, row_bytes, dim, k, query_rows, num_threads=1):
    """Memory that makes blocks of this many queries; see `retrieval.search.block_sizes`."""
    gallery_rows = min(num_gallery, max(64, 2**21 // row_bytes))
    fixed = num_threads * (12 * 2**20 + 4 * gallery_rows * (row_bytes + 64))
    return fixed + query_rows * (min(k, num_gallery) * 4 * (64 + 24) + dim * 32)


def draw(seed, num_rows, dim=8, *, ties=False, dtype=np.float16):
    """Vectors; with ties on a grid of few points, so that most scores occur many times."""
    rng = np.random.default_rng(seed)
    if not ties:
        return rng.normal(size=(num_rows, dim)).astype(dtype)
    rows = rng.integers(-1, 2, (num_rows, dim)) * 0.5
    rows[~rows.any(axis=1)] = 0.5
    return rows.astype(dtype)


def write_foreign(path, ids, vectors):
    """One Parquet file as another tool writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(ids), "vector": list(vectors)}), path)


def make_shard(index, rows):
    """A shard of {id: vector}, which a commit may then name."""
    spec, now = make_spec(len(next(iter(rows.values())))), datetime(2026, 1, 1, tzinfo=UTC)
    table = pa.table(
        {
            "image_id": list(rows),
            "uri": list(rows),
            "content_sha256": ["0" * 64] * len(rows),
            "size_bytes": [1] * len(rows),
            "modified_at": [now] * len(rows),
            "width": [1] * len(rows),
            "height": [1] * len(rows),
            "label": pa.array([None] * len(rows), pa.string()),
            "embedding": [np.float16(vector).tobytes() for vector in rows.values()],
        }
    ).cast(index_schema(spec))
    return write_shard(str(index), table)


def commit(index, shards, *, dim, fingerprint="f" * 64):
    """The next version of an index; the first one where there is none."""
    is_new = not (Path(index) / "_delta_log").exists()
    seen = None if is_new else open_index(str(index)).version
    spec = make_spec(dim, fingerprint=fingerprint)
    return commit_index(str(index), spec, shards, run={}, seen_version=seen)


class Nights:
    """An index whose versions keep some shards, drop some and add some."""

    def __init__(self, path, prefix, num_rows, rng, dim, *, ties):
        self.path, self._prefix, self._rng = path, prefix, rng
        self._dim, self._ties = dim, ties
        self._numbers = itertools.count()
        self._shards = []  # (shard, {id: vector})
        self._add([self._row() for _ in range(num_rows)], num_shards=5)
        self._commit()

    def _row(self, name=None):
        vector = draw(self._rng.integers(2**20), 1, self._dim, ties=self._ties)[0]
        return name or f"{self._prefix}{next(self._numbers) * 7 % 1009}", vector

    def _add(self, rows, num_shards):
        for number in range(min(num_shards, len(rows))):
            held = dict(rows[number::num_shards])
            self._shards.append((make_shard(self.path, held), held))

    def _commit(self):
        commit(self.path, [shard for shard, _ in self._shards], dim=self._dim)

    def next(self, num_dropped, num_new):
        """Rows of the shards that go are lost, changed, or only written again."""
        rows = []
        for _ in range(num_dropped):
            _, held = self._shards.pop(int(self._rng.integers(len(self._shards))))
            for name, vector in held.items():
                fate = self._rng.random()
                if fate < 0.6:
                    rows.append((name, vector))
                elif fate < 0.8:
                    rows.append(self._row(name))
        self._add([*rows, *(self._row() for _ in range(num_new))], num_shards=2)
        self._commit()

    def num_rows(self):
        return sum(len(held) for _, held in self._shards)


def parts_of(ranking):
    """The bytes of the parts, in order; their names hold a key of the run."""
    opened = open_ranking(str(ranking))
    return [(Path(opened.uri) / name).read_bytes() for name in opened.parts]


def rows_of(ranking):
    """(query, rank, gallery, bits of the score) of each row."""
    opened = open_ranking(str(ranking))
    table = pa.concat_tables(pq.read_table(f"{opened.uri}/{name}") for name in opened.parts)
    bits = table["score"].to_numpy().view(np.int64)
    columns = [table[name].to_pylist() for name in ("query_id", "rank", "gallery_id")]
    return list(zip(*columns, bits.tolist(), strict=True))


def marks_of(folder):
    """What changes with each writing of a part, even of the same bytes."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in Path(folder).glob("part-*.parquet")
    }


def stray_files(ranking):
    """Files in the folder that the finished ranking does not name, hidden ones too."""
    named = {"_ranking.json", *json.loads((ranking / "_ranking.json").read_text())["parts"]}
    return sorted({path.name for path in ranking.iterdir()} - named)


class Killed(BaseException):
    """What ends a run in the middle, like a signal: nothing of ours catches it."""


@contextmanager
def doing_after(num_parts, action):
    """Do something right after a run has written some parts."""
    write, written = RankingWriter.write_part, itertools.count(1)

    def then_act(self, table):
        write(self, table)
        if next(written) == num_parts:
            action()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RankingWriter, "write_part", then_act)
        yield


def killed_after(num_parts, *arguments):
    """A run in this process that ends after some parts."""

    def kill():
        raise Killed

    with doing_after(num_parts, kill), pytest.raises(Killed):
        run(*map(str, arguments[:-1]), arguments[-1])


# For the galleries of `foreign_sides`: three queries a part.
FOREIGN = RankConfig(
    top_k=4, num_threads=2, memory_bytes=budget(300, 8, 4, 4, query_rows=3, num_threads=2)
)


def foreign_sides(tmp_path):
    """12 queries, which make four parts, and a gallery of three files, all foreign."""
    write_foreign(tmp_path / "q" / "0.parquet", (f"q{n}" for n in range(12)), draw(1, 12, 4))
    for number in range(3):
        names = (f"g{number}-{n}" for n in range(100))
        write_foreign(tmp_path / "g" / f"{number}.parquet", names, draw(number, 100, 4))
    return str(tmp_path / "q"), str(tmp_path / "g"), tmp_path / "rk"


def error_of(kind, q, g, folder, config=FOREIGN, **options):
    with pytest.raises(kind) as caught:
        run(q, g, str(folder), config, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
