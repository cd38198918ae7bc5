"""Where actors and workers go: decoding always finds room, whatever is asked for."""

from __future__ import annotations

import math

import pytest

from pipelines.embed.placement import place_actors
from pipelines.rank.placement import place_scorers
from pipelines.ray_runtime.nodes import Node, Resources
from pipelines.train.placement import DECODE_CPUS, place_workers
from retrieval.errors import UsageError

MANY = 10_000  # decoding tasks


def machines(*nodes):
    """A machine for each number of CPUs, or pair of CPUs and GPUs."""
    return Resources(
        tuple(Node(*node) if isinstance(node, tuple) else Node(node) for node in nodes)
    )


def left_by(there, count, num_cpus, num_gpus=0.0):
    """CPUs that each node has left when so many actors have been put wherever they fit.

    Ray may choose any node. Those with the fewest CPUs left are filled first here: it is the
    worst that can happen to who comes after.
    """
    cpus = [float(node.num_cpus) for node in there.nodes]
    gpus = [[1.0] * node.num_gpus for node in there.nodes]  # a part of one is of one
    for _ in range(count):
        fitting = [
            number
            for number, left in enumerate(cpus)
            if left >= num_cpus - 1e-9
            and (not num_gpus or any(gpu >= num_gpus - 1e-9 for gpu in gpus[number]))
        ]
        assert fitting, "an actor would wait for ever"
        number = min(fitting, key=lambda fit: cpus[fit])
        cpus[number] -= num_cpus
        if num_gpus:
            gpu = next(n for n, left in enumerate(gpus[number]) if left >= num_gpus - 1e-9)
            gpus[number][gpu] -= num_gpus
    return cpus


@pytest.mark.parametrize("num_actors", [None, 1, 2, 3, 8, 40])
@pytest.mark.parametrize("nodes", [(1,), (2,), (4,), (16,), (1, 2), (2, 2), (8, 8, 4), (64,) * 9])
def test_actors_leave_room_for_decoding_and_each_fits_on_a_node(nodes, num_actors):
    there = machines(*nodes)
    place = place_actors(there, num_actors, MANY)
    assert place.num_actors == (num_actors or place.num_actors) >= 1
    assert place.num_calls >= 1
    assert place.num_gpus == 0
    left = left_by(there, place.num_actors, place.num_cpus)
    assert max(left) >= place.write_cpus + place.decode_cpus > 0  # the other stages


@pytest.mark.parametrize("nodes", [(1,), (2,), (4,), (16,), (1, 2), (64,) * 9])
def test_some_jobs_at_once_leave_room_for_the_decoding_of_each(nodes):
    there, num_jobs = machines(*nodes), 5
    embed, train = place_actors(there, None, MANY), place_workers(there, None)
    booked = embed.num_actors * embed.num_cpus + embed.num_writes * embed.write_cpus
    booked += train.num_workers * train.num_cpus
    left = sum(nodes) - num_jobs * booked
    assert left / len(nodes) >= max(embed.decode_cpus, DECODE_CPUS)  # so some node has as much


GPU_CLUSTERS = [
    ((1, 1),),
    ((2, 1),),
    ((3, 2),),
    ((1, 8),),
    ((16, 1), (16, 1)),
    ((16, 4), (2, 2), (8, 1)),
    (64, (4, 2)),
    (2, (1, 1)),
    (1, (192, 8)),
]


