"""Damage to the files of a ranking, as `evaluate`, `report`, `verify` and others read them."""

from __future__ import annotations

import functools
import itertools
import json
import operator
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.rank.job import run as rank
from retrieval.errors import IndexFormatError, RetrievalError
from retrieval.evaluation import evaluate
from retrieval.evaluation.overlap import compare_rankings
from retrieval.ranking.files import RankingWriter, check_ranking_place, open_ranking, read_parts
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.verification import verify
from retrieval.report_page import write_report
from retrieval.vectors import open_source
from tests.conftest import make_index
from tests.damage import Target, count_outcomes

REMOVED = object()
VALUES = (REMOVED, None, True, -1, 10**30, "x", [])
CONFIG = RankConfig(top_k=3, num_threads=1)


def make_ranking(folder):
    """Two indexes with labels and a ranking of them."""
    rng = np.random.default_rng(5)
    for name, number in (("q", 5), ("g", 12)):
        vectors = rng.normal(size=(number, 8)).astype(np.float16)
        ids = [f"{name}{n}" for n in range(number)]
        make_index(folder / name, ids, vectors, labels=["ab"[n % 2] for n in range(number)])
    rank(str(folder / "q"), str(folder / "g"), str(folder / "r"), CONFIG)
    return folder / "r" / "_ranking.json"


def make_old_ranking(folder):
    from tests.first_release import as_first_release

    make_ranking(folder)
    as_first_release(folder / "r")
    return folder / "r" / "ranking.json"


def make_part(folder):
    make_ranking(folder)
    return next((folder / "r").glob("part-*"))


def evaluated(folder):
    return evaluate(*(str(folder / name) for name in "rqg"))


def reported(folder):
    page = folder / "page.html"
    write_report(str(folder / "r"), str(page), queries=str(folder / "q"), gallery=str(folder / "g"))
    # Not what it says of the two sides: a word of the manifest cannot be known to be wrong.
    return re.findall(r">\s*([qg]\d+|[ab]|\d\.\d+)\s*<", page.read_text())


def verified(folder):
    sides = {"queries": str(folder / "q"), "gallery": str(folder / "g")}
    found = verify.run(str(folder / "r"), sample=2, **sides)
    return {name: found[name] for name in ("num_rows", "num_rows_checked", "score_rule")}


def compared(folder):
    ranking = open_ranking(str(folder / "r"))
    return compare_rankings(ranking, ranking).mean_overlap


def read_back(folder):
    return pa.concat_tables(read_parts(open_ranking(str(folder / "r")))).to_pylist()


def ranked_again(folder):
    """With --previous, as a night does."""
    from retrieval.ranking.incremental import Previous

    sides = [open_source(str(folder / name)) for name in "qg"]
    previous = Previous(str(folder / "r"), *sides, 3, CONFIG)
    ids = np.array([f"q{n}".encode() for n in range(5)])
    old = previous.lists(ids)
    lasts = zip(old.last_scores.tolist(), old.last_ids.tolist(), strict=True)
    return [last for last, is_there in zip(lasts, old.is_listed, strict=True) if is_there]


def gone_on(folder):
    """What a run finds of an earlier one; a part that is not whole is made again."""
    check_ranking_place(str(folder / "r"))
    (part,) = (folder / "r").glob("part-*")
    RankingWriter(str(folder / "r"), part.stem[-12:]).resume()


READERS = {
    "evaluate": evaluated,
    "report": reported,
    "verify": verified,
    "diff": compared,
    "read": read_back,
    "rank --previous": ranked_again,
    "rank": gone_on,
}


def is_less(whole, damaged):
    """Queries that --previous does not list are ranked anew."""
    return all(last in whole for last in damaged)


