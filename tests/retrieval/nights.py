"""A gallery in memory and a night's work in plain loops, for tests of the nightly index."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from retrieval.index import (
    UpdateOptions,
    finish,
    index_schema,
    is_index,
    last_check_us,
    open_index,
    plan_update,
)
from retrieval.index import publish as publish_candidate
from retrieval.index.compaction import compact
from retrieval.index.gallery_diff import LISTED_SCHEMA
from retrieval.index.staging import INDEX_REJECT_SCHEMA, read_rejects, stage
from tests.conftest import make_spec

DIM = 3
SPEC = make_spec(DIM)
DAY_US = 86_400_000_000
START_US = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def vector_of(content: bytes, spec=SPEC) -> np.ndarray:
    """What the network makes of a content: other bits for every content and model."""
    digest = hashlib.sha256(content + spec.fingerprint.encode()).digest()
    return np.frombuffer(digest, np.uint8)[: spec.dim].astype(spec.dtype) + 1


@dataclass
class Gallery:
    """Photos as (content, time of change), by id; content that begins with "bad" is no photo."""

    photos: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    now_us: int = START_US

    def put(self, image_id: str, content: bytes) -> None:
        self.now_us += 1_000_000
        self.photos[image_id] = (content, self.now_us)

    def move(self, old: str, new: str) -> None:
        self.photos[new] = self.photos.pop(old)

    def touch(self, image_id: str) -> None:
        self.put(image_id, self.photos[image_id][0])

    def listed(self):
        """Batches of the listing, in no order; labels are folders."""
        ids = sorted(self.photos, key=sha256_of_name)
        for start in range(0, len(ids), 7):
            some = ids[start : start + 7]
            yield pa.record_batch(
                [
                    some,
                    [f"/photos/{name}" for name in some],
                    [len(self.photos[name][0]) for name in some],
                    pa.array([self.photos[name][1] for name in some], pa.timestamp("us", "UTC")),
                    [name.partition("/")[0] if "/" in name else None for name in some],
                ],
                schema=LISTED_SCHEMA,
            )

    def good(self) -> dict[str, bytes]:
        return {name: at[0] for name, at in self.photos.items() if not at[0].startswith(b"bad")}

    def bad(self) -> set[str]:
        return set(self.photos) - set(self.good())

    def change(self, random_numbers: random.Random) -> None:
        """What happens in a day: photos are added, edited, deleted, moved, copied, touched."""
        for _ in range(random_numbers.randint(0, 5)):
            name = f"{random_numbers.randint(0, 3)}/{random_numbers.randint(0, 30)}"
            content = random_numbers.choice([b"", b"bad "]) + random_numbers.randbytes(2)
            other = random_numbers.choice([*sorted(self.photos), name])
            kinds = ["put", "put", "delete", "move", "copy", "touch", "swap"]
            self._change(random_numbers.choice(kinds), name, other, content)

    def _change(self, kind: str, name: str, other: str, content: bytes) -> None:
        if kind == "put":
            self.put(name, content)
        elif other not in self.photos or (kind == "delete" and len(self.good()) < 3):
            return
        elif kind == "delete":
            del self.photos[other]
        elif kind == "move":
            self.move(other, name)
        elif kind == "copy":
            self.put(name, self.photos[other][0])
        elif kind == "touch":
            self.touch(other)
        elif name in self.photos:
            self.photos[name], self.photos[other] = self.photos[other], self.photos[name]


def sha256_of_name(name: str) -> str:
    return sha256(name.encode())


class LoopExecutor:
    """The work of a night, photo after photo; tells what it has embedded and hashed."""

    def __init__(self, uri: str, gallery: Gallery, spec=SPEC, shard_rows: int = 4) -> None:
        self.uri, self.gallery, self.spec = uri, gallery, spec
        self.shard_rows = shard_rows
        self.embedded: list[str] = []
        self.hashed: list[str] = []

    def hash_photos(self, photos):
        ids = photos["image_id"].to_pylist()
        self.hashed += ids
        hashes = [sha256(self.gallery.photos[name][0]) for name in ids]
        return pa.table({"image_id": ids, "content_sha256": hashes})

    def embed(self, photos, options):
        parts = [
            photos.slice(start, self.shard_rows)
            for start in range(0, photos.num_rows, self.shard_rows)
        ]
        return [self._embed_part(part.to_pylist(), options) for part in parts]

    def _embed_part(self, photos, options):
        good, bad = [], []
        for photo in photos:
            content = self.gallery.photos[photo["image_id"]][0]
            self.embedded.append(photo["image_id"])
            if content.startswith(b"bad"):
                bad.append({**photo, "reason": "corrupt", "message": "no photo"})
                continue
            good.append(
                {
                    **photo,
                    "content_sha256": sha256(content),
                    "width": len(content),
                    "height": 1,
                    "embedding": vector_of(content, self.spec).tobytes(),
                }
            )
        return stage(
            self.uri,
            self.spec,
            (options.run_id, options.listed_us),
            pa.Table.from_pylist(good, index_schema(self.spec)),
            pa.Table.from_pylist(bad, INDEX_REJECT_SCHEMA),
        )

    def compact(self, groups):
        return [compact(self.uri, self.spec, group) for group in groups]

    def run(self, plan):
        """Do what a plan asks for, and nothing where there is nothing to do."""
        plan.settle(self.hash_photos(plan.to_hash) if plan.to_hash.num_rows else None)
        photos = plan.to_embed()
        receipts = self.embed(photos, plan.options) if photos.num_rows else []
        return finish(plan, receipts, self.compact(plan.rewrites) if len(plan.rewrites) else [])


def begin(uri: str, gallery: Gallery, executor: LoopExecutor, **settings):
    """All of a night but the commit."""
    seen = open_index(uri) if is_index(uri) else None
    options = UpdateOptions(
        run_id=f"run-{gallery.now_us}-{random.randbytes(3).hex()}",
        listed_us=gallery.now_us,
        shard_rows=executor.shard_rows,
        settled_us=0 if seen is None else last_check_us(seen),
        **settings,
    )
    with plan_update(uri, seen, executor.spec, gallery.listed(), options) as plan:
        return executor.run(plan)


def one_night(uri: str, gallery: Gallery, spec=SPEC, **settings):
    """A whole night a day later; gives the executor and the candidate."""
    gallery.now_us += DAY_US
    executor = LoopExecutor(uri, gallery, spec)
    candidate = begin(uri, gallery, executor, **settings)
    publish_candidate(candidate)
    return executor, candidate


def rows_of(uri: str, version: int | None = None) -> list[dict]:
    """All rows of a version, as an outside reader sees them."""
    files = DeltaTable(uri, version=version).file_uris()
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def check(uri: str, gallery: Gallery, spec=SPEC) -> None:
    """The version that is current is the gallery, and nothing but it, row by row."""
    rows = rows_of(uri)
    found = {row["image_id"]: row for row in rows}
    assert len(found) == len(rows), "an id twice"
    good = gallery.good()
    assert found.keys() == good.keys()
    for name, content in good.items():
        row = found[name]
        assert row["content_sha256"] == sha256(content)
        assert row["embedding"] == vector_of(content, spec).tobytes()
        assert row["size_bytes"] == row["width"] == len(content)
        assert row["modified_at"].timestamp() * 1_000_000 == gallery.photos[name][1]
        assert row["uri"] == f"/photos/{name}"
        assert row["label"] == (name.partition("/")[0] if "/" in name else None)
    index = open_index(uri)
    path = index.run.get("rejects")
    rejects = read_rejects(uri, [path] if path else [])
    assert sorted(rejects["image_id"].to_pylist()) == sorted(gallery.bad())
