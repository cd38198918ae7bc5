"""How often a process aborts at its end that has just read a small Parquet file by Arrow's threads.

    python benchmarks/exit_abort.py [RUNS]

Of memory of Python's own and of Arrow's, in turn: why retrieval.storage.read_buffer makes a copy.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

READ = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
def read(name, owner):
    with pa.OSFile(name) as file:
        memory = file.read() if owner == "Python" else file.read_buffer()
    with pa.BufferReader(memory) as source:
        del memory
        return pq.read_table(source, columns=["a", "b", "c"], page_checksum_verification=True)
read(*sys.argv[1:])
"""


def main(num_runs: int) -> None:
    """Print how many of the runs aborted, for each kind of memory."""
    aborted = {"Python": 0, "Arrow": 0}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "small.parquet")
        columns = {name: [str(row) for row in range(2000)] for name in "abcdefgh"}
        pq.write_table(pa.table(columns), file, row_group_size=200)
        for _ in range(num_runs):
            for owner in aborted:
                done = subprocess.run(
                    [sys.executable, "-c", READ, str(file), owner], capture_output=True, check=False
                )
                aborted[owner] += done.returncode != 0
    for owner, count in aborted.items():
        print(f"memory of {owner}: {count} of {num_runs} runs aborted (pyarrow {pa.__version__})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
