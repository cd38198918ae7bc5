"""Is a ranking what brute force gives? Answered without any of the engines that rank.

verify       all of it: the public function
task         what was ranked, opened, and the queries to rank again
canonical    the scores that engines should give to the bit, by an implementation of its own
  rule_one     distances as they were computed once, for files of that time
brute_force  the k nearest of a few queries among all gallery rows, in float64 with NumPy
real_values  the real value of a score, by whole numbers, and how far a score may be from it
judged_pairs pairs of a ranking that are judged so: a fault of the rule itself is found, too
listing      the rows of a ranking, all of them checked for what needs no vectors
differences  a ranking's rows against those of brute force, and what is said of a wrong one
ids          ids found among sorted ones
"""

from retrieval.ranking.verification.brute_force import BruteForce, relative_tolerance
from retrieval.ranking.verification.differences import compare
from retrieval.ranking.verification.ids import IdCounter, find_ids, shown
from retrieval.ranking.verification.judged_pairs import JudgedPairs
from retrieval.ranking.verification.listing import (
    Listing,
    check_counts,
    check_repeats,
    read_listing,
)

__all__ = [
    "BruteForce",
    "IdCounter",
    "JudgedPairs",
    "Listing",
    "check_counts",
    "check_repeats",
    "compare",
    "find_ids",
    "read_listing",
    "relative_tolerance",
    "shown",
]
