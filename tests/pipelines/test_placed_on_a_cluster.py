"""Where jobs run on a cluster of several nodes, and how they wait for nodes that are to come."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from dataclasses import asdict

import pytest

from pipelines.ray_runtime.cluster_options import Site
from retrieval.ranking.search_parts import this_machine_has_gpu
from tests.conftest import draw_photos
from tests.pipelines.logical_cluster import logical_cluster
from tests.pipelines.placed import NOTES


class Jobs:
    """Runs jobs on a cluster: a head without CPUs, a node with 2, one with 3 and 2 GPUs."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        self.names = {
            cluster.add(num_cpus=2, labels={"role": "decode"}): "cpu",
            cluster.add(num_cpus=3, num_gpus=2, labels={"role": "embed"}): "gpu",
        }

    def run(self, job, before="", **site):
        """A job's answer, and the notes of its stages."""
        done = self.try_run(job, before, **site)
        assert done.returncode == 0, done.stderr
        notes = [json.loads(file.read_text()) for file in (self.folder / "notes").iterdir()]
        for note in notes:
            note["node"] = self.names.get(note["node"], "head")
        return json.loads(done.stdout), notes

    def try_run(self, job, before="", **site):
        for file in (self.folder / "notes").iterdir():
            file.unlink()
        code = f"from tests.pipelines import placed\n{before}\nplaced.main()"
        wish = json.dumps(asdict(Site(self.cluster.address, **site)))
        return self.cluster.run(code, job, str(self.folder), wish)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("placed")
    (folder / "notes").mkdir()
    for number in range(6):
        draw_photos(folder / "photos" / str(number))
    with logical_cluster(**{NOTES: str(folder / "notes")}) as cluster:
        yield Jobs(cluster, folder)


def test_a_gpu_has_one_actor_which_books_its_core_and_the_head_does_nothing(jobs):
    report, notes = jobs.run("embed_photos")
    assert report["num_embedded"] == 60
    actors = [note for note in notes if note["stage"] == "load"]
    assert sorted(actor["gpus"] for actor in actors) == [["0"], ["1"]]
    assert {actor["node"] for actor in actors} == {"gpu"}
    # Two actors and one more decoding task fill the node of 3 CPUs.
    assert [actor["booked"] for actor in actors] == [{"CPU": 0.75, "GPU": 1.0}] * 2
    assert {"decode", "write"} < {note["stage"] for note in notes}
    assert all(note["booked"]["CPU"] > 0 for note in notes)
    assert "head" not in {note["node"] for note in notes}


def test_a_label_keeps_all_of_a_job_on_the_nodes_that_carry_it(jobs):
    _, notes = jobs.run("scan_and_embed", labels={"role": "decode"})
    assert {note["stage"] for note in notes} == {"scan", "decode", "load", "embed", "write"}
    assert {note["node"] for note in notes} == {"cpu"}


@pytest.mark.skipif(this_machine_has_gpu(), reason="its GPUs would rank")
def test_gpus_that_are_counted_but_not_there_are_named_by_a_job_that_ranks(jobs):
    done = jobs.try_run("rank_vectors")
    assert done.returncode == 1
    message = f"Ray: node {socket.gethostname()} offers GPUs, but torch finds none there. Mend its"
    assert message in done.stderr.splitlines()[-1]


def test_gpus_that_other_jobs_hold_are_waited_for_and_then_named(jobs):
    done = jobs.try_run(
        "embed_beside_another",
        "from pipelines.ray_runtime import session;session._ACTORS_START_S = 3",
    )
    assert done.returncode == 1
    message = "ClusterError: Ray: not all actors of this job have started within 3 s: most "
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.skipif(this_machine_has_gpu(), reason="its GPUs would do the work")
@pytest.mark.parametrize(
    ("job", "who"),
    [
        ("rank_beside_another", "the actors"),
        pytest.param("train_beside_another", "the workers", marks=pytest.mark.soak),
    ],
)
def test_that_gpus_are_not_free_is_told_while_they_are_waited_for(jobs, job, who):
    done = jobs.try_run(job)
    assert re.search(rf"starting {who}, [1-5] s: 0 of 2 GPUs are free\n", done.stderr)
    assert done.returncode == 1  # they were let go, and are none that torch knows
    assert "offers GPUs, but torch finds none there" in done.stderr.splitlines()[-1]


FEW_SECONDS = "from pipelines.ray_runtime import wait; wait.PATIENCE_S = 1"


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (
            {"min_cpus": 9, "min_gpus": 2},
            "there are 5 of 9 CPUs, 2 of 2 GPUs. Add workers,",
        ),
        (
            {"labels": {"role": "rank"}},
            "there are 0 of 1 CPUs with role=rank. Labels there: role=decode, role=embed. Add",
        ),
    ],
)
def test_nodes_that_never_come_are_an_error_that_says_what_is_there(jobs, site, message):
    done = jobs.try_run("look_around", FEW_SECONDS, **site)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]


def test_a_job_that_begins_before_its_nodes_waits_for_them(jobs):
    def bring():
        time.sleep(5)
        jobs.cluster.add(num_cpus=1, labels={"role": "late"})

    thread = threading.Thread(target=bring)
    thread.start()
    done = jobs.try_run("look_around", labels={"role": "late"})
    thread.join()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 4