@pytest.mark.parametrize("num_actors", [None, 1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("nodes", GPU_CLUSTERS)
def test_on_gpus_every_actor_fits_and_decoding_has_room_that_is_not_a_feeders(nodes, num_actors):
    there = machines(*nodes)
    place = place_actors(there, num_actors, MANY)
    assert place.num_actors == (num_actors or there.num_gpus)
    assert 0 < place.num_cpus <= 1
    left = left_by(there, place.num_actors, place.num_cpus, place.num_gpus)
    assert max(left) >= place.write_cpus + place.decode_cpus
    actors_a_gpu = math.floor(1 / place.num_gpus + 1e-3)
    for node in there.nodes:
        wanted = node.num_gpus * actors_a_gpu
        if node.num_cpus >= 2 * wanted:  # enough for all: a whole one each, where all have
            assert place.num_cpus == 1 or any(
                other.num_cpus < 2 * other.num_gpus * actors_a_gpu for other in there.nodes
            )


@pytest.mark.parametrize("nodes", [(2,), (4,), (16,), (2, 2), (64,) * 9, (20, 40), (1,)])
def test_by_default_every_cpu_has_a_thread_of_the_network_and_none_has_two(nodes):
    place = place_actors(machines(*nodes), None, MANY)
    threads = place.num_actors * place.num_calls
    assert threads <= sum(nodes)
    assert threads >= 0.75 * sum(nodes)  # a node of 20 CPUs has one copy for 16 of them
    assert place.num_calls <= min(nodes)  # a copy fits on the smallest node


def test_the_cases_of_a_laptop_a_server_and_a_gpu_node():
    laptop = place_actors(machines(2), None, MANY)
    server = place_actors(machines(64), None, MANY)
    assert (laptop.num_actors, laptop.num_calls, laptop.num_cpus) == (1, 2, 0.001)
    assert (server.num_actors, server.num_calls, server.num_cpus) == (4, 16, 0.001)
    one = place_actors(machines((16, 1)), None, MANY)
    four = place_actors(machines((16, 2)), 4, MANY)
    assert (one.num_actors, one.num_calls, one.num_cpus, one.num_gpus) == (1, 2, 1, 1)
    assert (four.num_actors, four.num_calls, four.num_cpus, four.num_gpus) == (4, 2, 1, 0.5)
    assert (laptop.batch_size, one.batch_size) == (32, 256)
    assert (laptop.decode_cpus, one.decode_cpus) == (0.6, 0.95)


def test_four_actors_on_three_gpus_of_two_nodes_share_two_and_two():
    # by 3/4 of a GPU each the fourth would wait for ever: no GPU has as much left
    place = place_actors(machines((8, 2), (8, 1)), 4, MANY)
    assert (place.num_actors, place.num_gpus) == (4, 0.5)


@pytest.mark.parametrize(("num_gpus", "num_actors"), [(0, None), (0, 6), (4, None), (4, 8)])
def test_a_night_of_few_photos_has_no_actor_without_work(num_gpus, num_actors):
    there = machines((64, num_gpus), 64)
    assert place_actors(there, num_actors, 1).num_actors == 1
    assert place_actors(there, num_actors, 3).num_actors == 3


@pytest.mark.parametrize("nodes", [*GPU_CLUSTERS, (2,), (1,), (16, 4), (1, 64)])
def test_one_ranks_on_each_gpu_or_each_cpu_and_all_of_them_fit(nodes):
    there = machines(*nodes)
    for on_gpu in {False, there.num_gpus > 0}:
        most = there.num_gpus if on_gpu else there.num_cpus
        for num_actors, work_ns in ((None, 1e15), (None, 0), (1, 1e15), (10_000, 0)):
            place = place_scorers(there, num_actors, work_ns, on_gpu=on_gpu)
            assert 1 <= place.num_actors <= most
            assert place.num_gpus == int(on_gpu)
            left_by(there, place.num_actors, place.num_cpus, place.num_gpus)
        assert place.num_actors == most


def test_little_work_is_ranked_by_few_cpus():
    assert place_scorers(machines(64), None, 2.5e9, on_gpu=False).num_actors == 3


@pytest.mark.parametrize("num_workers", [None, 1, 2, 3, 8, (1, 2), (2, 8)])
@pytest.mark.parametrize("nodes", [(1,), (2,), (16,), (2, 2), (4, 16)])
def test_workers_without_gpus_fit_and_leave_room_for_decoding(nodes, num_workers):
    there = machines(*nodes)
    place = place_workers(there, num_workers)
    assert place.num_workers == (num_workers or len(nodes))
    most = max(place.num_workers) if isinstance(place.num_workers, tuple) else place.num_workers
    assert max(left_by(there, most, place.num_cpus)) >= DECODE_CPUS
    assert place.num_threads >= 1
    assert place.num_decoders >= 1


@pytest.mark.parametrize("nodes", GPU_CLUSTERS)
def test_a_worker_has_a_gpu_and_leaves_room_for_decoding(nodes):
    there = machines(*nodes)
    place = place_workers(there, None)
    assert (place.num_workers, place.num_gpus) == (there.num_gpus, 1)
    assert max(left_by(there, there.num_gpus, place.num_cpus, 1)) >= DECODE_CPUS
    assert place.num_decoders is None


def test_more_workers_than_gpus_are_refused_but_may_come_later():
    there = machines((16, 2))
    assert place_workers(there, (2, 8)).num_workers == (2, 8)
    for num_workers in (3, (3, 8)):
        with pytest.raises(UsageError) as error:
            place_workers(there, num_workers)
        assert str(error.value) == (
            "`num_workers` 3: the cluster has 2 GPUs, and a worker needs one of its own. Use at "
            "most 2, or wait for more: `min_gpus`."
        )
