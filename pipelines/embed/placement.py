"""How many actors hold the network, and what each of them books."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.ray_runtime.nodes import HARDLY_ANY_CPU, Resources

__all__ = ["ACTOR_BYTES", "BLOCK_ROWS", "DECODE_BYTES", "Placement", "place_actors"]

# Rows of one decoding task: 128 decoded photos are 19 MB and a second or two of work for the
# network, so that at the end no thread has much more to do than the others. A task costs 15 ms
# beside decoding (0.6 s); a million photos make 8,000 tasks.
BLOCK_ROWS = 128
# What a decoding task usually needs, and an actor: torch and the weights of a network.
DECODE_BYTES = 2**28
ACTOR_BYTES = 600_000_000

# Five decoding tasks on three CPUs keep these at work while one ends and the next begins.
_DECODE_CPUS = 0.6

# One copy of the network serves this many CPUs: its weights and torch itself are there
# once for all its threads.
_CPUS_OF_A_COPY = 16
# On a GPU one batch is copied there while another one is computed.
_CALLS_ON_A_GPU = 2


@dataclass(frozen=True)
class Placement:
    """The actors.

    Attributes:
        num_actors: How many.
        num_calls: Batches that an actor embeds at a time, each in a thread of its own. On a
            CPU a forward pass has one thread: many small ones need not wait for each other,
            as the threads of one large pass do at every layer, also for those that a decoder
            has pushed from its core.
        num_cpus, num_gpus: What an actor books.
        decode_cpus: What a decoding task books.
        write_cpus, num_writes: What a task that writes books, and how many there may be: it is
            short, and waits for the disk. Ray Data
            shares out CPUs among stages: to one without an upper limit it gives a third of those
            that nobody books, and decoding was left a single task on two CPUs.
    """

    num_actors: int
    num_calls: int
    num_cpus: float
    num_gpus: float
    decode_cpus: float
    write_cpus: float = HARDLY_ANY_CPU

    @property
    def num_writes(self) -> int:
        """Writing tasks at a time.

        A shard of 64,000 photos takes one a second, or some where it goes to an object store; the
        photos of one actor take a minute.
        """
        return 1 + self.num_actors // 8

    @property
    def batch_size(self) -> int:
        """Photos that an actor is given at a time, where the user names no number.

        On a CPU they make four forward passes, on a GPU one.
        """
        return 256 if self.num_gpus else 32


def place_actors(there: Resources, num_actors: int | None, num_blocks: int) -> Placement:
    """One actor a GPU, or one per 16 CPUs, and none without work; always leaves CPUs for decoding.

    More actors than GPUs share these, equally many each: a part of one GPU is of no use to an
    actor that needs a larger one, and the job would wait for it.

    Args:
        there: Resources of the cluster.
        num_actors: As many as the user asks for, if so.
        num_blocks: Decoding tasks: an actor each at most.

    Actors on CPUs book hardly any, however many threads they have: the network gets what decoding
    leaves, and decoding stops by itself when enough photos wait for the network. An actor keeps
    what it books until its job ends; were it a share of the CPUs, some jobs at once could book all
    of them, and each would wait for ever for the others to let it decode.
    """
    if there.num_gpus:
        return _place_on_gpus(there, min(num_actors or there.num_gpus, num_blocks))
    share = min(_CPUS_OF_A_COPY, *there.node_cpus)
    wanted = min(num_actors or sum(cpus // share for cpus in there.node_cpus), num_blocks)
    num_calls = min(share, max(1, there.num_cpus // wanted))
    return Placement(wanted, num_calls, HARDLY_ANY_CPU, 0, _DECODE_CPUS)


def _place_on_gpus(there: Resources, num_actors: int) -> Placement:
    actors_a_gpu = -(-num_actors // there.num_gpus)
    share = math.floor(10_000 / actors_a_gpu) / 10_000  # Ray counts ten-thousandths
    num_cpus = there.cpus_of_a_feeder(actors_a_gpu)
    left = max(node.num_cpus - node.num_gpus * actors_a_gpu * num_cpus for node in there.nodes)
    # A decoding task a CPU, since with more of them the threads that feed the GPU would wait for
    # a core; less where there is no whole one.
    decode_cpus = 0.95 if left >= 0.95 + HARDLY_ANY_CPU else 0.45
    return Placement(num_actors, _CALLS_ON_A_GPU, num_cpus, share, decode_cpus)
