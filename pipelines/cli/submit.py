"""`retrieval-cli submit`."""

from __future__ import annotations

import io
import re
import shlex
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from pipelines.cli.interrupts import Interrupted
from pipelines.cli.parameters import as_options
from pipelines.cli.process import report_stream
from pipelines.cli.shared import ReportLost, print_report, say
from pipelines.ray_runtime.cluster_options import parse_labels
from retrieval.errors import ClusterError
from retrieval.secrets import holds_secret

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

    from pipelines.submit import Follower, JobServer

__all__ = ["submit"]


def _parse_address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6
        is_address = False
    if holds_secret(value) or any(letter in value for letter in "@?#"):
        raise click.BadParameter(
            "no user or password belongs into the address, nor a token or another parameter; Ray "
            "takes the token of RAY_AUTH_TOKEN_PATH."
        )
    if not is_address:
        raise click.BadParameter(
            f"{value} is no address of a job server. It is the one of Ray's dashboard, such as "
            "http://HOST:8265; not the cluster's own, HOST:6379 or ray://HOST:10001."
        )
    return value.rstrip("/")


def _parse_id(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", value):
        raise click.BadParameter(f"{value!r}: letters, digits, '.', '_' and '-', up to 128.")
    return value


def _parse_labels(
    ctx: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    try:
        return parse_labels(given)
    except ValueError as error:
        raise click.BadParameter(as_options(str(error), ctx)) from error


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- VERB ARGS")
@click.option(
    "--address",
    default="http://127.0.0.1:8265",
    show_default=True,
    envvar="RAY_API_SERVER_ADDRESS",
    show_envvar=True,
    callback=_parse_address,
    help="The job server of the cluster: its dashboard's address.",
)
@click.option(
    "--submission-id",
    callback=_parse_id,
    help="The same id never runs twice. [default: VERB, the time and random digits]",
)
@click.option(
    "--working-dir",
    help="Source tree to ship and to run, without what its .gitignore names. [default: the package "
    "installed on the cluster]",
)
@click.option(
    "--python",
    default="python3",
    show_default=True,
    help="Interpreter on the cluster: a path, if Ray was started there with a PATH that lacks it.",
)
@click.option(
    "--runtime-env",
    help="Ray's runtime environment, as a YAML or JSON file. Everybody may read it: no secrets.",
)
@click.option(
    "--driver-node",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parse_labels,
    help="Label of Ray that the node of the driver must carry. May be given again. [default: the "
    "head]",
)
@click.option("--no-wait", is_flag=True, help="Print the id and the status, and leave it running.")
@click.option("--dry-run", is_flag=True, help="Print what would be submitted; ask nobody.")
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    command: tuple[str, ...],
    address: str,
    submission_id: str | None,
    working_dir: str | None,
    python: str,
    runtime_env: str | None,
    driver_node: dict[str, str],
    no_wait: bool,
    dry_run: bool,
) -> None:
    """Run any verb as a job on a Ray cluster: follow its log, and end as it ends.

    Its report goes to stdout, its log to stderr, its exit code is this command's. The same
    --submission-id never runs twice: while the job runs it is followed, once it has succeeded its
    report is printed again, and after it failed or was stopped it is run again, as ID~2.

    A cluster beyond this machine's loopback needs a token, in RAY_AUTH_TOKEN_PATH or
    ~/.ray/auth_token.

    \b
    Example:
        retrieval-cli submit -- embed s3://bucket/photos s3://bucket/index --backbone resnet50
        retrieval-cli submit --submission-id reindex-2026-01-31 \\
            -- reindex s3://bucket/photos s3://bucket/index
        retrieval-cli submit --working-dir . -- rank s3://bucket/a s3://bucket/b s3://bucket/ranking
    """
    _check_verb(ctx, command)
    from pipelines import submit as job

    environment = job.read_runtime_env(runtime_env) if runtime_env else {}
    request = job.make_request(
        command,
        runtime_env=environment,
        node=driver_node,
        submission_id=submission_id,
        working_dir=working_dir,
        python=python,
    )
    about: dict[str, Any] = {
        "submission_id": request.submission_id,
        "entrypoint": request.entrypoint,
    }
    if dry_run:
        shown = job.shown_runtime_env(request.runtime_env)
        about |= {"address": address, "runtime_env": shown, "node": request.node}
        print_report(about)
        return
    server = job.JobServer(address)
    placed, is_new = server.place(request)
    run_id = str(placed.submission_id)
    if no_wait:
        print_report({**about, "submission_id": run_id, "status": placed.status, "is_new": is_new})
        return
    has_succeeded = not is_new and placed.status == "SUCCEEDED"
    said = "submitted" if is_new else "had already succeeded" if has_succeeded else "already there"
    say(f"job {run_id}: {said} ({address})")
    splitter = job.ReportSplitter(_Stdout(run_id), None if has_succeeded else sys.stderr)
    follower = job.Follower(server, run_id, splitter)
    try:
        ended = follower.wait()
    except KeyboardInterrupt:
        ended = _interrupted(ctx, server, follower, request.submission_id)
    ctx.exit(_exit_code(ended))


def _exit_code(ended: JobDetails) -> int:
    from pipelines.submit import exit_code

    try:
        return exit_code(ended)
    except ClusterError as error:  # in these words also after ctrl-C
        raise click.ClickException(str(error)) from error


class _Stdout(io.TextIOBase):
    """Takes the report of a job that has run elsewhere."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def write(self, text: str) -> int:
        """Pass it on at once, or raise ReportLost."""
        try:
            stream = report_stream()
            stream.write(text)
            stream.flush()
        except (OSError, ValueError) as error:
            raise ReportLost(error, f"the log of job {self._run_id}") from error
        return len(text)


def _check_verb(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Find wrong usage here and now, in the verb's own words, before anything is sent."""
    name, *arguments = command
    group = ctx.find_root().command
    verb = group.commands.get(name) if isinstance(group, click.Group) else None
    if verb is None or verb is ctx.command:
        raise click.UsageError(f"{name!r} is no verb to submit.", ctx)
    with redirect_stdout(report_stream()):  # its help
        parsed = verb.make_context(name, arguments, parent=ctx.parent)
    with parsed:
        if parsed.get_parameter_source("address") == ParameterSource.COMMANDLINE:
            raise click.UsageError(
                "a job runs on the cluster that it was submitted to: leave --address out.", parsed
            )


def _interrupted(
    ctx: click.Context, server: JobServer, follower: Follower, submission_id: str
) -> JobDetails:
    """Ask on a terminal whether to stop the job, too; else leave it, and say how to go on."""
    run_id = follower.run_id
    try:
        is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
        if is_terminal and click.confirm(f"\nStop job {run_id} too?", default=False, err=True):
            server.stop(run_id)
            return follower.wait()
    except (KeyboardInterrupt, click.Abort):
        pass  # who insists wants to leave
    raise Interrupted(
        f"Interrupted; job {run_id} runs on. Follow it again: {_same_command(ctx, submission_id)}. "
        f"Stop it: RAY_AUTH_MODE=token ray job stop --address {server.url} {run_id}"
    )


def _same_command(ctx: click.Context, submission_id: str) -> str:
    given = {**ctx.params, "submission_id": submission_id}
    options = []
    for option in ctx.command.params:
        name = str(option.name)
        is_given = ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if not isinstance(option, click.Option) or not (is_given or name == "submission_id"):
            continue
        value = given[name]
        values = [f"{key}={label}" for key, label in value.items()] if option.multiple else [value]
        options += [word for text in values for word in (option.opts[0], text)]
    return shlex.join(["retrieval-cli", "submit", *options, "--", *given["command"]])
