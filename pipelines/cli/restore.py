"""`retrieval-cli restore`."""

from __future__ import annotations

import click

from pipelines.cli.options import number
from pipelines.cli.shared import print_report
from retrieval.settings import COUNT

__all__ = ["restore"]


@click.command()
@click.argument("index")
@click.argument("version", required=False, type=number(COUNT, low=0))
@click.option(
    "--torn",
    is_flag=True,
    help="Set the newest entry of the log aside that a loss of power has left incomplete.",
)
def restore(index: str, version: int | None, torn: bool) -> None:
    """Go back to a version: a new one gets its content. Nothing is deleted.

    \b
    Example:
        retrieval-cli restore index/gallery 11
        retrieval-cli restore index/gallery --torn
    """
    if torn == (version is not None):
        raise click.UsageError("Name a version to go back to, or --torn: one of the two.")
    from retrieval.index import set_torn_entry_aside
    from retrieval.maintenance.restore import restore_index
    from retrieval.storage import absolute_uri

    if version is None:
        current = set_torn_entry_aside(index)
        print_report({"index": absolute_uri(index), "version": current}, result=index)
        return
    restored = restore_index(index, version)
    print_report(
        {
            "index": restored.uri,
            "version": restored.version,
            "restored_version": version,
            "run_id": restored.run["run_id"],
            "rows": restored.num_rows,
            "rejects": restored.run["rejects"],
        },
        result=index,
    )
