"""`verify`: each kind of tampering is found and named."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError
from retrieval.ranking.verification import verify
from tests.retrieval.verify_case import (
    BROKEN,
    NOT_EXACT,
    Case,
    normal_sides,
    tied_sides,
)


def test_a_score_one_bit_off_is_found(tmp_path):
    case = Case(tmp_path)
    row = case.rows[case.at("q2", 3)]
    found, score = row[2:]
    row[3] = float(np.nextafter(score, 1))
    assert case.message() == (
        f"query 'q2', rank 3: the ranking holds {found!r} with score {row[3]!r}; brute force "
        f"gives {found!r} with score {score!r}. 1 of 7 checked queries differs. {NOT_EXACT}"
    )


def test_minus_zero_is_another_score_than_zero(tmp_path):
    sides = ([("q", np.array([1, 0], np.float16))], [("g", np.array([0, 1], np.float16))])
    case = Case(tmp_path, k=1, sides=sides)
    case.rows[0][3] = -0.0
    assert case.message().startswith(
        "query 'q', rank 1: the ranking holds 'g' with score -0.0; brute force gives 'g' with "
        "score 0.0. 1 of 1 checked queries differs."
    )


def test_two_ids_of_equal_score_swapped_are_found(tmp_path):
    case = Case(tmp_path, sides=tied_sides())
    number = next(n for n in range(len(case.rows) - 1) if case.rows[n][3] == case.rows[n + 1][3])
    first, second = case.rows[number], case.rows[number + 1]
    first[2], second[2] = second[2], first[2]
    assert case.message() == (
        f"query {second[0]!r}, rank {second[1]}: the ranking holds {second[2]!r} with score "
        f"{second[3]!r} after {first[2]!r} with score {first[3]!r}; nearest first, equal scores "
        f"by id, is needed. 1 of 7 queries differs. {BROKEN}"
    )


def test_two_neighbours_swapped_are_found_with_their_scores_or_without(tmp_path):
    for columns in (slice(2, 4), slice(2, 3)):
        case = Case(tmp_path, "l2")
        one, two = case.rows[case.at("q0", 2)], case.rows[case.at("q0", 3)]
        right = list(one)
        one[columns], two[columns] = two[columns], one[columns]
        if columns.stop == 4:
            expected = (
                f"query 'q0', rank 3: the ranking holds {two[2]!r} with score {two[3]!r} after "
                f"{one[2]!r} with score {one[3]!r}; nearest first, equal scores by id, is needed. "
                f"1 of 7 queries differs. {BROKEN}"
            )
        else:
            expected = (
                f"query 'q0', rank 2: the ranking holds {one[2]!r} with score {one[3]!r}; brute "
                f"force gives {right[2]!r} with score {right[3]!r}. 1 of 7 checked queries "
                f"differs. {NOT_EXACT}"
            )
        assert case.message() == expected


def test_a_missing_row_is_found_in_the_middle_and_at_the_end(tmp_path):
    case = Case(tmp_path)
    del case.rows[case.at("q1", 2)]
    assert case.message() == (
        "query 'q1', rank 2: the ranking holds rank 3; from 1 without gaps is needed. "
        f"1 of 7 queries differs. {BROKEN}"
    )
    for exclude_self in (False, True):
        case = Case(tmp_path, exclude_self=exclude_self)
        del case.rows[case.at("q1", 5)], case.rows[case.at("q6", 5)]
        assert case.message() == (
            f"query 'q1': the ranking holds 4 rows; 5 are needed. 2 of 7 queries differ. {BROKEN}"
        )


def test_a_row_too_many_is_found(tmp_path):
    case = Case(tmp_path, "l1")
    case.rows.insert(case.at("q1", 5) + 1, ["q1", 6, "g0", 1e9])
    assert case.message() == (
        f"query 'q1': the ranking holds 6 rows; 5 are needed. 1 of 7 queries differs. {BROKEN}"
    )


def test_a_doubled_row_is_found_with_its_rank_or_a_new_one(tmp_path):
    case = Case(tmp_path)
    number = case.at("q3", 2)
    case.rows.insert(number, list(case.rows[number]))
    assert case.message() == (
        "query 'q3', rank 3: the ranking holds rank 2; from 1 without gaps is needed. "
        f"1 of 7 queries differs. {BROKEN}"
    )
    for query_id in ("q3", "q5"):
        case.rows = Case(tmp_path).rows
        number = case.at(query_id, 2)
        case.rows[number + 1][2:] = case.rows[number][2:]
        found = case.rows[number][2]
        for sample in (1, 20):  # found whether or not the query is drawn
            assert case.message(sample=sample) == (
                f"query {query_id!r}, rank 3: the ranking holds {found!r} in 2 rows; the gallery "
                f"in 1. 1 of 7 queries differs. {BROKEN}"
            )


def test_a_worse_neighbour_in_place_of_a_better_is_found(tmp_path):
    full, case = Case(tmp_path, k=40), Case(tmp_path)
    row, right = case.rows[case.at("q5", 5)], full.rows[full.at("q5", 5)]
    row[2:] = full.rows[full.at("q5", 6)][2:]
    assert case.message() == (
        f"query 'q5', rank 5: the ranking holds {row[2]!r} with score {row[3]!r}; brute force "
        f"gives {right[2]!r} with score {right[3]!r}. 1 of 7 checked queries differs. {NOT_EXACT}"
    )


def test_a_better_neighbour_of_minkowski_left_out_is_found(tmp_path):
    full, case = Case(tmp_path, "minkowski:3", k=40), Case(tmp_path, "minkowski:3")
    row, right = case.rows[case.at("q5", 5)], full.rows[full.at("q5", 5)]
    row[2:] = full.rows[full.at("q5", 6)][2:]
    assert case.message() == (
        f"query 'q5', rank 5: the ranking holds {row[2]!r} with score {row[3]!r}; brute force "
        f"gives {right[2]!r} with score {right[3]!r}, and scores may differ by 4.3e-14 of their "
        f"size. 1 of 7 checked queries differs. {NOT_EXACT}"
    )
    case = Case(tmp_path, "minkowski:3")
    for row in case.rows:
        row[3] *= 1 + 2.0**-51
    verify.run(case.write())


def test_the_query_itself_is_found_where_it_is_left_out(tmp_path):
    _, gallery = tied_sides()
    case = Case(tmp_path, exclude_self=True, sides=(gallery[:7], gallery))
    uri = Case(tmp_path, sides=(gallery[:7], gallery)).write(exclude_self=True)
    query_id, rank = next(row[:2] for row in Case(tmp_path, sides=(gallery[:7], gallery)).rows)
    with pytest.raises(IndexFormatError) as caught:
        verify.run(uri)
    assert str(caught.value) == (
        f"{uri}: query {query_id!r}, rank {rank}: the ranking holds the query itself, which "
        f"`exclude_self` leaves out. 7 of 7 queries differ. {BROKEN}"
    )
    verify.run(case.write())


def test_a_part_of_another_ranking_is_found(tmp_path):
    (tmp_path / "other").mkdir()
    case, sides = Case(tmp_path), normal_sides("float32")
    # Of the same queries in another gallery ...
    other = Case(
        tmp_path / "other", sides=(sides[0], [(f"g{n}", -v) for n, (_, v) in enumerate(sides[1])])
    )
    half = case.at("q4", 1)
    right, case.rows[half:] = case.rows[half], other.rows[half:]
    assert case.message() == (
        f"query 'q4', rank 1: the ranking holds {case.rows[half][2]!r} with score "
        f"{case.rows[half][3]!r}; brute force gives {right[2]!r} with score {right[3]!r}. "
        f"3 of 7 checked queries differ. {NOT_EXACT}"
    )
    # ... and of other queries: instead, in addition, or none at all.
    case.rows[half:] = [[f"p{row[0]}", *row[1:]] for row in Case(tmp_path).rows[half:]]
    assert case.message() == (
        f"query 'pq4': in the ranking, but not among the queries. 6 of 7 queries differ. {BROKEN}"
    )
    case.rows = Case(tmp_path).rows
    uri = case.write()
    first, second = sorted((tmp_path / "ranking").glob("part-*"))
    manifest = tmp_path / "ranking" / "_ranking.json"
    text = manifest.read_text()
    facts = json.loads(text)
    for parts, message in (
        (
            [first, second, first],
            "query 'q0': in the ranking more than once. 4 of 7 queries differ",
        ),
        ([first], "query 'q4': not in the ranking. 3 of 7 queries differ"),
        ([], "query 'q0': not in the ranking. 7 of 7 queries differ"),
        (
            [second, first],
            "query 'q0': out of order; sorted by query id is needed. 1 of 7 queries differs",
        ),
    ):
        manifest.write_text(json.dumps({**facts, "parts": [path.name for path in parts]}))
        with pytest.raises(IndexFormatError) as caught:
            verify.run(uri)
        assert str(caught.value) == f"{uri}: {message}. {BROKEN}"


def test_parts_of_other_columns_are_refused(tmp_path):
    uri = Case(tmp_path).write(parts=1)
    (part,) = (tmp_path / "ranking").glob("part-*")
    pq.write_table(pa.table({"query_id": ["q0"], "rank": [1]}), part)
    with pytest.raises(IndexFormatError) as caught:
        verify.run(uri)
    assert str(caught.value) == (
        f"{part}: columns query_id string, rank int64; query_id string, rank int32, gallery_id "
        f"string, score double are needed. {BROKEN}"
    )


def test_a_score_that_is_no_number_is_found(tmp_path):
    for rank in (1, 5):
        case = Case(tmp_path)
        case.rows[case.at("q0", rank)][3] = np.nan
        assert f"query 'q0', rank {rank}: the ranking holds" in case.message(sample=1)
