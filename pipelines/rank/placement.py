"""How many actors rank, and what each of them books."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.ray_runtime.nodes import Resources

__all__ = ["Placement", "place_scorers"]

# Nanoseconds of work that keep an actor busy for about a second, which is what starting one
# costs: little work is done by few actors.
_NS_PER_ACTOR = 1e9


@dataclass(frozen=True)
class Placement:
    """The actors.

    Attributes:
        num_actors: How many.
        num_cpus, num_gpus: What an actor books.
    """

    num_actors: int
    num_cpus: float
    num_gpus: int


def place_scorers(
    there: Resources, num_actors: int | None, work_ns: float, *, on_gpu: bool
) -> Placement:
    """One actor a GPU, or at most one a CPU and no more than have about a second to do.

    Args:
        there: Resources of the cluster.
        num_actors: As many as the user asks for, if so; one more than there are CPUs or GPUs
            would never start.
        work_ns: Nanoseconds of one core that the whole job is expected to take.
        on_gpu: Whether GPUs rank.
    """
    most = there.num_gpus if on_gpu else there.num_cpus
    useful = most if on_gpu else 1 + int(work_ns / _NS_PER_ACTOR)
    count = max(1, min(num_actors or useful, most))
    if on_gpu:
        return Placement(count, there.cpus_of_a_feeder(), 1)
    return Placement(count, 1, 0)
