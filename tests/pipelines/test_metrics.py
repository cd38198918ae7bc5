"""What Prometheus reads from a node while a job runs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter

import numpy as np
import pytest
import ray

from pipelines import metrics
from pipelines.augment import AugmentConfig
from pipelines.augment import run as augment
from pipelines.embed import EmbedConfig
from pipelines.embed import run as embed
from pipelines.rank import RankConfig
from pipelines.rank import run as rank
from tests.conftest import make_index

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none")


def scrape():
    """All metrics of ours that the nodes export: {(name, labels): value}."""
    found = {}
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as reply:
            text = reply.read().decode()
        for name, labels, value in re.findall(r"^(ray_retrieval_\w+)\{(.*)\} (\S+)$", text, re.M):
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            ours = metrics._LABELS[name.removeprefix("ray_")]
            found[name, tuple(pairs[label] for label in ours)] = float(value)
    return found


def scrape_until(is_there):
    """The first scrape that shows something; what a driver tells is exported every second."""
    deadline = time.monotonic() + 60
    while not is_there(found := scrape()) and time.monotonic() < deadline:
        metrics.tell_again()
        time.sleep(0.1)
    assert is_there(found), found
    return found


def scrape_all():
    """A scrape that shows all that has been told by now."""
    mark = uuid.uuid4().hex
    metrics.tell_rejects({mark: 1})
    return scrape_until(lambda found: ("ray_retrieval_rejects_total", (mark,)) in found)


def rejects(found):
    return Counter(
        {
            labels[0]: int(value)
            for (name, labels), value in found.items()
            if name == "ray_retrieval_rejects_total" and len(labels[0]) < 32  # no mark
        }
    )


@pytest.fixture
def verb():
    """A command that no other test has told of."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    with metrics.of_verb(name):
        yield name


def test_embed_tells_what_its_report_says(photos, tmp_path, ray_session, verb):
    before = rejects(scrape_all())
    report = embed(str(photos), str(tmp_path / "index"), FAKE).to_json()
    found = scrape_all()
    listed = report["num_embedded"] + report["num_rejected"]
    assert listed == 12
    labels = (verb, "embedded", "photos")
    assert found["ray_retrieval_items_total", labels] == listed
    assert found["ray_retrieval_items_expected", labels] == listed
    assert rejects(found) - before == report["reject_reasons"]
    seconds = {
        labels[1]: value
        for (name, labels), value in found.items()
        if name == "ray_retrieval_step_seconds" and labels[0] == verb
    }
    # Also of the steps that ended before this process was connected.
    assert {"list", "load_model", "start_ray", "embed", "commit"} <= seconds.keys()
    assert seconds == {step: report["seconds"][step] for step in seconds}


def test_augment_and_rank_tell_of_their_items_too(photos, tmp_path, ray_session, verb):
    before = rejects(scrape_all())
    augmented = augment(
        str(photos), str(tmp_path / "more"), AugmentConfig(per_class=4, size=32), print
    )
    side = make_index(tmp_path / "side", ["a", "b"], np.eye(2, dtype=np.float16))
    rank(side.uri, side.uri, str(tmp_path / "ranking"), RankConfig(top_k=1, num_actors=1))
    found = scrape_all()
    assert rejects(found) - before == augmented.reject_reasons != {}
    labelled = augmented.num_originals + augmented.num_rejected
    dropped = sum(count for name, count in augmented.num_dropped.items() if name != "by_technique")
    made = augmented.num_originals + augmented.num_augmented + dropped
    items = {
        labels[1:]: value
        for (name, labels), value in found.items()
        if name == "ray_retrieval_items_total" and labels[0] == verb
    }
    assert items == {
        ("examined", "photos"): labelled,
        ("augmented", "images"): made,
        ("ranked", "parts"): 1,
    }


def test_a_count_that_falls_back_is_not_told_twice(ray_session, verb):
    items = metrics.Items("embedded", "photos", 10)
    for count in (3, 2, 5, 10, 10):
        items.tell({"embedded": count})
    found = scrape_all()
    assert found["ray_retrieval_items_total", (verb, "embedded", "photos")] == 10


def test_what_ended_is_forgotten():
    with metrics.of_verb("first"):
        metrics.tell_seconds("list", 1.0)
        assert metrics._gauges
    assert not metrics._gauges


def test_without_a_connected_ray_nothing_is_loaded():
    work = (
        "import sys\n"
        "from pipelines.metrics import Laps\n"
        "from pipelines.metrics import tell_rejects\n"
        "from pipelines.progress import progress_line\n"
        "with progress_line('ranked', 'parts', 3, lambda: 1):\n"
        "    Laps().end('open')\n"
        "    tell_rejects({'truncated': 1})\n"
        "assert 'ray' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
