"""Exact top-k: the same ids and the same score bits for any shards, blocks and machines.

scores      the canonical score of a pair, and the proof that order cannot matter
candidates  the k best of many (query, id, score) triples; merging is the same thing
plan        how large blocks may be
top_k       one block of queries against a stream of gallery blocks
"""

from retrieval.search.candidates import Candidates, best
from retrieval.search.plan import BlockPlan, plan_blocks
from retrieval.search.scores import METRICS, is_distance
from retrieval.search.top_k import top_k

__all__ = ["METRICS", "BlockPlan", "Candidates", "best", "is_distance", "plan_blocks", "top_k"]
