"""Follow a job to its end, over connections that are lost on the way; how it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import aiohttp
from ray.job_submission import JobDetails, JobStatus

from pipelines.progress import announce
from pipelines.submit.log import ReportSplitter
from pipelines.submit.server import JobServer, ServerError, first_words, log_name
from retrieval.errors import ClusterError
from retrieval.parameters import named

__all__ = ["Follower", "exit_code"]

_PATIENCE_S = 300.0  # without a word from the server
_LONGEST_PAUSE_S = 15.0
_LOOK_EVERY_S = 1.0  # at the job, while its log is silent
_MAX_READS = 3  # of the log of a job that has ended
_LOST = (aiohttp.ClientError, OSError, RuntimeError, ServerError)
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
        self._heard_at = self._read_at = time.monotonic()  # the server at all, and the log
        self._is_told = False  # that the connection is lost

    def wait(self) -> JobDetails:
        """Pass the log on until the job has ended; called again, it goes on where it was.

        Raises:
            ClusterError: the server did not answer for five minutes, or has lost the job.
        """
        self._heard_at = self._read_at = time.monotonic()
        while True:
            try:
                job = self._server.info(self.run_id)
            except _LOST as error:
                self._bear(error)
                continue
            self._heard_at = time.monotonic()
            if job.status.is_terminal():
                self._take_all(job)
                self._splitter.close()
                return job
            num_seen = self._num_seen
            try:
                asyncio.run(self._pass_on())
            except _LOST as error:
                self._tell(error)
                if self._num_seen == num_seen:
                    self._take_lines()
                self._pause()

    async def _pass_on(self) -> None:
        """Pass the log on as it comes."""
        position = 0
        async with aclosing(self._server.tail(self.run_id)) as log:
            while (text := await self._next(log)) is not None:
                if self._take(text, position):
                    self._is_told = False
                position += len(text)

    def _take_all(self, job: JobDetails) -> None:
        """Take the log of a job that has ended; how it has ended counts, not whether it is read."""
        for left in reversed(range(_MAX_READS)):
            try:
                self._take(self._server.log(self.run_id), position=0)
                return
            except _LOST as error:
                failed = error
            time.sleep(min(left, _LONGEST_PAUSE_S))
        node = job.driver_agent_http_address or job.driver_node_id or "of its driver"
        announce(
            f"job {self.run_id}: its log cannot be read ({first_words(failed)}). It is "
            f"{log_name(job)} in the folder of Ray's logs, as /tmp/ray/session_latest/logs, on the "
            f"node {node}; the report stands at its end."
        )

    def _take_lines(self) -> None:
        """Take what there is of the log of a job that runs, where it cannot be followed."""
        with suppress(*_LOST):
            self._take(self._server.log(self.run_id), position=0)

    async def _next(self, log: AsyncGenerator[str, None]) -> str | None:
        """The next part of the log; None after the last, or after a long silence.

        The server itself tells the end of the log only seconds after the end of the job.
        """
        part = asyncio.ensure_future(anext(log, None))
        try:
            for _ in range(_MAX_SILENT_LOOKS):
                is_here = (await asyncio.wait({part}, timeout=_LOOK_EVERY_S))[0]
                if is_here and (text := part.result()) is not None:
                    return text
                if self._server.info(self.run_id).status.is_terminal():
                    return None
                if is_here:
                    raise ServerError("the server has closed the log of a job that runs")
            return None
        finally:
            part.cancel()
            await asyncio.wait({part})

    def _take(self, text: str, position: int) -> bool:
        """Show what is new of a part of the log that begins at a position, in characters.

        Returns:
            Whether anything is.
        """
        new = text[max(0, self._num_seen - position) :]
        for line in new.splitlines(keepends=True):
            self._num_seen += len(line)  # first: ctrl-C may come at any moment, and it goes on
            self._splitter.write(line)
        if new:
            self._read_at = time.monotonic()
        return bool(new)

    def _bear(self, error: Exception) -> None:
        """Try again for a while; what is lost is a tunnel, or the head is busy."""
        if time.monotonic() - self._heard_at > _PATIENCE_S:
            raise ClusterError(
                f"Ray jobs {self._server.url}: no word of job {self.run_id} for "
                f"{_PATIENCE_S / 60:.0f} minutes ({first_words(error)}). It may run on."
            ) from error
        self._tell(error)
        self._pause()

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            announce(f"job {self.run_id}: connection lost ({first_words(error)}); trying again")
            self._is_told = True

    def _pause(self) -> None:
        silent_s = time.monotonic() - self._read_at
        time.sleep(min(max(1.0, silent_s / 2), _LONGEST_PAUSE_S))


_NOT_FOUND = 127  # a shell's exit code


def exit_code(job: JobDetails) -> int:
    """The exit code of a job that has ended; says so where it is not 0.

    Raises:
        ClusterError: its command has no exit code: it was stopped, or never began.
    """
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        raise ClusterError(f"job {job.submission_id}: was stopped. The same command runs it again.")
    if job.driver_exit_code is None:
        why = " ".join((job.message or "no reason given").split())[:1000]
        raise ClusterError(f"job {job.submission_id}: failed. {why}")
    code = job.driver_exit_code if job.driver_exit_code >= 0 else 128 - job.driver_exit_code
    announce(f"job {job.submission_id}: failed with exit code {code}.{named(_hint(job, code))}")
    return code


def _hint(job: JobDetails, code: int) -> str:
    python = job.entrypoint.split(" -m pipelines.cli ")[0]
    if code == _NOT_FOUND:
        return (
            f" {python} is not on the PATH that Ray was started with on the cluster: name the "
            "interpreter there, as in `python` /opt/venv/bin/python"
        )
    if "No module named 'pipelines" in (job.message or ""):
        return (
            f" {python} of the cluster has no retrieval-cli: install it there, name the "
            "interpreter that has it by `python`, or ship a checkout by `working_dir`"
        )
    return ""
