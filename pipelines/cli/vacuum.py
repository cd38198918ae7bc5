"""`retrieval-cli vacuum`."""

from __future__ import annotations

import click

from pipelines.cli.options import number
from pipelines.cli.shared import print_report
from retrieval.settings import NOT_NEGATIVE

__all__ = ["vacuum"]


@click.command()
@click.argument("index")
@click.option(
    "--keep-days",
    default=7.0,
    show_default=True,
    type=number(NOT_NEGATIVE),
    help="Every version that was current in these days can still be read and restored.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be removed.")
@click.option(
    "--force", is_flag=True, help="Allow less than a day: when nothing else uses the index."
)
def vacuum(index: str, keep_days: float, dry_run: bool, force: bool) -> None:
    """Remove shards, rejects and receipts that no version of the last days needs.

    Only files that this tool has written, by their names, older than these days, are removed; no
    link is followed. Nights and restores may run at the same time, and other vacuums: what one of
    them commits has all its files. Where shards or rejects go, the newest version is committed
    once more, unchanged. Killed in the middle it harms nothing: give the command again.

    \b
    Example:
        retrieval-cli vacuum index/gallery --dry-run
        retrieval-cli vacuum index/gallery --keep-days 30
    """
    from retrieval.maintenance.vacuum import vacuum_index

    vacuumed = vacuum_index(index, keep_days, dry_run=dry_run, force=force)
    print_report(vacuumed.to_json(), result=None if dry_run else index)
