"""How good a ranking is.

metrics   top-k accuracy, mAP, precision and the rest, from arrays
figures   those of a ranking and the labels of its two sides
overlap   how much two rankings of the same queries differ
"""

from retrieval.evaluation.figures import evaluate, read_photos

__all__ = ["evaluate", "read_photos"]
