"""How good a ranking is.

metrics        top-k accuracy, mAP, precision and the rest, from arrays
ranked_images  ids and labels of the two sides of a ranking
figures        a ranking and the labels of its two sides → an Evaluation
overlap        how much two rankings of the same queries differ
"""

from retrieval.evaluation.figures import ClassFigures, Evaluation, evaluate
from retrieval.evaluation.metrics import Figures
from retrieval.evaluation.ranked_images import read_photos

__all__ = ["ClassFigures", "Evaluation", "Figures", "evaluate", "read_photos"]
