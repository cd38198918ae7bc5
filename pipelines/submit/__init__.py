"""Any verb of the command line as a job of Ray's job server.

request      what is to run: command, runtime environment, id
environment  the runtime environment and the folders sent along with it, read and checked
server       Ray's job server: a job is placed once, whoever submits it
log          a job's log: the report to stdout, all else to stderr
following    until the job has ended, over lost connections; its exit code
"""

from pipelines.submit.environment import read_runtime_env, shown_runtime_env
from pipelines.submit.following import Follower, exit_code
from pipelines.submit.log import ReportSplitter
from pipelines.submit.request import Request, make_request
from pipelines.submit.server import JobServer

__all__ = [
    "Follower",
    "JobServer",
    "ReportSplitter",
    "Request",
    "exit_code",
    "make_request",
    "read_runtime_env",
    "shown_runtime_env",
]
