"""Rankings one after another in one process, on a Ray that goes on: what all of it uses meanwhile.

    python -m tests.soak.rankings ADDRESS PID QUERIES GALLERY RANKING NUM_JOBS

A process of its own, whose memory is nobody else's. PID is Ray's. Prints a JSON line every ten
jobs: how many, and of each process that lives on its memory in bytes and its open files.
"""

from __future__ import annotations

import gc
import json
import sys

import psutil

from pipelines import rank
from pipelines.ray_runtime.cluster_options import Site
from retrieval.ranking.files import open_ranking, read_parts

CONFIG = rank.RankConfig(top_k=5, num_actors=2)


def rows_of(ranking: str) -> list[dict[str, list[object]]]:
    return [part.to_pydict() for part in read_parts(open_ranking(ranking))]


def usage(ray_pid: int) -> dict[str, tuple[int, int]]:
    lasting = [psutil.Process(), *psutil.Process(ray_pid).children(recursive=True)]
    return {
        f"{process.name()} {process.pid}": (process.memory_full_info().uss, process.num_fds())
        for process in lasting
        if not process.name().startswith("ray::")
    }


def main(address: str, ray_pid: str, queries: str, gallery: str, ranking: str, num: str) -> None:
    expected = None
    for number in range(1, int(num) + 1):
        rank.run(queries, gallery, ranking, CONFIG, site=Site(address))
        found = rows_of(ranking)
        expected = expected or found
        assert found == expected
        if number % 10 == 0:
            gc.collect()
            print(json.dumps([number, usage(int(ray_pid))]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
