"""The whole chain on several hosts gives the bits of one host."""

from __future__ import annotations

import json

import pytest

from retrieval.drawn import draw_gallery
from tests.hosts import why_not
from tests.ray_hosts import BUCKET, RayHosts

pytestmark = [pytest.mark.soak, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

# What an index and a ranking hold, to the bit.
_DIGEST = """
import hashlib, json, sys
import numpy as np
import pyarrow.parquet as pq
from retrieval.index import read_index
from retrieval.rankings import open_ranking
from retrieval.storage import list_files, open_input
found = {}
for uri in sys.argv[1:]:
    digest = hashlib.sha256()
    if '/ranking' in uri:
        for part in sorted(name for name in list_files(uri) if name.endswith('.parquet')):
            with open_input(part) as source:
                digest.update(repr(pq.read_table(source).to_pydict()).encode())
    else:
        rows = read_index(uri)
        order = np.argsort(rows.ids)
        digest.update(repr([rows.ids[row] for row in order]).encode())
        digest.update(np.ascontiguousarray(rows.embeddings[order]).tobytes())
    found[uri] = digest.hexdigest()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    drawn = draw_gallery(
        tmp_path_factory.mktemp("drawn"),
        num_classes=4, num_gallery_per_class=12, num_queries_per_class=3, num_distractors=4,
    )  # fmt: skip
    with RayHosts(tmp_path_factory.mktemp("logs"), num_cpus=1) as started:
        for name in ("gallery", "queries"):
            started.upload(getattr(drawn, name), name)
        yield started


@pytest.fixture(scope="module")
def laptop(hosts):
    return hosts.add_host("laptop")


def on_one_host(laptop, *verb):
    out = laptop.run("python", "-m", "pipelines.cli", *verb, timeout=600)
    return json.loads(out)


def digests(hosts, *uris):
    return list(json.loads(hosts.store.run("python", "-c", _DIGEST, *uris)).values())


def test_the_chain(hosts, laptop):
    photos = f"{BUCKET}/gallery"
    for place, run in (("many", hosts.submit), ("one", lambda *verb: on_one_host(laptop, *verb))):
        model = f"{BUCKET}/{place}/model"
        run(
            "train",
            photos,
            model,
            "--weights",
            "none",
            "--image-size",
            "64",
            "--epochs",
            "2",
            "--num-workers",
            "2",
        )
        for side in ("queries", "gallery"):
            run("embed", f"{BUCKET}/{side}", f"{BUCKET}/{place}/{side}", "--model", model)
        run(
            "rank",
            f"{BUCKET}/{place}/queries",
            f"{BUCKET}/{place}/gallery",
            f"{BUCKET}/{place}/ranking",
        )
    for what in ("queries", "gallery", "ranking"):
        many, one = digests(hosts, f"{BUCKET}/many/{what}", f"{BUCKET}/one/{what}")
        assert many == one
