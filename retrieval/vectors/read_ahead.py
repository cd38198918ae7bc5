"""Reading the next blocks while the last one is worked on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread

from retrieval.errors import UsageError
from retrieval.vectors.blocks import VectorBlock

__all__ = ["read_ahead"]

# What goes through the queue: one block; the error that ended the reading; nothing: the end.
# A list, so that the block can be taken out and no frame here holds on to it.
_Item = list[VectorBlock | BaseException]


def read_ahead(blocks: Iterator[VectorBlock], depth: int = 2) -> Iterator[VectorBlock]:
    """The same blocks in the same order, read by a thread of its own before they are asked for.

    Arrow and NumPy release the interpreter's lock, so that reading hides behind arithmetic.
    The thread starts with the first block asked for. It ends with the last block, with an error
    of the reader, which is raised here in its turn, or when the iterator is closed or dropped
    (by an error of the consumer or ctrl-C, too): then as soon as the block that is being read
    is there. It closes `blocks`, and with them their file, before it ends.

    Args:
        blocks: The reader; nobody else may use it any more.
        depth: Blocks that are ready or being read, at least 1, beside the consumer's one.

    Raises:
        UsageError: `depth` is less than 1.
        Exception: whatever the reader raises, unchanged, after the blocks before it.

    Cost: memory of depth + 2 blocks: those, the consumer's one, and while the next is read the
        one before it, which the reader still holds.
    """
    if depth < 1:
        raise UsageError(f"depth = {depth}: reading ahead needs at least 1 block.")
    return _read_ahead(blocks, depth)


def _read_ahead(blocks: Iterator[VectorBlock], depth: int) -> Iterator[VectorBlock]:
    ready: SimpleQueue[_Item] = SimpleQueue()
    slots, stopped = Semaphore(depth), Event()
    # A daemon, so that a second ctrl-C need not wait for a store that does not answer.
    arguments = (blocks, ready, slots, stopped)
    thread = Thread(target=_read, args=arguments, name="read-ahead", daemon=True)
    thread.start()
    try:
        while item := ready.get():
            slots.release()
            if isinstance(item[0], BaseException):
                raise item.pop()  # type: ignore[misc]
            yield item.pop()  # type: ignore[misc]
    finally:
        stopped.set()
        slots.release()
        thread.join()


def _read(
    blocks: Iterator[VectorBlock], ready: SimpleQueue[_Item], slots: Semaphore, stopped: Event
) -> None:
    """The thread: one slot, one block. The slot comes first, or one block more would wait."""
    try:
        while slots.acquire() and not stopped.is_set():
            ready.put([next(blocks)])
    except StopIteration:
        pass
    except BaseException as error:  # noqa: BLE001 (raised again by _read_ahead)
        ready.put([error])
    finally:
        try:
            if isinstance(blocks, Generator):
                blocks.close()
        finally:
            ready.put([])
