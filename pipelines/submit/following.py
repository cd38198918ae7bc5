"""Follow a job to its end, over connections that are lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import aiohttp
from ray.job_submission import JobDetails

from pipelines.progress import announce
from pipelines.submit.log import ReportSplitter
from pipelines.submit.server import JobServer, ServerError
from retrieval.errors import ClusterError

__all__ = ["Follower"]

_PATIENCE_S = 300.0  # without a word from the server
_LONGEST_PAUSE_S = 15.0
_LOOK_EVERY_S = 1.0  # at the job, while its log is silent
_MAX_SILENT_LOOKS = 60  # then the connection is made anew: it can die without a sign


class Follower:
    """Passes on a job's log, each line once.

    Attributes:
        run_id: The job.
    """

    def __init__(self, server: JobServer, run_id: str, splitter: ReportSplitter) -> None:
        """Args: `run_id` is the job; `splitter` takes its log."""
        self._server = server
        self.run_id = run_id
        self._splitter = splitter
        self._num_seen = 0  # characters; the server sends the log from its start each time
        self._heard_at = time.monotonic()
        self._is_told = False  # that the connection is lost

    def wait(self) -> JobDetails:
        """Pass the log on until the job has ended; called again, it goes on where it was.

        Raises:
            ClusterError: the server did not answer for five minutes, or has lost the job.
        """
        self._hear()
        while True:
            try:
                job = self._server.info(self.run_id)
                if job.status.is_terminal():
                    self._take(self._server.log(self.run_id), position=0)
                    self._splitter.close()
                    return job
                asyncio.run(self._pass_on())
                self._hear()
            except (aiohttp.ClientError, OSError, RuntimeError, ServerError) as error:
                self._bear(error)

    async def _pass_on(self) -> None:
        """Pass the log on as it comes."""
        position = 0
        async with aclosing(self._server.tail(self.run_id)) as log:
            while (text := await self._next(log)) is not None:
                self._take(text, position)
                position += len(text)
                self._hear()

    async def _next(self, log: AsyncGenerator[str, None]) -> str | None:
        """The next part of the log; None after the last, or after a long silence.

        The server itself tells the end of the log only seconds after the end of the job.
        """
        part = asyncio.ensure_future(anext(log, None))
        try:
            for _ in range(_MAX_SILENT_LOOKS):
                if (await asyncio.wait({part}, timeout=_LOOK_EVERY_S))[0]:
                    return part.result()
                if self._server.info(self.run_id).status.is_terminal():
                    return None
            return None
        finally:
            part.cancel()
            await asyncio.wait({part})

    def _take(self, text: str, position: int) -> None:
        """Show what is new of a part of the log that begins at a position, in characters."""
        self._splitter.write(text[max(0, self._num_seen - position) :])
        self._num_seen = max(self._num_seen, position + len(text))

    def _bear(self, error: Exception) -> None:
        """Try again for a while; what is lost is a tunnel, or the head is busy."""
        if self._silent_s() > _PATIENCE_S:
            raise ClusterError(
                f"Ray jobs {self._server.url}: no word of job {self.run_id} for "
                f"{_PATIENCE_S / 60:.0f} minutes ({_one_line(error)}). It may run on."
            ) from error
        if not self._is_told:
            announce(f"job {self.run_id}: connection lost ({_one_line(error)}); trying again")
            self._is_told = True
        time.sleep(min(max(1.0, self._silent_s() / 2), _LONGEST_PAUSE_S))

    def _hear(self) -> None:
        self._heard_at, self._is_told = time.monotonic(), False

    def _silent_s(self) -> float:
        return time.monotonic() - self._heard_at


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
