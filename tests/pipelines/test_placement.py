"""Where the actors of `embed` go: decoding always finds room, whatever is asked for."""

from __future__ import annotations

import pytest

from pipelines.cluster import Resources
from pipelines.embed.placement import place_actors

MANY = 10_000  # decoding tasks


@pytest.mark.parametrize("num_actors", [None, 1, 2, 3, 8, 40])
@pytest.mark.parametrize("nodes", [(1,), (2,), (4,), (16,), (1, 2), (2, 2), (8, 8, 4), (64,) * 9])
def test_actors_leave_room_for_decoding_and_each_fits_on_a_node(nodes, num_actors):
    place = place_actors(Resources(nodes, 0), num_actors, MANY)
    assert place.num_actors == (num_actors or place.num_actors) >= 1
    assert place.num_calls >= 1
    assert place.num_gpus == 0
    assert 0 < place.decode_cpus < 0.5
    one_each = place.write_cpus + place.decode_cpus  # of the other stages
    assert place.num_actors * place.num_cpus + one_each <= sum(nodes)
    assert place.num_cpus <= max(nodes)
    assert place.num_cpus < 1 or place.num_cpus == int(place.num_cpus)  # Ray's rule


@pytest.mark.parametrize("nodes", [(1,), (2,), (4,), (16,), (2, 2), (64,) * 9, (20, 40)])
def test_by_default_every_cpu_has_a_thread_of_the_network_and_none_has_two(nodes):
    place = place_actors(Resources(nodes, 0), None, MANY)
    threads = place.num_actors * place.num_calls
    assert threads <= sum(nodes)
    assert threads >= 0.75 * sum(nodes)  # a node of 20 CPUs has one copy for 16 of them
    assert place.num_calls <= min(nodes)  # a copy fits on the smallest node


def test_the_cases_of_a_laptop_a_server_and_a_gpu_node():
    laptop = place_actors(Resources((2,), 0), None, MANY)
    server = place_actors(Resources((64,), 0), None, MANY)
    assert (laptop.num_actors, laptop.num_calls, laptop.num_cpus) == (1, 2, 0.5)
    assert (server.num_actors, server.num_calls, server.num_cpus) == (4, 16, 4)
    one = place_actors(Resources((16,), 1), None, MANY)
    four = place_actors(Resources((16,), 2), 4, MANY)
    assert (one.num_actors, one.num_calls, one.num_cpus, one.num_gpus) == (1, 2, 0, 1)
    assert (four.num_actors, four.num_calls, four.num_cpus, four.num_gpus) == (4, 2, 0, 0.5)
    assert (laptop.batch_size, one.batch_size) == (32, 256)
    assert (laptop.decode_cpus, one.decode_cpus) == (0.45, 0.95)


@pytest.mark.parametrize(("num_gpus", "num_actors"), [(0, None), (0, 6), (4, None), (4, 8)])
def test_a_night_of_few_photos_has_no_actor_without_work(num_gpus, num_actors):
    there = Resources((64, 64), num_gpus)
    assert place_actors(there, num_actors, 1).num_actors == 1
    assert place_actors(there, num_actors, 3).num_actors == 3
