"""Exact top-k: the same ids and the same score bits for any shards, blocks and machines.

scores         the canonical score of a pair, and the proof that order cannot matter
merge          the k best of many (query, id, score) triples; merging is the same thing
block_sizes    how large blocks may be
top_k          one block of queries against a stream of gallery blocks, on all cores

cpu_engine     the engine on the CPU, made of
  gallery_block  stored vectors → float32
  bounds         upper bounds of scores, with their proof
  blas           BLAS in compiled loops
  small_gemm     the product where queries are few
  tiles          products tile by tile, and the pairs that pass
  prefilter_pairs  which pairs pass, pair by pair
  prefilter      first passes: by product, by sums of differences, all pairs
  rescoring      canonical scores in compiled loops
  top_k_buffer   the k nearest so far
numba_settings where compiled loops are kept
tuning         how short the first product should be
initial_thresholds  what the k nearest will very likely reach
gpu/           the engine on the GPU
"""

from retrieval.search import numba_settings  # noqa: F401 - before any function is compiled

# isort: split
from retrieval.search.block_sizes import BlockPlan, plan_blocks
from retrieval.search.cpu_engine import CpuSearch, warm_up
from retrieval.search.initial_thresholds import guess_floors
from retrieval.search.merge import Candidates, best
from retrieval.search.scores import METRICS, RULES, is_distance, minkowski_power, score_rule
from retrieval.search.top_k import available_cpus, scan, top_k
from retrieval.search.top_k_buffer import Neighbours
from retrieval.search.tuning import Choice, choose_basis, is_worth_a_sample, whole_product_ns

__all__ = [
    "METRICS",
    "RULES",
    "BlockPlan",
    "Candidates",
    "Choice",
    "CpuSearch",
    "Neighbours",
    "available_cpus",
    "best",
    "choose_basis",
    "guess_floors",
    "is_distance",
    "is_worth_a_sample",
    "minkowski_power",
    "plan_blocks",
    "scan",
    "score_rule",
    "top_k",
    "warm_up",
    "whole_product_ns",
]
