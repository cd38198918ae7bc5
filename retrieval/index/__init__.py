"""The index: a table of embeddings in immutable Parquet shards, one atomic commit a run.

schema      columns, also of shards that other tools have written
shards      one Parquet file: encode and decode
version     one version of an index, as plain values; candidates, which are not committed
table       the Delta Lake log: open a version, what a run said of itself
entries     one entry of it, read strictly
delta_log_writer  its entries on a local disk, synced
before_commit  what must hold before it
commit      one run's commit
commit_change  ... what it adds and removes, and how the log takes that up
torn_entry  what a loss of power has left of one
reading     the whole index as arrays

update      one run: what was embedded and rewritten becomes a candidate, and that a version
update_plan  ... its first half: a listing against what is there, and what must be done
gallery_diff  what has changed between a listing and the rows that are there
update_estimate  what an update would do, as far as the listing tells
staging     what a run has written and not yet committed
compaction  rows that go on in another shard
records     what each run says of itself

history     the log over many versions
removal_lists  why a vacuum may run beside everything else
rejects     where those of a version are, read strictly; which are refused still
folder      a folder's files with sizes and times
names       by which this program knows its own files
database    for one comparison, in bounded memory
"""

from retrieval.index.commit import commit_index
from retrieval.index.reading import IndexRows, read_index
from retrieval.index.records import (
    RecordStamp,
    failures_recorded,
    last_check_us,
    read_records,
    write_record,
)
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard, write_shard
from retrieval.index.staging import Receipt, stage
from retrieval.index.table import Index, is_index, open_index, read_run, save_candidate
from retrieval.index.torn_entry import set_torn_entry_aside
from retrieval.index.update import Candidate, UpdateCounts, finish, publish
from retrieval.index.update_estimate import UpdateEstimate, estimate_update
from retrieval.index.update_plan import UpdateOptions, UpdatePlan, plan_update

__all__ = [
    "Candidate",
    "EmbeddingSpec",
    "Index",
    "IndexRows",
    "Receipt",
    "RecordStamp",
    "Shard",
    "UpdateCounts",
    "UpdateEstimate",
    "UpdateOptions",
    "UpdatePlan",
    "commit_index",
    "estimate_update",
    "failures_recorded",
    "finish",
    "index_schema",
    "is_index",
    "last_check_us",
    "open_index",
    "plan_update",
    "publish",
    "read_index",
    "read_records",
    "read_run",
    "save_candidate",
    "set_torn_entry_aside",
    "stage",
    "write_record",
    "write_shard",
]
