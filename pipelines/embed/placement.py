"""How many actors hold the network, and what each of them books."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cluster import Resources

__all__ = ["Placement", "place_actors"]

# One copy of the network serves this many CPUs: its weights and torch itself, some 0.6 GB, are
# there once for all its threads.
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
    """

    num_actors: int
    num_calls: int
    num_cpus: float
    num_gpus: float
    decode_cpus: float

    @property
    def batch_size(self) -> int:
        """Photos of a forward pass, where the user names none."""
        return 256 if self.num_gpus else 32


def place_actors(there: Resources, num_actors: int | None) -> Placement:
    """One actor a GPU, or one per 16 CPUs; always leaves CPUs for decoding.

    Actors book half of the CPUs that they use: the network gets what decoding leaves, and
    decoding stops by itself when enough photos wait for the network. More actors than that
    share the same room: they book less each, so that no wish can book every CPU and leave the
    job waiting for its own decoding.
    """
    if there.num_gpus:
        wanted = num_actors or there.num_gpus
        # The CPUs of a GPU node are for decoding: a task each, since with more of them the
        # threads that feed the GPU would wait for a core.
        return Placement(wanted, _CALLS_ON_A_GPU, 0, min(1.0, there.num_gpus / wanted), 1)
    share = min(_CPUS_OF_A_COPY, *there.node_cpus)
    wanted = num_actors or sum(cpus // share for cpus in there.node_cpus)
    num_calls = min(share, max(1, there.num_cpus // wanted))
    room = there.num_cpus - len(there.node_cpus)  # one CPU a node for decoding
    booked = min(max(num_calls // 2, 0.5), max(room, 0.5) / wanted)
    booked = int(booked) if booked >= 1 else round(booked - 0.005, 2)
    return Placement(wanted, num_calls, booked, 0, decode_cpus=0.5)
