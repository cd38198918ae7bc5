"""What could not be fetched is tried again by the night itself, and by workers if it is back."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import ImageError
from retrieval.gallery.listing import list_batches
from retrieval.images import fetch as fetching
from retrieval.images.fetch import fetch_photos, hash_photos
from retrieval.index import (
    UpdateOptions,
    estimate_update,
    index_schema,
    is_index,
    last_check_us,
    open_index,
    plan_update,
    publish,
    rejects,
)
from retrieval.index.gallery_diff import LISTED_SCHEMA
from retrieval.index.staging import INDEX_REJECT_SCHEMA, read_rejects, stage
from tests.retrieval.nights import DAY_US, LoopExecutor, sha256, vector_of

SHARD_ROWS = 4
FOREVER_NS = 4_000_000_000 * 10**9  # a time that no night can trust


class FetchingExecutor(LoopExecutor):
    """Hands that fetch real files, and refuse what cannot be fetched; content "bad" is no photo."""

    def hash_photos(self, photos):
        names = photos["image_id"].to_pylist()
        self.hashed += names
        hashes = hash_photos(photos["uri"].to_pylist(), photos["size_bytes"].to_pylist())
        return pa.table({"image_id": names, "content_sha256": pa.array(hashes, pa.string())})

    def embed(self, photos, options):
        good, bad = [], []
        contents = fetch_photos(photos["uri"].to_pylist(), photos["size_bytes"].to_pylist())
        for photo, content in zip(photos.to_pylist(), contents, strict=True):
            self.embedded.append(photo["image_id"])
            if isinstance(content, ImageError):
                bad.append({**photo, "reason": content.reason, "message": content.message})
            elif content.startswith(b"bad"):
                bad.append({**photo, "reason": "corrupt", "message": "no photo"})
            else:
                made = {"content_sha256": sha256(content), "width": 1, "height": 1}
                good.append({**photo, **made, "embedding": vector_of(content).tobytes()})
        good, bad = (
            pa.Table.from_pylist(rows, schema)
            for rows, schema in ((good, index_schema(self.spec)), (bad, INDEX_REJECT_SCHEMA))
        )
        return [stage(self.uri, self.spec, (options.run_id, options.listed_us), good, bad)]


class IdleExecutor(LoopExecutor):
    """Where executor are a cluster, asking starts it."""

    hash_photos = embed = compact = None


class Nights:
    """Nights over a folder or a manifest, a day apart and long after its files were written."""

    def __init__(self, gallery, index):
        self.gallery, self.uri = str(gallery), str(index)
        self.now_us = 3_000_000_000 * 10**6
        self.follow_links = False

    def _options(self, **settings):
        self.now_us += DAY_US
        seen = open_index(self.uri) if is_index(self.uri) else None
        options = UpdateOptions(
            run_id=f"run-{self.now_us}",
            listed_us=self.now_us,
            shard_rows=SHARD_ROWS,
            settled_us=0 if seen is None else last_check_us(seen),
            **settings,
        )
        batches = list_batches(self.gallery, follow_links=self.follow_links)
        labels = (
            batch.append_column("label", pa.nulls(len(batch), pa.string())) for batch in batches
        )
        return seen, [batch.select(LISTED_SCHEMA.names) for batch in labels], options

    def run(self, kind=FetchingExecutor, **settings):
        """Gives what was embedded, and the candidate."""
        executor = kind(self.uri, None)
        seen, listed, options = self._options(**settings)
        with plan_update(self.uri, seen, executor.spec, listed, options) as plan:
            candidate = executor.run(plan)
        publish(candidate)
        return executor.embedded, candidate

    def estimate(self):
        seen, listed, options = self._options()
        return estimate_update(
            self.uri, seen, LoopExecutor.__init__.__defaults__[0], listed, options
        )

    def reasons(self):
        path = open_index(self.uri).run.get("rejects")
        rejects = read_rejects(self.uri, [path] if path else [])
        return {row["image_id"]: row["reason"] for row in rejects.to_pylist()}

    def check_nothing_happens(self):
        version = open_index(self.uri).version
        seen = self.estimate()
        assert (seen.num_new, seen.num_changed, seen.num_rewritten_shards) == (0, 0, 0)
        _, candidate = self.run(IdleExecutor)
        assert candidate.is_unchanged
        assert candidate.counts.num_rejected_now == 0
        assert open_index(self.uri).version == version


LINKS = {
    "outside": "../outside/o.jpg",
    "outside and nowhere": "../outside/nothing",
    "folder outside": "../outside",
    "nowhere": "nothing",
    "loop": "odd.jpg",
    "below a file": "a.jpg/x",
}


def break_as(kind, path):
    """Put something at a path that cannot be fetched."""
    if kind in LINKS:
        path.symlink_to(LINKS[kind])
    elif kind == "not UTF-8":
        path.with_name(os.fsdecode(b"\xfc.jpg")).write_bytes(b"x")
    else:
        path.touch()
        os.truncate(path, 2**29 + 1)
        os.utime(path, ns=(0, FOREVER_NS))


@pytest.fixture
def nights(tmp_path):
    """A gallery whose index has two small shards, which a night with any work would join."""
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.jpg").write_bytes(b"outside")
    nights = Nights(gallery, tmp_path / "index")
    for name in ("a", "b"):
        (gallery / f"{name}.jpg").write_bytes(name.encode())
        nights.run()
    return nights


@pytest.mark.parametrize("kind", [*LINKS, "not UTF-8", "too large"])
def test_a_night_without_a_change_does_nothing_whatever_cannot_be_fetched(nights, tmp_path, kind):
    break_as(kind, tmp_path / "gallery" / "odd.jpg")
    embedded, candidate = nights.run()
    assert (len(embedded), candidate.counts.num_rejected_now) == (1, 1)
    nights.check_nothing_happens()
    assert len(nights.reasons()) == 1
    assert nights.run(by_content=True)[0] == []  # the others are hashed, and the same


@pytest.mark.parametrize("kind", ["outside", "nowhere", "loop", "folder outside"])
def test_a_link_that_starts_to_work_is_noticed(nights, tmp_path, kind):
    """By what is at its end; the link itself may be as it was."""
    link = tmp_path / "gallery" / "odd.jpg"
    break_as(kind, link)
    nights.run()
    nights.check_nothing_happens()
    if kind == "nowhere":
        (tmp_path / "gallery" / "nothing").write_bytes(b"there")
        embedded, _ = nights.run()
        assert embedded == ["nothing", "odd.jpg"]
    elif kind == "loop":
        link.unlink()
        link.symlink_to("a.jpg")
        assert nights.run()[0] == ["odd.jpg"]
    else:
        nights.follow_links = True
        embedded, _ = nights.run()
        assert embedded == ["odd.jpg" if kind == "outside" else "odd.jpg/o.jpg"]
    assert nights.reasons() == {}


ROWS = {
    "https": "https://example.org/1.jpg",
    "nul": "/photos/\0.jpg",
    "gone": "{}/gone.jpg",
    "pipe": "{}/pipe",
    "device": "/dev/zero",
    "folder": "{}/folder",
    "link": "{}/link",
    "no bucket": "s3:///k.jpg",
}


@pytest.mark.parametrize("modified_at", [1, 0, FOREVER_NS // 1000])
def test_rows_of_a_manifest_alike(tmp_path, modified_at):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "good.jpg").write_bytes(b"good")
    rows = {**ROWS, "good": "{}/good.jpg"}
    listed = {
        "image_id": list(rows),
        "uri": [uri.format(tmp_path) for uri in rows.values()],
        "size_bytes": [4] * len(rows),
        "modified_at": pa.array([modified_at] * (len(rows) - 1) + [1], pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(listed), tmp_path / "list.parquet")
    nights = Nights(tmp_path / "list.parquet", tmp_path / "index")
    embedded, _ = nights.run()
    assert embedded == sorted(rows)
    assert nights.reasons() == {
        name: "missing" if name in ("gone", "link") else "unreadable" for name in ROWS
    }
    nights.check_nothing_happens()
    (tmp_path / "gone.jpg").write_bytes(b"here")
    (tmp_path / "nothing").write_bytes(b"here")
    embedded, _ = nights.run()
    assert {"gone", "link"} <= set(embedded)
    assert nights.reasons().keys() == ROWS.keys() - {"gone", "link"}


def test_what_may_be_read_again_is_noticed_though_its_file_is_the_same(
    nights, tmp_path, monkeypatch
):
    """As where a store was down, or a right was missing."""
    late = tmp_path / "gallery" / "late.jpg"
    late.write_bytes(b"late")
    refused = {str(late)}
    read_bytes = fetching.read_bytes

    def read(uri):
        if uri in refused:
            raise PermissionError(13, "Permission denied", uri)
        return read_bytes(uri)

    monkeypatch.setattr(fetching, "read_bytes", read)
    nights.run()
    assert nights.reasons() == {"late.jpg": "unreadable"}
    nights.check_nothing_happens()
    refused.clear()
    assert nights.run()[0] == ["late.jpg"]
    assert nights.reasons() == {}


def test_rejects_that_are_many_are_tried_until_one_is_back_or_the_time_is_up(
    nights, tmp_path, monkeypatch
):
    """The rest is for workers, who are many and start anyway."""
    monkeypatch.setattr(rejects, "_TRIED_AT_ONCE", 2)
    names = [f"n{number}" for number in range(6)]
    for name in names:
        (tmp_path / "gallery" / name).symlink_to(f"to-{name}")
    nights.run()
    nights.check_nothing_happens()
    (tmp_path / "gallery" / "to-n3").write_bytes(b"there")
    assert nights.run()[0] == ["n2", "n3", "n4", "n5", "to-n3"]
    assert nights.reasons().keys() == set(names) - {"n3"}
    monkeypatch.setattr(rejects, "_TRY_S", -1.0)
    assert nights.run()[0] == ["n2", "n4", "n5"]


def test_all_are_tried_by_workers_where_that_is_asked_for(nights, tmp_path):
    break_as("nowhere", tmp_path / "gallery" / "odd.jpg")
    nights.run()
    assert nights.run(retry_rejects=True)[0] == ["odd.jpg"]
