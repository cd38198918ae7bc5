"""The work of `embed` without Ray."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.embed import Embedded
from retrieval.images.fetch import hash_photos
from retrieval.index import index_schema, stage
from retrieval.index.compaction import compact
from retrieval.index.staging import INDEX_REJECT_SCHEMA


class HereExecutor:
    """The work of updates in this process; a photo's vector is of its first bytes.

    Attributes:
        embedded: The ids of what was embedded into each index, by its address.
    """

    def __init__(self):
        self.embedded = {}

    def hash_images(self, images, update):
        hashes = hash_photos(images["uri"].to_pylist(), images["size_bytes"].to_pylist())
        return pa.table(
            {"image_id": images["image_id"], "content_sha256": pa.array(hashes, pa.string())}
        )

    def embed(self, images, update):
        good, bad, spec, options = [], [], update.network.spec, update.options
        if not images.num_rows:
            return Embedded()
        ids = self.embedded.setdefault(update.index, [])
        ids += images["image_id"].to_pylist()
        hashes = self.hash_images(images, update)["content_sha256"].to_pylist()
        for photo, content in zip(images.to_pylist(), hashes, strict=True):
            if "bad" in photo["image_id"]:
                bad.append({**photo, "reason": "corrupt", "message": "no photo"})
                continue
            vector = np.zeros(spec.dim, spec.dtype)
            vector[int(content, 16) % spec.dim] = 1
            row = {"content_sha256": content, "width": 1, "height": 1}
            good.append({**photo, **row, "embedding": vector.tobytes()})
        rows = pa.Table.from_pylist(good, index_schema(spec))
        rejects = pa.Table.from_pylist(bad, INDEX_REJECT_SCHEMA)
        run = (options.run_id, options.listed_us)
        return Embedded(receipts=[stage(update.index, spec, run, rows, rejects)])

    def compact(self, groups, update):
        return [compact(update.index, update.network.spec, group) for group in groups]
