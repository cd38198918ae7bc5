"""A JSON file is read by the standard and within bounds, or refused by what is wrong with it."""

from __future__ import annotations

import json
import os
import pickle
import re
import tracemalloc

import pytest

from retrieval.storage import parse_json, read_json
from retrieval.storage.json_files import (
    check_fields,
    flag,
    items,
    number,
    optional,
    text,
    texts,
    whole,
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": 1} {}', "Extra data"),
        (b'{"a": 1, "a": 1}', "it says 'a' twice"),
        (b'[{"b": {"a": 1, "c": 2, "a": 3}}]', "it says 'a' twice"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"a": 1e999}', "1e999 is beyond 64 bits"),
        (b'{"a": 18446744073709551617}', "18446744073709551617 is beyond 64 bits"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "9{40} is beyond 64 bits"),
        (b"[" * 100_000, "too many values|nested too deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested too deep"),
        (b"[" * 34 + b"1" + b"]" * 34, "nested too deep"),
        (b"\xff{}", "can't decode byte 0xff"),
        (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM"),
        ('{"a": 1}'.encode("utf-16"), "can't decode byte"),
        (b'{"a": "\\ud800"}', "half of a character in a text"),
        (b'{"a": "b\nc"}', "Invalid control character"),
        (b"[" + b"1," * 3_000_000 + b"1]", "too many values"),
    ],
)
def test_what_is_no_json_is_refused_by_its_fault(content, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        parse_json(content)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_json_comes_back_as_it_is():
    value = {"a": [1, -1.5, 1e300, 2**64, True, None, "é😀\u2028", {}], "b": {"c": {"d": []}}}
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value
    assert pickle.loads(pickle.dumps(parse_json(json.dumps(value).encode()))) == value


def test_an_object_names_what_it_does_not_say():
    found = parse_json(b'{"a": {"b": 1}}', KeyError)
    assert found["a"]["b"] == 1
    assert found["a"].get("c") is None
    with pytest.raises(KeyError, match="it does not say 'c'"):
        found["a"]["c"]


@pytest.mark.parametrize("content", [b"[]", b"null", b'"a"', b"1"])
def test_a_file_holds_an_object(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^no JSON object$"):
        read_json(str(tmp_path / "a.json"))


def test_of_a_large_file_no_more_is_read_than_fits(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^more than 1000 bytes$"):
            read_json(str(path), max_bytes=1000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_memory_of_a_hostile_file_is_bounded():
    content = b"[" + b"[]," * 2_000_000 + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="too many values"):
            parse_json(content)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "folder"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"it is no plain file|Is a directory"):
        read_json(str(tmp_path / name))


def test_a_store_is_read_alike(s3):
    from retrieval.storage import write_bytes

    write_bytes(f"{s3}/a.json", b'{"a": 1}')
    assert read_json(f"{s3}/a.json") == {"a": 1}
    with pytest.raises(ValueError, match=r"^more than 5 bytes$"):
        read_json(f"{s3}/a.json", max_bytes=5)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (text, ["", "é"], [None, 1, [], "a\0b"]),
        (flag, [True, False], [0, 1, None, "true"]),
        (number, [0, -1, 1.5], [True, None, "1", float("nan"), float("inf")]),
        (whole(), [0, 2**63 - 1], [-1, 1.0, True, None, "1", 2**63]),
        (whole(1, 9), [1, 9], [0, 10]),
        (optional(text), [None, "a"], [1]),
        (texts, [[], ["a"]], [None, "a", [1], [None], {}]),
        (items({"n": whole()}), [{}, {"n": 1}, {"other": []}], [None, [], {"n": -1}]),
    ],
)
def test_each_kind_of_value_is_told_from_others(kind, right, wrong):
    for value in right:
        check_fields({"a": value}, {"a": kind, "not there": kind})
    for value in wrong:
        with pytest.raises(ValueError, match=r"^(an item of )?a(\.n)? is .+; .+ needed$") as caught:
            check_fields({"a": value}, {"a": kind})
        assert len(str(caught.value)) < 120


def test_a_value_within_another_is_named_by_its_way():
    with pytest.raises(ValueError, match=re.escape("side.spec.dim is 'x'; a whole number from 0")):
        check_fields(
            {"side": {"spec": {"dim": "x"}}}, {"side": items({"spec": items({"dim": whole()})})}
        )
