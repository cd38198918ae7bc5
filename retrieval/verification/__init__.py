"""Is a ranking what brute force gives? Answered without any of the engines that rank.

brute_force  the k nearest of a few queries among all gallery rows, in float64 with NumPy
listing      the rows of a ranking, all of them checked for what needs no vectors
differences  a ranking's rows against those of brute force, and what is said of a wrong one
ids          ids found among sorted ones
"""

from retrieval.verification.brute_force import BruteForce, relative_tolerance
from retrieval.verification.differences import compare
from retrieval.verification.ids import IdCounter, find_ids
from retrieval.verification.listing import Listing, check_counts, check_repeats, read_listing

__all__ = [
    "BruteForce",
    "IdCounter",
    "Listing",
    "check_counts",
    "check_repeats",
    "compare",
    "find_ids",
    "read_listing",
    "relative_tolerance",
]
