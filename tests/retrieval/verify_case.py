"""Two sides and their right ranking, which a test may spoil before it is written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import IndexFormatError
from retrieval.ranking.files import RANKING_SCHEMA, RankingWriter
from retrieval.ranking.verification import verify
from retrieval.search.scores import Rows, is_distance, pair_scores, score_rule
from retrieval.vectors import open_source
from tests.conftest import make_index

BROKEN = "The parts are not those of one finished job: rank again."
NOT_EXACT = (
    "The ranking or the vectors were changed since, or the search is at fault: rank again, and "
    "report a bug if that differs too."
)
CHANGED = "Rank again, or put back what was ranked."


def grid_vectors(seed, num_rows, dim=4):
    """float16 rows of few values: most scores tie."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (num_rows, dim)) * 0.5
    rows[~rows.any(axis=1)] = 0.5
    return rows.astype(np.float16)


def normal_vectors(seed, num_rows, dim=24, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(num_rows, dim)).astype(dtype)


def nearest(metric, query_id, query, gallery, k, *, exclude_self):
    """(id, score) by the definition, in plain Python but for the score of a pair."""
    ids = [name for name, _ in gallery]
    theirs = Rows.prepare(np.stack([row for _, row in gallery]))
    ours = Rows.prepare(np.stack([query] * len(ids)))
    scores = pair_scores(metric, ours, theirs).tolist()
    sign = 1 if is_distance(metric) else -1
    rows = [(n, s) for n, s in zip(ids, scores, strict=True) if not exclude_self or n != query_id]
    return sorted(rows, key=lambda row: (sign * row[1], row[0].encode()))[:k]


class Case:
    """Two sides, and a ranking of them that a test may spoil before it is written."""

    def __init__(self, folder, metric="cosine", k=5, *, exclude_self=False, sides=None):
        self.folder, self.metric, self.k, self.exclude_self = folder, metric, k, exclude_self
        self.queries, self.gallery = sides or (
            [(f"q{n}", row) for n, row in enumerate(normal_vectors(1, 7))],
            [(f"g{n}", row) for n, row in enumerate(normal_vectors(2, 40))],
        )
        self.uris = {"queries": str(folder / "queries"), "gallery": str(folder / "gallery")}
        for name, side in (("queries", self.queries), ("gallery", self.gallery)):
            if not (folder / name).exists():
                ids, vectors = zip(*side, strict=True)
                make_index(folder / name, list(ids), np.stack(vectors), num_shards=3)
        self.rows = [
            [query_id, rank, found, score]
            for query_id, query in sorted(self.queries, key=lambda row: row[0].encode())
            for rank, (found, score) in enumerate(
                nearest(metric, query_id, query, self.gallery, k, exclude_self=exclude_self), 1
            )
        ]

    def at(self, query_id, rank):
        """Number of a row."""
        return next(n for n, row in enumerate(self.rows) if row[:2] == [query_id, rank])

    def facts(self):
        sides = {}
        for name, uri in self.uris.items():
            source = open_source(uri)
            keys = ("uri", "version", "num_rows", "dim", "dtype", "id_column", "vector_column")
            sides[name] = {key: getattr(source, key) for key in keys}
        return {
            **sides, "metric": self.metric, "top_k": self.k, "exclude_self": self.exclude_self,
            "num_queries": len(self.queries), "num_rows": len(self.rows),
            "score_rule": score_rule(self.metric),
        }  # fmt: skip

    def write(self, *, parts=2, **facts):
        """The ranking, in parts of whole queries."""
        writer = RankingWriter(str(self.folder / "ranking"))
        names = list(dict.fromkeys(row[0] for row in self.rows))
        for piece in np.array_split(np.array(names), parts):
            rows = [row for row in self.rows if row[0] in piece.tolist()]
            columns = list(map(list, zip(*rows, strict=True))) if rows else [[]] * 4
            writer.write_part(pa.table(columns, schema=RANKING_SCHEMA))
        writer.finish({**self.facts(), **facts})
        return writer.uri

    def message(self, error=IndexFormatError, *, sample=20, **facts):
        """What `verify` says of the ranking."""
        uri = self.write(**facts)
        with pytest.raises(error) as caught:
            verify.run(uri, sample=sample)
        text = str(caught.value)
        assert "\n" not in text
        return text.removeprefix(f"{uri}: ")


def normal_sides(dtype):
    return (
        [(f"q{n}", row) for n, row in enumerate(normal_vectors(1, 7, dtype=dtype))],
        [(f"g{n}", row) for n, row in enumerate(normal_vectors(2, 40, dtype=dtype))],
    )


def tied_sides():
    """Ids whose bytewise order is neither that of the rows nor that of numbers."""
    gallery = [(f"ä{n}" if n % 9 == 0 else f"g{n}", v) for n, v in enumerate(grid_vectors(2, 90))]
    return [(f"q{n * 7 % 11}", v) for n, v in enumerate(grid_vectors(1, 7))], gallery
