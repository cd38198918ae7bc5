"""Ray's job server: a job is placed once, whoever submits it how often."""

from __future__ import annotations

import io
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import requests
from ray.dashboard.modules.job.common import JOB_LOGS_PATH_TEMPLATE
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipelines.progress import announce
from pipelines.ray_runtime.auth import is_loopback, refusal, require_token
from pipelines.ray_runtime.cluster_options import host_of
from pipelines.submit.request import Request
from retrieval.errors import ClusterError, UsageError

__all__ = ["JobServer", "ServerError", "first_words", "log_name"]

# Ray tells of each connection and of each file that a source tree has and it does not ship.
_LOG_LEVELS = {
    "ray.dashboard.modules.job.sdk": logging.WARNING,
    "ray.dashboard.modules.dashboard_sdk": logging.WARNING,
    "ray._private.runtime_env.packaging": logging.WARNING,  # a very large file
    "ray._private.runtime_env.working_dir": logging.ERROR,
}
_PATIENCE_S = 120.0
_OK = 200
_MAX_WORDS = 500  # letters
_TIMEOUT_S = 60.0  # without an answer; a tunnel may hang without a word


class ServerError(ClusterError):
    """The server does not answer, or not as it should; it may later."""


class JobServer:
    """The job server of a cluster.

    A submission id stands for one job. What failed or was stopped may run again, as ID~2, ID~3:
    Ray would mistake a new job for an old one whose record was deleted, and mixes their logs.

    Attributes:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        """Connect.

        Raises:
            ClusterError: nobody answers, it is no job server, or there is no right token.
        """
        self.url = url
        require_token(url)
        if url.startswith("http://") and not is_loopback(host_of(url)):
            announce(f"{url}: the token travels unencrypted; use https:// or a tunnel")
        # Ray heeds it before the address that it is given, and RAY_ADDRESS, a cluster's, as well.
        os.environ["RAY_API_SERVER_ADDRESS"] = url
        for name, level in _LOG_LEVELS.items():
            logging.getLogger(name).setLevel(level)
        with self._our_errors():
            self._client = _Client(url)

    def place(self, request: Request) -> tuple[JobDetails, bool]:
        """Submit a job, unless one of its id is there that waits, runs or has succeeded.

        Ray decides between two that submit at the same moment: the later one gets the job of the
        first.

        Returns:
            The job, and whether it is this call's.

        Raises:
            UsageError: the id belongs to another command, or the environment is none.
            ClusterError: the server cannot be reached, or refuses.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                placed = self._place(request)
            except ServerError as error:
                # Also an answer that was lost: the id makes a second try harmless.
                if time.monotonic() > deadline or not _is_passing(error):
                    raise
                time.sleep(2)
            else:
                if placed:
                    return placed

    def info(self, run_id: str) -> JobDetails:
        """What Ray knows of a job.

        Raises:
            ClusterError: the server cannot be reached, or has no such job.
        """
        found = self._find(run_id)
        if found is None:
            raise ClusterError(
                f"Ray jobs {self.url}: there is no job {run_id} any more. The cluster was started "
                "anew, or the job was deleted. Give the same command again."
            )
        return found

    def log(self, run_id: str) -> str:
        r"""All that the job has written so far; a byte that is not UTF-8 becomes \xNN.

        Raises:
            ClusterError: the server cannot be reached, or does not find the log.
        """
        try:
            with self._our_errors():
                return str(self._client.get_job_logs(run_id))
        except ServerError as error:
            if "status code 500" not in str(error):
                raise
        # So it answers for a log that is not UTF-8; Ray gives the bytes of its file by another way.
        job = self.info(run_id)
        with self._our_errors():
            content = self._client.raw_log(str(job.driver_node_id), log_name(job))
        if not job.status.is_terminal():  # it may end within a letter
            content = content[: content.rfind(b"\n") + 1]
        # Ends of lines as Ray reads them.
        return io.TextIOWrapper(io.BytesIO(content), "utf-8", "backslashreplace").read()

    def tail(self, run_id: str) -> AsyncGenerator[str, None]:
        """The job's log from its start, as it is written, until the job ends.

        Raises:
            aiohttp.ClientError, OSError, RuntimeError: the connection is lost.
        """
        return self._client.tail_job_logs(run_id)

    def stop(self, run_id: str) -> None:
        """Ask the job to end; Ray kills what has not ended after RAY_JOB_STOP_WAIT_TIME_S, 3 s."""
        with self._our_errors():
            self._client.stop_job(run_id)

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        """Turn what the client raises into a ClusterError of one line."""
        try:
            yield
        except AuthenticationError:
            raise refusal(self.url) from None
        except (requests.HTTPError, requests.JSONDecodeError, TypeError) as error:
            raise ServerError(
                f"Ray jobs {self.url}: somebody answers there, but not as Ray's job server does "
                f"({first_words(error)}). Check the address; a proxy may stand before it."
            ) from error
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise ServerError(
                f"Ray jobs {self.url}: nobody answers there. Check the address, or open a tunnel "
                "to the head: ssh -N -L 8265:127.0.0.1:8265 HEAD"
            ) from error
        except (RuntimeError, ValueError, KeyError) as error:
            raise ServerError(f"Ray jobs {self.url}: {first_words(error)}") from error

    def _place(self, request: Request) -> tuple[JobDetails, bool] | None:
        """As `place`; None if somebody else has been faster."""
        number, newest = self._newest_run(request.submission_id)
        if newest is not None:
            _check_same(request, newest)
            if newest.status not in (JobStatus.FAILED, JobStatus.STOPPED):
                return newest, False
        run_id = _run_id(request.submission_id, number + 1)
        return (self.info(run_id), True) if self._submit(run_id, request) else None

    def _newest_run(self, submission_id: str) -> tuple[int, JobDetails | None]:
        number, newest = 0, None
        while found := self._find(_run_id(submission_id, number + 1)):
            number, newest = number + 1, found
        return number, newest

    def _find(self, run_id: str) -> JobDetails | None:
        with self._our_errors():
            try:
                return self._client.get_job_info(run_id)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise

    def _submit(self, run_id: str, request: Request) -> bool:
        """Submit; False if somebody else has been faster."""
        with self._our_errors():
            try:
                self._client.submit_job(
                    submission_id=run_id,
                    entrypoint=request.entrypoint,
                    runtime_env=dict(request.runtime_env),
                    entrypoint_label_selector=dict(request.node) or None,
                )
            except RuntimeError as error:
                if f"{run_id} already exists" in str(error):
                    return False
                raise
        return True


