"""Ids and checks by integers and offsets give what plain loops over the rows give."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import IndexFormatError
from retrieval.vectors import checks
from retrieval.vectors.checks import check_vectors
from retrieval.vectors.columns import id_array

KINDS = (pa.string(), pa.large_string(), pa.string_view())
DTYPES = ("float16", "float32", "float64")
# Any text without NUL characters and halves of surrogate pairs.
TEXTS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=20)


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_worked_by_hand(kind):
    found = id_array(pa.array(["ab", "", "é"], kind), "f", 0)
    assert found.dtype == np.dtype("S2")
    assert found.tobytes() == b"ab" + b"\0\0" + "é".encode()
    found = id_array(pa.array(["a", "猫b", "cd"], kind), "f", 0)
    assert found.tobytes() == b"a\0\0\0" + "猫b".encode() + b"cd\0\0"


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(TEXTS, max_size=30), data=st.data())
def test_ids_are_those_of_a_loop_over_any_slice(kind, texts, data):
    start = data.draw(st.integers(0, len(texts)))
    stop = data.draw(st.integers(start, len(texts)))
    expected = np.array([text.encode() for text in texts[start:stop]], dtype="S")
    found = id_array(pa.array(texts, kind)[start:stop], "f", start)
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()
    assert found.shape == (stop - start,)


@pytest.mark.parametrize("width", [255, 256, 257, 65_535, 65_536])
def test_long_ids_keep_every_byte_and_take_no_byte_of_their_neighbours(width):
    ids = [b"x" * width, b"y", b"z" * (width - 1), b"x" * width]
    found = id_array(pa.array([row_id.decode() for row_id in ids]), "f", 0)
    assert found.dtype.itemsize == width
    assert found.tolist() == ids


@pytest.mark.parametrize("column", [pa.array([], pa.string()), pa.array([], pa.int64())])
def test_no_rows_are_no_ids(column):
    assert id_array(column, "f", 0).shape == (0,)
    assert id_array(pa.nulls(3, column.type)[3:], "f", 0).shape == (0,)


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("row", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_id_is_named_with_its_row_in_any_slice(kind, row, start):
    for wrong, problem in (
        (None, "no id; each row needs one."),
        ("a\0", "the id holds a NUL character; rename it."),
        ("\0", "the id holds a NUL character; rename it."),
        ("\0a", "the id holds a NUL character; rename it."),
    ):
        ids = ["", "ü", "x", "", "yy", ""]
        ids[row] = wrong
        column = pa.array(ids, kind)[start:]
        with pytest.raises(IndexFormatError, match=line(f"f, row {100 + row}: {problem}")):
            id_array(column, "f", 100 + start)


def test_a_nul_character_outside_the_slice_is_no_error():
    assert id_array(pa.array(["\0", "a", "bc", "\0"])[1:3], "f", 1).tolist() == [b"a", b"bc"]


def first_wrong(vectors):
    """The plain loop: row and kind of the first vector that cannot be ranked."""
    for row, vector in enumerate(vectors.astype(np.float64)):
        if any(np.isnan(vector)):
            return row, "NaN"
        if any(np.isinf(vector)):
            return row, "infinite"
        if not any(vector):
            return row, "all zeros"
    return None


def found_wrong(vectors):
    try:
        check_vectors(vectors, "f", 0)
    except IndexFormatError as error:
        row, what = re.match(r"f, row (\d+): the vector is (.+?); finite", str(error)).groups()
        return int(row), what
    return None


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_a_check_finds_what_a_loop_finds(dtype, data):
    limits = np.finfo(dtype)
    values = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -np.nan]
    values += [limits.max, -limits.max, limits.smallest_subnormal, -limits.smallest_subnormal]
    # Mostly zeros, so that rows of zeros are likely.
    picks = st.lists(st.sampled_from([0, 1] * 8 + list(range(len(values)))), max_size=12)
    dim = data.draw(st.integers(1, 4))
    rows = [values[pick] for pick in data.draw(picks)]
    vectors = np.array(rows[: len(rows) // dim * dim], dtype).reshape(-1, dim)
    assert found_wrong(vectors) == first_wrong(vectors)


@pytest.mark.parametrize("bits", [0x7C00, 0x7C01, 0x7FFF, 0xFC00, 0xFC01, 0xFFFF, 0, 0x8000])
def test_every_kind_of_float16_that_is_no_number_is_found_wherever_it_stands(bits, monkeypatch):
    monkeypatch.setattr(checks, "_PIECE_BYTES", 32)  # pieces of four rows
    is_zero = not bits & 0x7FFF
    for sign in (1, -1):
        for row in range(10):
            for place in range(4):
                vectors = np.full((10, 4), sign * 65504, np.float16)
                vectors.view(np.uint16)[row, 0 if is_zero else place :] = bits
                assert found_wrong(vectors) == first_wrong(vectors)
                assert found_wrong(vectors)[0] == row


def test_every_finite_float16_passes():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values) & (values != 0)]
    for dim in (1, 2):
        check_vectors(values.reshape(-1, dim), "f", 0)
    check_vectors(np.stack([0 * values, values], axis=1), "f", 0)
    check_vectors(np.empty((0, 3), np.float16), "f", 0)
