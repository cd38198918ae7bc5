"""How a job has ended, as an exit code and in words."""

from __future__ import annotations

from ray.job_submission import JobDetails, JobStatus

from pipelines.progress import announce
from retrieval.errors import ClusterError
from retrieval.parameters import named

__all__ = ["exit_code"]

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
