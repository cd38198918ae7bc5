"""A database for one comparison: in bounded memory, and gone at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

__all__ = ["scratch_database"]


@contextmanager
def scratch_database(memory_bytes: int = 2**30) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in the folder of temporary files.

    Args:
        memory_bytes: Most memory of the database; what is more goes to the disk.
    """
    with tempfile.TemporaryDirectory(prefix="retrieval-") as folder:
        database = duckdb.connect(
            f"{folder}/scratch.duckdb",
            config={"memory_limit": f"{memory_bytes // 2**20}MiB", "temp_directory": folder},
        )
        try:
            yield database
        finally:
            database.close()
