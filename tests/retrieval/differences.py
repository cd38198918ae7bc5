"""Photos and rows as plain values, and a comparison of them told in plain values."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa

from retrieval.index.gallery_diff import LISTED_SCHEMA, open_difference
from retrieval.index.staging import INDEX_REJECT_SCHEMA

STORED_SCHEMA = pa.schema([*LISTED_SCHEMA, pa.field("content_sha256", pa.string())])
SETTLED_US = 100


def photo(image_id, content="abc", at=5, label="x", uri=None):
    """A photo, or a row of one; its content stands for its own hash."""
    return {
        "image_id": image_id,
        "uri": f"/{image_id}" if uri is None else uri,
        "size_bytes": len(content),
        "modified_at": at,
        "label": label,
        "content_sha256": content,
    }


def refusal(image_id, content="abc", at=5, reason="corrupt"):
    return {**photo(image_id, content, at), "reason": reason, "message": f"{reason}!"}


def batches(photos, schema=LISTED_SCHEMA, rows=2):
    return pa.Table.from_pylist(photos, schema).to_batches(rows)


def compare(listed, *shards, refused=(), settled_us=SETTLED_US, by_content=False, unreadable=()):
    """What the comparison says; `settled_us` is one number or one for each shard.

    Rows are told as (number of the shard, row in it).
    """
    num_shards = len(shards)
    settled = [settled_us] * num_shards if isinstance(settled_us, int) else settled_us
    contents = {each["image_id"]: each["content_sha256"] for each in listed}
    contents |= dict.fromkeys(unreadable)
    with open_difference() as difference:
        difference.add_listed(batches(listed))
        for number, rows in enumerate(shards):
            difference.add_stored(number, batches(rows, STORED_SCHEMA), settled[number])
        if refused:
            rejects = pa.Table.from_pylist(list(refused), INDEX_REJECT_SCHEMA)
            difference.add_refused(rejects, settled[0] if settled else settled_us)
        doubtful = difference.compare(by_content=by_content)
        hashed = doubtful["image_id"].to_pylist()
        hashes = pa.array([contents[name] for name in hashed], pa.string())
        difference.settle(
            pa.table({"image_id": pa.array(hashed, pa.string()), "content_sha256": hashes})
        )
        return SimpleNamespace(
            hashed=hashed,
            doubtful=doubtful,
            new=difference.to_embed()["image_id"].to_pylist(),
            rejected=difference.still_refused()["image_id"].to_pylist(),
            same=_rows(difference, num_shards, "same"),
            moved=_rows(difference, num_shards, "moved"),
            to_embed=difference.to_embed(),
            still_refused=difference.still_refused(),
            carried=[difference.carried(number, "same") for number in range(num_shards)],
            kept_by_file=difference.kept_by_file(),
            moved_by_file=difference.moved_by_file(),
            states=dict(difference.num_of_states()),
            num_unlabelled=difference.num_unlabelled(),
            num_removed=[difference.num_removed(live) for live in range(num_shards + 1)],
            num_of_later=[difference.num_of_later(live) for live in range(num_shards + 1)],
        )


def _rows(difference, num_shards, state):
    return {
        row["image_id"]: (number, row["row"])
        for number in range(num_shards)
        for row in difference.carried(number, state).to_pylist()
    }


def state_of(found, image_id):
    """The one state of a photo."""
    states = [state for state in ("same", "moved") if image_id in getattr(found, state)]
    states += [state for state in ("new", "rejected") if image_id in getattr(found, state)]
    (state,) = states
    return state
