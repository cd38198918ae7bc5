"""Files as the first release, 0.1.0, wrote them, made of those of today."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from retrieval.vectors import open_source


def as_first_release(ranking):
    """Make a manifest one of the first release, which hashed the addresses of the shards."""
    file = Path(ranking, "_ranking.json")
    facts = json.loads(file.read_text())
    del facts["format_version"], facts["score_rule"], facts["ids_sum"]
    for name in ("queries", "gallery"):
        side = facts[name]
        source = open_source(side["uri"], version=side["version"])
        names = [[held.uri, held.num_rows] for held in source.files]
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        facts[name] = {
            ("shards_sha256" if key == "content_sha256" else key): value
            for key, value in side.items()
        } | {"shards_sha256": digest if side["content_sha256"] else None}
    file.unlink()
    file.with_name("ranking.json").write_text(json.dumps(facts, indent=2) + "\n")