class _Client(JobSubmissionClient):
    """Ray's client, which by itself waits for ever where no answer comes."""

    def _do_request(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401
        return super()._do_request(*args, timeout=_TIMEOUT_S, **kwargs)

    def raw_log(self, node_id: str, file: str) -> bytes:
        """A file of a node's logs, as it is."""
        where = urlencode({"node_id": node_id, "filename": file, "lines": -1})
        answer = self._do_request("GET", f"/api/v0/logs/file?{where}")
        if answer.status_code != _OK:
            self._raise_error(answer)
        return answer.content


def log_name(job: JobDetails) -> str:
    """The file of a job's log, in the folder of the logs of the node that runs its driver."""
    return JOB_LOGS_PATH_TEMPLATE.format(submission_id=job.submission_id)


def first_words(error: Exception) -> str:
    """What went wrong, in one line: an answer may be a page of HTML or a traceback of the head's.

    Of a traceback its last line tells.
    """
    text = re.sub(r"<(style|script|head)\b.*?</\1>|<[^<>]*>", " ", str(error), flags=re.I | re.S)
    before, traceback, rest = text.partition("Traceback (most recent call last):")
    lines = [line for line in rest.splitlines() if line.strip(" .")]
    if traceback and lines:
        text = f"{before} {lines[-1]}"
    return " ".join(text.split())[:_MAX_WORDS] or type(error).__name__


def _is_passing(error: ServerError) -> bool:
    """Whether it may be over soon: a lost connection, a head that has just been started."""
    return not isinstance(error.__cause__, RuntimeError) or "try again later" in str(error)


def _run_id(submission_id: str, number: int) -> str:
    """The id of a job's run; "~" is in no id of a user."""
    return submission_id if number == 1 else f"{submission_id}~{number}"


def _check_same(request: Request, placed: JobDetails) -> None:
    if placed.entrypoint != request.entrypoint:
        raise UsageError(
            f"`submission_id` {request.submission_id}: already the id of another command, "
            f"{placed.entrypoint!r}; this one is {request.entrypoint!r}. Choose another id."
        )
