"""Exact top-k on a torch device: the ids and the score bits of the CPU, at tensor-core speed.

bounds         how far a float16 matrix product may be off, and the limit that no neighbour misses
operands       vectors → float16 operands, and what the rounding took
prefilter      pairs that reach their limit, by torch: any device
triton_filter  the same in one kernel, which never writes a score
rescoring      canonical scores of pairs in float64, the bits of `scores.pair_scores`
triton_dots    their sums in one kernel, where no sum rounds
top_k_buffer   candidates on the device, and the key that a new one must reach
row_ids        which id a row has: ids stay on the host
staging        blocks of the host → chunks on the device, copied while others are searched
block_sizes    how large tiles, batches and chunks may be, and what to do out of memory
scan           one chunk after the other: filter, rescore, keep
engine         GpuSearch: what a caller sees

Only this package imports torch and Triton; `retrieval.search` does without.
"""

from retrieval.search.gpu.engine import GpuSearch

__all__ = ["GpuSearch"]
