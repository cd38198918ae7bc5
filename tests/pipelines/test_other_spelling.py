"""A ranking knows its indexes by what they hold, whatever they are called and wherever they lie."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines import rank
from pipelines.reindex.ranking import _is_current
from retrieval.errors import MismatchError
from retrieval.evaluation import evaluate
from retrieval.index import commit_index, open_index, save_candidate
from retrieval.maintenance.restore import restore_index
from retrieval.ranking.files import open_ranking
from retrieval.ranking.verification import verify
from tests.conftest import make_index
from tests.first_release import as_first_release
from tests.pipelines.spelling_case import (
    ALL,
    FIVE,
    Case,
    add_version,
    by_dots,
    by_link,
    copied,
    doors,
    moved,
    rows_of,
)
from tests.retrieval.ranks import parts_of


@pytest.fixture(params=["first release", "this release"])
def case(tmp_path, request):
    return Case(tmp_path, request.param)


@pytest.fixture
def newest(tmp_path):
    return Case(tmp_path, "this release")


@doors
def test_what_was_ranked_is_measured_shown_and_verified(case, door):
    q, g = door(case.q), door(case.g)
    assert case.figures.num_gallery == 12
    assert evaluate(case.ranking, q, g) == case.figures
    assert evaluate(case.ranking, f"{q.rstrip('/')}@0", f"{g.rstrip('/')}@0") == case.figures
    assert case.report(q, g) == case.page
    found = verify.run(case.ranking, queries=q, gallery=g)
    assert (found["is_exact"], found["num_gallery"]) == (True, 12)


@doors
@pytest.mark.parametrize("made_by", ["first release", "this release"])
def test_a_night_goes_on_from_what_was_ranked_and_leaves_it_alone_if_that_is_all(
    tmp_path, door, made_by
):
    case = Case(tmp_path, made_by, FIVE)
    case.again(case.q, 0)
    case.again(case.g, 0)  # as version 2
    q, g = door(case.q), door(case.g).rstrip("/")
    ranking = open_ranking(case.ranking)
    assert _is_current(ranking, q, g, 2, FIVE)
    assert not _is_current(ranking, q, g, 1, FIVE)
    assert not _is_current(ranking, q, g, 2, replace(FIVE, top_k=4))
    config = replace(FIVE, previous=case.ranking)
    found = rank.run(q, f"{g}@1", str(tmp_path / "next"), config)
    assert (found["num_gallery"], found["previous"]) == (17, case.ranking)
    rank.run(q, f"{g}@1", str(tmp_path / "full"), FIVE)
    assert parts_of(tmp_path / "next") == parts_of(tmp_path / "full")


def test_a_run_that_was_killed_goes_on_by_another_spelling(newest, tmp_path):
    rank.run(str(newest.q), str(newest.g), str(tmp_path / "new"), ALL)
    (tmp_path / "new" / "_ranking.json").unlink()
    q, g = moved(newest.q), by_link(newest.g)
    assert rank.run(q, g, str(tmp_path / "new"), ALL)["num_resumed_parts"] == 1


# --------------------------------------------------------------------- the number of a version


@pytest.mark.parametrize("spelled", [str, copied], ids=["itself", "copied"])
def test_the_same_shards_are_found_under_another_number(case, spelled):
    case.again(case.g, 0)
    add_version(case.g, ["d7"], 9)
    for number in (0, 1, 77):  # of itself, of other shards, of none
        case.change("gallery", version=number)
        assert evaluate(case.ranking, str(case.q), str(case.g)) == case.figures
    gallery = spelled(case.g)
    assert evaluate(case.ranking, str(case.q), f"{gallery}@2") == case.figures
    assert verify.run(case.ranking, gallery=gallery)["is_exact"]


def test_a_restored_version_is_the_one_that_was_ranked(case):
    for index in (case.q, case.g):
        restore_index(str(index), 0)
        DeltaTable(str(index)).create_checkpoint()
        for version in (0, 1):  # as a cleaning of the log leaves it
            (index / "_delta_log" / f"{version:020d}.json").unlink()
    assert evaluate(case.ranking, str(case.q), str(case.g)) == case.figures
    assert verify.run(case.ranking)["num_gallery"] == 12


@pytest.mark.parametrize("spelled", [str, by_link, moved])
def test_a_version_that_is_named_must_be_the_one_that_was_ranked(case, spelled):
    g = spelled(case.g)
    with pytest.raises(MismatchError) as caught:
        evaluate(case.ranking, str(case.q), f"{g}@1")
    assert str(caught.value) == (
        f"{case.ranking}: ranked version 0 of {case.g} with 12 rows, which is not among the "
        f"gallery given: version 1 of {g} holds 17 rows of other shards. Name what was ranked, "
        f"or rank again."
    )


def test_labels_are_those_of_the_version_that_was_ranked(case):
    names = [f"{c}{n}" for c in "abcd" for n in range(10, 13)]
    restore_index(str(case.g), 0)
    add_version(case.g, [f"{name[::-1]}" for name in names], 2, keep=0)
    relabelled = make_index(case.root / "r", *rows_of(names, 2)[:2], labels=["z"] * 12)
    for shard in relabelled.shards:
        shutil.copy(f"{relabelled.uri}/{shard.path}", f"{case.g}/{shard.path}")
    now = open_index(str(case.g)).version
    commit_index(str(case.g), relabelled.spec, relabelled.shards, run={}, seen_version=now)
    assert evaluate(case.ranking, by_dots(case.q), by_dots(case.g)) == case.figures
    case.change("gallery", version=77)
    assert evaluate(case.ranking, by_dots(case.q), by_dots(case.g)) == case.figures


# -------------------------------------------------------------------------------- candidates


@pytest.fixture(params=["first release", "this release"])
def judged(tmp_path, request):
    """The ranking of a candidate, as the gate of a night makes it, and what it measured."""
    case = Case(tmp_path, "this release")
    now = open_index(str(case.g))
    candidate = replace(now, version=2, shards=now.shards[1:], run={"run_id": "night"})
    address = save_candidate(candidate)
    rank.run(str(case.q), address, case.ranking, ALL)
    if request.param == "first release":
        as_first_release(case.ranking)
    case.figures = evaluate(case.ranking, str(case.q), address)
    return case, candidate, address


def test_a_candidate_is_measured_by_its_address_wherever_its_index_lies(judged):
    case, candidate, address = judged
    assert case.figures.num_gallery == candidate.num_rows
    place = moved(case.g)
    assert open_index(address.replace(str(case.g), place)).uri == place
    assert evaluate(case.ranking, str(case.q), address.replace(str(case.g), place)) == (
        case.figures
    )


@pytest.mark.parametrize("spelled", [str, by_dots, moved])
def test_a_candidate_that_has_been_committed_is_a_version(judged, spelled):
    case, candidate, address = judged
    add_version(case.g, ["d8"], 5)  # another night was first
    commit_index(str(case.g), candidate.spec, candidate.shards, run={}, seen_version=2)
    add_version(case.g, ["d9"], 6)
    Path(address).unlink()
    assert evaluate(case.ranking, str(case.q), address) == case.figures
    assert case.report()
    assert verify.run(case.ranking)["num_gallery"] == candidate.num_rows
    assert evaluate(case.ranking, str(case.q), spelled(case.g)) == case.figures


# ---------------------------------------------------------------------------- an object store


def test_an_index_in_a_bucket_is_known_at_any_of_its_addresses(s3, tmp_path):
    from retrieval.storage import list_files, read_bytes, write_bytes

    case = Case(tmp_path, "this release")
    for index in (case.q, case.g):
        for file in list_files(str(index)):
            write_bytes(file.replace(f"{tmp_path}", f"{s3}/spellings"), Path(file).read_bytes())
        for folder in ("_delta_log",):
            for file in (index / folder).iterdir():
                name = str(file).replace(f"{tmp_path}", f"{s3}/spellings")
                write_bytes(name, read_bytes(str(file)))
    q, g = f"{s3}/spellings/home/q", f"{s3}/spellings/home/g"
    for end in ("", "/", "@0"):
        assert evaluate(case.ranking, q + end, g + end) == case.figures
    with pytest.raises(MismatchError, match=f"version 1 of {g} holds 17 rows"):
        evaluate(case.ranking, q, f"{g}@1")
    rank.run(f"{q}@0", f"{g}@0", case.ranking, ALL)
    as_first_release(case.ranking)
    assert evaluate(case.ranking, str(case.q), str(case.g)) == case.figures
