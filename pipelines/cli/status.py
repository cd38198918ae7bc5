"""`retrieval-cli status`."""

from __future__ import annotations

import click

from pipelines.cli.shared import print_report

__all__ = ["status"]


@click.command()
@click.argument("index")
def status(index: str) -> None:
    """Tell what an index holds, how far back it goes, and what its last runs did.

    INDEX may be INDEX@VERSION. No shard is read: it takes as long for ten million rows as for
    ten.

    \b
    Example:
        retrieval-cli status index/gallery
        retrieval-cli status index/gallery@12
    """
    from retrieval.maintenance import describe_index

    print_report(describe_index(index).to_json())
