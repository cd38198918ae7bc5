"""A ranking's rows against those of brute force, and what is said of a wrong ranking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError
from retrieval.ranking.verification.ids import find_ids, shown
from retrieval.search.merge import Candidates

__all__ = ["compare", "counted", "wrong_ranking"]

NOT_EXACT = (
    "The ranking or the vectors were changed since, or the search is at fault: rank again, and "
    "report a bug if that differs too."
)


def wrong_ranking(uri: str, where: str, what: str, how_many: str, advice: str) -> IndexFormatError:
    """The error of a ranking that is not what it should be, in one line."""
    return IndexFormatError(f"{uri}: {where}: {what}. {how_many}. {advice}")


def counted(num_wrong: int, total: int, unit: str = "queries") -> str:
    """How many queries differ.

    Example:
        >>> counted(1, 20, "checked queries"), counted(3, 20)
        ('1 of 20 checked queries differs', '3 of 20 queries differ')
    """
    return f"{num_wrong} of {total} {unit} {'differs' if num_wrong == 1 else 'differ'}"


def compare(
    uri: str,
    query_ids: NDArray[np.bytes_],
    listed: Candidates,
    nearest: Candidates,
    *,
    tolerance: float = 0.0,
    scored: Candidates | None = None,
) -> None:
    """Compare rank by rank: the ids, and the scores to the last bit.

    With a tolerance (of metrics whose scores are not canonical) rows that are as good as
    equally near may stand in either order, and either may be the k-th. Then the score at each
    rank, and the score of each listed id, have to agree within it: so the list is a list of k
    nearest.

    Args:
        uri: The ranking, for the error.
        query_ids: bytes (Q,), of the sample.
        listed: The ranking's rows, sorted by query and rank.
        nearest: Those of brute force, as many for each query.
        tolerance: By how much of its size a score may differ.
        scored: With a tolerance, the scores by brute force of the listed pairs.

    Raises:
        IndexFormatError: a row differs; the first one is named.
    """
    if scored is None or not tolerance:
        # As bits: a score of minus zero, or NaN, is none that brute force gives.
        bits = listed.scores.view(np.int64), nearest.scores.view(np.int64)
        differs = (listed.ids != nearest.ids) | (bits[0] != bits[1])
    else:
        differs = ~_agree(listed.scores, nearest.scores, tolerance)
        differs |= ~_agree(listed.scores, _scores_by_pair(listed, scored), tolerance)
    if not differs.any():
        return
    row = int(np.argmax(differs))
    query = listed.query[row]
    rank = row - int(np.searchsorted(listed.query, query)) + 1
    within = f", and scores may differ by {tolerance:.2g} of their size" if tolerance else ""
    raise wrong_ranking(
        uri,
        f"query {shown(query_ids[query])!r}, rank {rank}",
        f"the ranking holds {_named(listed, row)}; brute force gives {_named(nearest, row)}"
        f"{within}",
        counted(len(np.unique(listed.query[differs])), len(query_ids), "checked queries"),
        NOT_EXACT,
    )


def _named(rows: Candidates, row: int) -> str:
    return f"{shown(rows.ids[row])!r} with score {float(rows.scores[row])!r}"


def _agree(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], tolerance: float
) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # of two infinities
        apart = np.abs(ours - theirs)
    return (ours == theirs) | (apart <= tolerance * np.maximum(np.abs(ours), np.abs(theirs)))


def _scores_by_pair(listed: Candidates, scored: Candidates) -> NDArray[np.float64]:
    """The score by brute force of each listed pair; NaN if the gallery does not hold it.

    An id that the gallery holds more than once has several: its n-th in the list gets the n-th
    nearest of them, all metrics with a tolerance being distances.
    """
    names = np.unique(scored.ids)
    codes = [
        np.where(name >= 0, rows.query.astype(np.int64) * len(names) + name, -1)
        for rows in (listed, scored)
        for name in (find_ids(names, rows.ids),)
    ]
    order = np.lexsort((scored.scores, codes[1]))
    known, scores = codes[1][order], scored.scores[order]
    ours = np.argsort(codes[0], kind="stable")  # in the order of their ranks
    asked = codes[0][ours]
    nth = np.arange(len(asked)) - np.searchsorted(asked, asked)
    places = np.searchsorted(known, asked) + nth
    is_there = places < np.searchsorted(known, asked, side="right")
    found = np.full(len(asked), np.nan)
    found[ours[is_there]] = scores[places[is_there]]
    return found
