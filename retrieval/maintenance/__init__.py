"""Care of an index.

status          what it holds, how far back it goes, what its last runs did
check           every byte of a version, and whether its parts agree
check_shard     ... those of one shard
version_diff    what differs between two versions, id by id
diff            ... and in their rankings
restore         an old version's content as a new one
unneeded_files  what no version needs any more
vacuum          ... removed

`diff` is imported by its own name: it ranks, and what ranks takes a second to load.
"""

from retrieval.maintenance.check import Findings, check_index
from retrieval.maintenance.restore import restore_index
from retrieval.maintenance.status import IndexStatus, describe_index
from retrieval.maintenance.vacuum import Vacuumed, vacuum_index
from retrieval.maintenance.version_diff import Changes, compare_versions

__all__ = [
    "Changes",
    "Findings",
    "IndexStatus",
    "Vacuumed",
    "check_index",
    "compare_versions",
    "describe_index",
    "restore_index",
    "vacuum_index",
]
