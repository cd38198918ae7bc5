"""Streams one after the other, each started before it is asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["StreamsAhead"]

Item = TypeVar("Item")


class StreamsAhead(Generic[Item]):
    """Reads several streams in turn, in a thread that is some items ahead of the consumer.

    Starting a stream takes long against reading an item of it. The thread starts the next one
    as soon as it has read the last item of the one before, while the consumer still works on
    those that wait; so never more than one stream runs, and none that comes after the last.

    As a context it starts the thread and, however it is left, ends it: as soon as the item that
    is being read is there. The thread closes the stream that it was reading.

    Args:
        streams: In the order in which they are read; taken one by one, by the thread.
        depth: Items that wait or are being read, at least 1; the end of a stream is one, too.

    Example:
        >>> digits, letters = (item for item in "12"), (item for item in "ab")
        >>> with StreamsAhead([digits, letters], depth=2) as streams:
        ...     list(streams.next_stream()), list(streams.next_stream())
        (['1', '2'], ['a', 'b'])

    Cost: memory of depth + 2 items: those, the consumer's one, and the one that the stream still
        holds while the next is read.
    """

    def __init__(self, streams: Iterable[Generator[Item, None, None]], depth: int) -> None:
        self._streams = streams
        # An item, in a tuple; None, the end of its stream; or what ended the reading.
        self._ready: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
        self._slots, self._stopped = Semaphore(depth), Event()
        # A daemon: a process that is told to end need not wait for a stream that hangs.
        self._thread = Thread(target=self._read, name="streams-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._slots.release()
        self._thread.join()

    def next_stream(self) -> Iterator[Item]:
        """The items of the next stream. Must be read to its end before the one after it.

        Raises:
            BaseException: what the stream raised, as it is, after the items before it.
        """
        while (part := self._ready.get()) is not None:
            self._slots.release()
            if isinstance(part, BaseException):
                raise part
            yield part[0]
        self._slots.release()

    def _read(self) -> None:
        """The thread: one slot, one part. The slot comes first, or one item more would wait."""
        with closing(self._parts()) as parts:
            try:
                while self._slots.acquire() and not self._stopped.is_set():
                    self._ready.put(next(parts))
            except StopIteration:
                self._ready.put(RuntimeError("There is no stream after the last."))
            except BaseException as error:  # noqa: BLE001 - raised again in next_stream
                self._ready.put(error)

    def _parts(self) -> Generator[tuple[Item] | None, None, None]:
        for stream in self._streams:
            with closing(stream):
                for item in stream:
                    yield (item,)
            yield None
