"""Work goes to the actors that have started; those without room are not waited for."""

from __future__ import annotations

import os

import pytest
import ray

from pipelines.rank.actors import Pool

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote
class Squarer:
    def is_ready(self):
        pass

    def square(self, number):
        if number < 0:
            raise ValueError("a negative number")
        return number**2, os.getpid()


def squares(pool, numbers):
    return list(pool.map(lambda actor, number: actor.square.remote(number), numbers))


def test_each_task_is_done_once_though_most_actors_have_no_room():
    each = ray.cluster_resources()["CPU"] / 2
    pool = Pool([Squarer.options(num_cpus=each).remote() for _ in range(5)])
    for numbers in (range(20), [7], []):
        found = squares(pool, numbers)
        answers = sorted((number, square) for number, (square, _) in found)
        assert answers == [(place, number**2) for place, number in enumerate(numbers)]
        assert len({process for _, (_, process) in found}) <= 2


def test_an_actor_that_gets_room_later_joins_in():
    whole = ray.cluster_resources()["CPU"]
    first = Squarer.options(num_cpus=whole).remote()
    ray.get(first.is_ready.remote())
    pool = Pool([Squarer.options(num_cpus=whole).remote()])
    ray.kill(first)
    assert [square for _, (square, _) in squares(pool, [3])] == [9]


def test_what_a_task_raises_is_raised_here():
    pool = Pool([Squarer.options(num_cpus=0.1).remote()])
    with pytest.raises(ValueError, match="a negative number"):
        squares(pool, [1, -1])
