"""What indexes and rankings hold, to the bit; run on one of the hosts.

    python -m tests.soak.bits URI ...

A hash of each, as a JSON list: of the ids and embeddings of an index, in the order of the ids, or
of the rows of a ranking.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np

from retrieval.index import is_index, read_index
from retrieval.ranking.files import open_ranking, read_parts

RANKING = ["query_id", "rank", "gallery_id", "score"]


def hash_of(uri: str) -> str:
    digest = hashlib.sha256()
    if is_index(uri):
        rows = read_index(uri)
        order = np.argsort(rows.ids)
        digest.update(repr([rows.ids[row] for row in order]).encode())
        digest.update(np.ascontiguousarray(rows.embeddings[order]).tobytes())
    else:
        for part in read_parts(open_ranking(uri), RANKING):
            digest.update(repr(part.to_pylist()).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps([hash_of(uri) for uri in sys.argv[1:]]))
