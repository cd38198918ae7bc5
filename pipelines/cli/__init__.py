"""retrieval-cli: one thin command a job.

A command parses, calls its job and prints one JSON report to stdout; progress and messages
go to stderr. Exit codes: 0 done, 1 an error said in one line, 2 wrong usage, 130 and 143 ended
by ctrl-C or SIGTERM, which is said in one line too. Jobs are imported inside their commands, so
that --help loads neither torch nor ray.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from pipelines.cli.interrupts import Interrupted, handled, is_interrupted
from pipelines.cli.parameters import as_options
from pipelines.cli.process import ensure_home, flush_stdout, take_over
from pipelines.cli.verbs import PlainErrors, Verbs
from pipelines.metrics import of_verb
from retrieval.errors import RetrievalError
from retrieval.one_line import one_line
from retrieval.parameters import naming

__all__ = ["main"]

INTERRUPTED = (
    "Interrupted. Nothing unfinished was published: what was there before is unchanged. "
    "Run the same command again."
)


class Cli(PlainErrors):
    """A group that shows the errors of a job as one line, and stands what its streams do."""

    def main(self, *args: Any, **settings: Any) -> Any:  # noqa: ANN401 - as click has it
        """Run a command of the command line; exit codes as above, 130 and 143 of signals."""
        is_process = take_over()
        if is_process:
            ensure_home()
        with handled(ends_after=is_process):
            try:
                return super().main(*args, **settings)
            except OSError as error:  # of the help, whose reader has gone or has no room
                _as_one_line(error).show()
                sys.exit(1)
            finally:
                flush_stdout()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are not UTF-8, which no report and no table can hold."""
        for argument in map(str, args):
            try:
                argument.encode()
            except UnicodeEncodeError as error:
                shown = argument.encode(errors="backslashreplace").decode()
                raise click.ClickException(
                    f"{one_line(shown)}: is not UTF-8. Rename it, or write it in UTF-8."
                ) from error
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; errors of the library, of the system and ctrl-C become one line."""
        with naming(lambda text: as_options(text, ctx)):
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (RetrievalError, OSError) as error:
            raise (Interrupted(INTERRUPTED) if is_interrupted() else _as_one_line(error)) from error
        except click.ClickException as error:
            raise (Interrupted(error.message) if is_interrupted() else error) from None
        except click.exceptions.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if is_interrupted() or isinstance(error, KeyboardInterrupt):
                raise Interrupted(INTERRUPTED) from None
            raise


def _as_one_line(error: Exception) -> click.ClickException:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = (
            f"{error.strerror}."
            if error.filename is None
            else f"{error.filename}: {error.strerror}."
        )
    return click.ClickException(one_line(text))


@click.group(cls=Cli, commands=Verbs(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="retrieval-cli")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Batch image retrieval on Ray: train, embed a gallery, rank it exactly, evaluate, report.

    Paths may be local or object-store addresses (s3://, gs://). Reports are JSON on stdout.

    \b
    Example:
        retrieval-cli embed photos/queries index/queries
        retrieval-cli embed photos/gallery index/gallery
        retrieval-cli rank index/queries index/gallery ranking
        retrieval-cli evaluate ranking --queries index/queries --gallery index/gallery
        retrieval-cli report ranking report.html
    """
    ctx.with_resource(of_verb(ctx.invoked_subcommand or ""))
