"""What an index on the store holds, as JSON; run on one of the hosts.

    python -m tests.soak.look INDEX [VERSION ...]

Rows and rejects of the newest version, its faults (every byte is read), and a hash of the rows of
each version named.
"""

from __future__ import annotations

import hashlib
import json
import sys

import pyarrow.parquet as pq

from retrieval.index import Index, open_index, read_index
from retrieval.maintenance.check import check_index
from retrieval.storage import join, open_input


def rows_of(uri: str, version: int | None = None) -> dict[str, str]:
    """Id → hash of its embedding."""
    rows = read_index(uri, version=version)
    vectors = zip(rows.ids, rows.embeddings, strict=True)
    return {str(name): hashlib.sha256(vector.tobytes()).hexdigest() for name, vector in vectors}


def contents_of(index: Index) -> dict[str, str]:
    """Id → hash of its photo."""
    found = {}
    for shard in index.shards:
        with open_input(join(index.uri, shard.path)) as source:
            table = pq.read_table(source, columns=["image_id", "content_sha256"])
        found |= dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return found


def main(uri: str, *versions: str) -> None:
    index = open_index(uri)
    found = {
        "version": index.version,
        "rows": rows_of(uri),
        "contents": contents_of(index),
        "num_rejected": index.run.get("num_rejected"),
        "faults": list(check_index(index).faults),
        "versions": {
            version: hashlib.sha256(
                repr(sorted(rows_of(uri, int(version)).items())).encode()
            ).hexdigest()
            for version in versions
        },
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
