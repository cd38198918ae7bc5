"""What a job may use of a cluster, what it asks for, and the options that say so."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.cli.shared import site_options
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.nodes import (
    Node,
    Resources,
    beside_the_driver,
    resources,
    this_machine,
    usable,
)
from pipelines.ray_runtime.session import session
from retrieval.errors import ClusterError, UsageError

HEAD = Node(0, is_head=True, labels={"zone": "a"})
CPU = Node(16, labels={"zone": "a", "kind": "decode"})
L4 = Node(16, 1, labels={"zone": "a", "kind": "embed"})
FAR = Node(8, 4, labels={"zone": "b", "kind": "embed"})
ALL = [HEAD, CPU, L4, FAR]


@pytest.mark.parametrize(
    ("labels", "nodes"),
    [
        ({}, (CPU, L4, FAR)),
        ({"zone": "a"}, (CPU, L4)),
        ({"zone": "a", "kind": "embed"}, (L4,)),
        ({"zone": "c"}, ()),
        ({"colour": "a"}, ()),
    ],
)
def test_only_nodes_with_a_cpu_and_all_of_the_labels_count(labels, nodes):
    assert usable(Site(labels=labels), ALL) == Resources(nodes)


def test_resources_are_those_of_all_nodes_together():
    found = usable(Site(), ALL)
    assert (found.node_cpus, found.num_cpus, found.num_gpus) == ((16, 16, 8), 40, 5)


def test_a_cluster_without_a_node_to_work_on_is_an_error():
    with pytest.raises(ClusterError) as error:
        resources(Site(labels={"zone": "c"}), ALL)
    assert str(error.value) == (
        "Ray: no node of the cluster with zone=c has a CPU to work with. Add workers."
    )


@pytest.mark.parametrize(
    ("nodes", "actors_a_gpu", "cpus"),
    [
        ([(16, 1)], 1, 1),
        ([(2, 1)], 1, 1),
        ([(3, 2)], 1, 0.75),
        ([(1, 1)], 1, 0.5),
        ([(1, 8)], 1, 0.06),
        ([(16, 1), (3, 2)], 1, 0.75),  # the scarcest decides: any actor may go there
        ([(64,), (1, 1)], 1, 0.5),
        ([(16, 1)], 4, 1),
        ([(4, 1)], 4, 0.5),
    ],
)
def test_who_feeds_a_gpu_books_a_cpu_or_a_share_of_half_of_the_cpus(nodes, actors_a_gpu, cpus):
    there = Resources(tuple(Node(*node) for node in nodes))
    assert there.cpus_of_a_feeder(actors_a_gpu) == cpus


def test_this_machine_is_what_a_ray_of_this_process_would_have(ray_session):
    planned, found = this_machine(), resources(Site())
    assert planned.node_cpus == found.node_cpus
    assert planned.num_gpus == found.num_gpus
    (mine,), (theirs,) = planned.nodes, found.nodes
    assert mine.store_bytes == pytest.approx(theirs.store_bytes, rel=0.01)
    assert mine.is_head
    assert theirs.is_head


def test_an_actor_beside_the_driver_is_where_the_driver_is(ray_session):
    import ray

    here = ray.get_runtime_context().get_node_id()
    assert beside_the_driver() == {"label_selector": {"ray.io/node-id": here}}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"kind": "in(a,b)"},
            "`site.labels` kind=in(a,b): is no label of a Ray node. Use KEY=VALUE,",
        ),
        ({"kind": "!a"}, "`site.labels` kind=!a: is no label"),
        ({"": "a"}, "`site.labels` =a: is no label"),
        ({"kind": ""}, "`site.labels` kind=: is no label"),
    ],
)
def test_what_ray_would_read_as_something_else_is_no_label(labels, message):
    with pytest.raises(UsageError) as error:
        Site(labels=labels)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"min_cpus": 0}, "`min_cpus` 0: at least 1 is needed."),
        ({"min_gpus": -1}, "`min_gpus` -1: at least 0 is needed."),
    ],
)
def test_fewer_than_none_is_refused(wish, message):
    with pytest.raises(UsageError) as error:
        Site(**wish)
    assert str(error.value) == message


def invoke(*options):
    found = []

    @click.command()
    @site_options
    def command(site):
        found.append(site)

    done = CliRunner().invoke(command, options)
    return done, found


def test_the_options_give_a_command_one_site():
    options = [
        "--address",
        "auto",
        "--min-cpus",
        "3",
        "--min-gpus",
        "2",
        "--node",
        "a/b=c",
        "--node",
        "d=1.5",
    ]
    done, found = invoke(*options)
    assert done.exit_code == 0, done.output
    assert found == [Site("auto", 3, 2, {"a/b": "c", "d": "1.5"})]
    assert invoke()[1] == [Site()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-cpus", "0"], "'0' is not a whole number from 1 to 1048576."),
        (["--node", "kind"], "--node kind=: is no label of a Ray node."),
        (["--node", "a=b", "--node", "a=c"], "a is given twice; a node has one value of it."),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(options, message):
    done, found = invoke(*options)
    assert done.exit_code == 2
    assert message in done.output
    assert not found


@pytest.mark.parametrize(
    "verb", ["augment", "train", "embed", "retry-rejects", "rank", "reindex", "experiment"]
)
def test_every_job_of_a_cluster_has_the_options(verb):
    names = {name for option in main.commands[verb].params for name in option.opts}
    assert names >= {"--address", "--min-cpus", "--min-gpus", "--node"}


def test_a_ray_of_this_process_alone_does_not_wait_for_what_cannot_come(monkeypatch, ray_session):
    """In the session that is open: its own door passes `can_grow`."""
    from pipelines.ray_runtime.wait import wait_for_nodes

    with pytest.raises(ClusterError) as error:
        wait_for_nodes(Site(min_gpus=99), can_grow=False)
    cpus = resources(Site()).num_cpus
    assert str(error.value) == (
        f"Ray on this machine alone: {cpus} of 1 CPUs, {resources(Site()).num_gpus} of 99 GPUs, "
        f"and no other node can join it. Name a cluster by `address`, or ask for less."
    )


def test_nothing_is_asked_of_an_autoscaler_where_all_is_there(monkeypatch, ray_session):
    monkeypatch.setattr(
        "pipelines.ray_runtime.wait.placement_group", None
    )  # an error, if it were called
    with session(Site(min_cpus=2)):
        pass


def test_what_is_asked_of_an_autoscaler_is_taken_back(monkeypatch, ray_session):
    import ray

    monkeypatch.setattr("pipelines.ray_runtime.wait.PATIENCE_S", 1)
    with (
        pytest.raises(ClusterError, match="after 1 s of waiting there are"),
        session(Site(min_cpus=99)),
    ):
        pass
    groups = ray.util.placement_group_table().values()
    ours = [group for group in groups if len(group["bundles"]) == 99]
    assert [group["state"] for group in ours] == ["REMOVED"]
    assert all(bundle == {"CPU": 1.0} for group in ours for bundle in group["bundles"].values())