TARGETS = [
    Target(
        f"{what}: {name}", make, read,
        is_right=is_less if name == "rank --previous" else lambda whole, damaged: False,
        is_json=is_json,
    )
    for what, make, is_json in (
        ("_ranking.json", make_ranking, True),
        ("ranking.json", make_old_ranking, True),
        ("part", make_part, False),
    )
    for name, read in READERS.items()
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_file_is_read_right_or_refused(tmp_path, target):
    counts = count_outcomes(target, tmp_path, seed=1, number=25)
    assert counts["right"] or counts["refused"]


def places_in(value, way=()):
    """The way to each value of a manifest but those within lists."""
    for key, inner in value.items():
        yield (*way, key)
        if isinstance(inner, dict):
            yield from places_in(inner, (*way, key))


@pytest.mark.parametrize("make", [make_ranking, make_old_ranking])
def test_a_field_that_is_missing_or_something_else_is_noticed(tmp_path, make):
    """Each field in turn: the figures are right, or one line says what is wrong."""
    path = make(tmp_path)
    whole = json.loads(path.read_text())
    expected, num_refused = evaluated(tmp_path), 0
    for way in places_in(whole):
        for value in VALUES if make is make_ranking else VALUES[:2]:
            found = json.loads(json.dumps(whole))
            holder = functools.reduce(operator.getitem, way[:-1], found)
            if value is REMOVED:
                del holder[way[-1]]
            else:
                holder[way[-1]] = value
            path.write_text(json.dumps(found))
            try:
                assert evaluated(tmp_path) == expected, (way, value)
            except RetrievalError as error:
                num_refused += 1
                assert "\n" not in str(error)  # noqa: PT017
    assert num_refused > 50


def test_no_byte_of_a_footer_ends_the_process(tmp_path):
    """Arrow aborts over statistics of a column whose two types do not agree."""
    from retrieval.ranking.incremental import _query_range

    path = make_part(tmp_path)
    ranking, content = open_ranking(str(tmp_path / "r")), path.read_bytes()
    assert _query_range(ranking, path.name) == (b"q0", b"q4")
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place, value in itertools.product(range(start, len(content)), (0, 1, 12, 0x1C, 0x55)):
        path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        first, last = _query_range(ranking, path.name)  # the process lives, which is the test
        assert type(first) is type(last) is bytes


@pytest.mark.parametrize("name", ["report", "verify", "read", "rank --previous", "rank"])
def test_scores_of_another_compression_are_noticed(tmp_path, name):
    """The footer has no checksum, and packed bytes are read as numbers without an error."""
    path = make_part(tmp_path)
    content, packed = path.read_bytes(), b"score\x15\x0c"  # its name, then ZSTD
    assert content.count(packed) == 1
    path.write_bytes(content.replace(packed, b"score\x15\x00"))
    if name == "rank":
        writer = RankingWriter(str(tmp_path / "r"), path.stem[-12:])
        assert not writer.resume()
        return
    with pytest.raises(RetrievalError, match=r"order of the ranks|after .g6."):
        READERS[name](tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_ranking(folder)
    return folder


@pytest.mark.parametrize("verb", ["evaluate", "report", "verify", "rank"])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"[]", b"null", b'{"parts": []',
        b'{"parts": [NaN]}', b'{"parts": ' + b"[" * 5000, b'{"parts": [], "parts": []}',
        b'{"parts": {}}', b'{"parts": [{}]}', b'{"parts": [], "queries": 1}',
        b'{"parts": [], "format_version": 2}', b'{"parts": [], "top_k": 1e400}',
    ],
    ids=range(14),
)  # fmt: skip
def test_the_commands_tell_a_damaged_manifest_in_one_line(tmp_path, made, verb, content):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "r" / "_ranking.json").write_bytes(content)
    r, q, g = (str(tmp_path / name) for name in "rqg")
    command = {
        "evaluate": ["evaluate", r, "--queries", q, "--gallery", g],
        "report": ["report", r, str(tmp_path / "page.html"), "--queries", q, "--gallery", g],
        "verify": ["verify", r],
        "rank": ["rank", q, g, str(tmp_path / "new"), "--top-k", "3", "--previous", r],
    }[verb]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1, done.output
    assert re.fullmatch(rf"Error: {r}/_ranking.json: .+\n", done.stderr), done.output


def test_a_manifest_of_hundreds_of_megabytes_is_not_read(tmp_path, made):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "r" / "_ranking.json"
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(IndexFormatError, match=r"cannot be read \(more than 268435456 bytes\)"):
        evaluated(tmp_path)
