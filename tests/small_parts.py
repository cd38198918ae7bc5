"""The command line with small parts, so that a few photos make many shards and tasks."""

from __future__ import annotations

import pipelines.embed.executor as executor
import pipelines.embed.inputs as inputs
from pipelines.cli import main

executor.BLOCK_ROWS = 8
inputs._SHARD_BYTES = 8 * 6  # of the three components of `tests.fakes:slow`

if __name__ == "__main__":
    main()
