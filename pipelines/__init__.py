"""The jobs on Ray, and the command line on top.

ray_runtime  which cluster, which of its nodes, how to get in: the one door to Ray
progress    one line while a job runs, on a terminal or in a log
metrics     what a run tells Prometheus, and how long each of its steps took
dry_run     what a job needs from each node, for --dry-run
scan        the first pass over labelled photos
augment     photos → augmented photos
train       photos → a model folder
embed       photos → index
rank        queries × gallery → ranking, here or on a cluster
reindex     a night: embed, quality gate, commit, rank, report
demo        a drawn gallery through all of them
experiment  the paper's table, trained and measured
submit      any verb as a job of Ray's job server
cli         the commands, one file each
"""

import sys

# `python -m pipelines.cli` has put the current folder before all else. It stays where this very
# package comes from there, as in a checkout; otherwise nobody has named it. What this needs must
# be loaded by now: an import would look there.
if (
    sys.argv[:1] == ["-m"]
    and any(word.removeprefix("-m").split(".")[0] == "pipelines" for word in sys.orig_argv)
    and not sys.flags.safe_path
    and not __file__.startswith(f"{sys.path[0]}/pipelines/")
):
    del sys.path[0]

from pipelines.moved import MOVED, NOW_FUNCTIONS, keep_old_jobs
from retrieval.moved import keep_old_names

keep_old_names(MOVED)
keep_old_jobs(NOW_FUNCTIONS)
