"""How much two rankings of the same queries differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from retrieval.errors import MismatchError
from retrieval.ranking.files import Ranking, read_parts

__all__ = ["Churn", "QueryChange", "compare_rankings"]


@dataclass(frozen=True)
class QueryChange:
    """How much the list of one query differs.

    Attributes:
        query_id: The query.
        overlap: Fraction of the longer list that is in both, whatever the order.
        top_1_before, top_1_after: The first image of each.
    """

    query_id: str
    overlap: float
    top_1_before: str
    top_1_after: str


@dataclass(frozen=True)
class Churn:
    """How much two rankings differ.

    Attributes:
        num_queries: Queries, the same in both.
        mean_overlap: Mean of their overlaps.
        top_1_changed_fraction: Fraction of them with another first image.
        worst: The queries that differ most: least overlap first, then by id.
    """

    num_queries: int
    mean_overlap: float
    top_1_changed_fraction: float
    worst: tuple[QueryChange, ...]


def compare_rankings(
    before: Ranking, after: Ranking, num_worst: int = 10, *, k: int | None = None
) -> Churn:
    """Compare two rankings of the same queries.

    Args:
        before: A ranking.
        after: Another.
        num_worst: Most queries to name; those that do not differ are not named.
        k: How many nearest of each query are compared; all that are listed by default.

    Raises:
        MismatchError: they are not of the same queries, or there is none; their scores are by
            two rules of one metric.
        IndexFormatError: a part is damaged.

    Cost: holds both rankings in memory, some 100 bytes a row: meant for some thousand queries.
    """
    _check_rules(before, after)
    lists, others = _lists(before, k), _lists(after, k)
    if lists.keys() != others.keys() or not lists:
        strange = min(lists.keys() ^ others.keys(), default="no query")
        raise MismatchError(
            f"{before.uri} and {after.uri}: not of the same queries, such as {strange!r}. Rank "
            f"the same queries."
        )
    changes = [_compare(name, old, others[name]) for name, old in lists.items()]
    worst = sorted(changes, key=lambda change: (change.overlap, change.query_id))
    num_moved = sum(change.top_1_before != change.top_1_after for change in changes)
    return Churn(
        num_queries=len(changes),
        mean_overlap=sum(change.overlap for change in changes) / len(changes),
        top_1_changed_fraction=num_moved / len(changes),
        worst=tuple(change for change in worst if _differs(change))[:num_worst],
    )


def _check_rules(before: Ranking, after: Ranking) -> None:
    """What only the rule has changed would be told as a change of the images."""
    metric, rules = after.facts.get("metric"), (before.score_rule, after.score_rule)
    if before.facts.get("metric") == metric and rules[0] != rules[1]:
        raise MismatchError(
            f"{before.uri} and {after.uri}: their scores are by rules {rules[0]} and {rules[1]} of "
            f"{metric}, which order near neighbours in different ways. Rank the older one again."
        )


def _lists(ranking: Ranking, k: int | None) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for query, gallery in _pairs(ranking):
        lists.setdefault(query, []).append(gallery)
    return {query: names[:k] for query, names in lists.items()}


def _pairs(ranking: Ranking) -> Iterator[tuple[str, str]]:
    for part in read_parts(ranking, ["query_id", "gallery_id"]):
        yield from zip(part["query_id"].to_pylist(), part["gallery_id"].to_pylist(), strict=True)


def _compare(name: str, old: list[str], new: list[str]) -> QueryChange:
    shared = len(set(old) & set(new))
    return QueryChange(name, shared / max(len(old), len(new)), old[0], new[0])


def _differs(change: QueryChange) -> bool:
    return change.overlap < 1 or change.top_1_before != change.top_1_after
