"""A vacuum's version and its list, step by step; test_index_beside.py has all orders of steps."""

from __future__ import annotations

import json
import re

import pytest

from pipelines.reindex import gate
from retrieval.errors import IndexFormatError, MismatchError, UsageError, VacuumedError
from retrieval.index import (
    commit_index,
    last_check_us,
    open_index,
    publish,
    read_index,
    update_plan,
    write_record,
)
from retrieval.index.history import read_commit
from retrieval.index.removal_lists import State, names_in_force, read_lists, state_of, write_list
from retrieval.index.staging import read_receipts
from retrieval.maintenance import vacuum
from retrieval.maintenance.check import check_index
from retrieval.maintenance.restore import restore_index
from retrieval.maintenance.status import describe_index
from retrieval.maintenance.vacuum import vacuum_index
from tests.retrieval.interleaving import Killed
from tests.retrieval.night_cases import gallery_of, killed_night
from tests.retrieval.nights import SPEC, LoopExecutor, begin, check, one_night
from tests.versions import DAY_S, PRESENT_S, add_shard, commit, date_file, entry, old_index


def clean(path, **settings):
    return vacuum_index(str(path), 7, now_s=PRESENT_S, **settings).to_json()


@pytest.fixture
def index(tmp_path):
    """Version 1 is current; version 0 has been gone for 20 days."""
    old_index(tmp_path, [30, 20])
    return tmp_path


def lists_of(path):
    uri = str(path)
    return state_of(uri, read_lists(uri))


def killed_at(patch, module, place, work):
    """Do something that ends at a place."""

    def reached(name):
        if name == place:
            raise Killed(name)

    with patch.context() as inner:
        inner.setattr(module, "reached", reached)
        with pytest.raises(Killed):
            work()


def test_a_vacuum_that_removes_shards_repeats_the_version_in_the_log(index):
    before = open_index(str(index))
    clean(index)
    after = open_index(str(index))
    commit = read_commit(str(index), 2)
    assert (commit.added, commit.removed) == (frozenset(), frozenset())
    assert (after.version, after.shards, after.spec) == (2, before.shards, before.spec)
    own = {"run_id", "created_at", "vacuum", "repeated_version", "repeated_run_id"}
    assert {key: after.run[key] for key in after.run if key not in own} == {
        key: before.run[key] for key in before.run if key != "run_id"
    }
    assert (after.run["repeated_version"], after.run["repeated_run_id"]) == (1, "run1")
    assert after.run["run_id"] != before.run["run_id"]
    assert list((index / "_vacuum").iterdir()) == []
    assert check_index(after).faults == []
    assert read_index(f"{index}", 1).ids == read_index(f"{index}", 2).ids


def test_without_shards_and_rejects_to_remove_there_is_no_version(index):
    clean(index)
    leftover = index / f"_staging/run-{'0' * 32}.json"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"{}")
    date_file(leftover, PRESENT_S - 10 * DAY_S)
    assert clean(index)["removed"]["receipts"]["files"] == 1
    assert open_index(str(index)).version == 2


def test_a_dry_run_makes_neither_list_nor_version(index):
    assert clean(index, dry_run=True)["removed"]["shards"]["files"] == 1
    assert not (index / "_vacuum").exists()
    assert open_index(str(index)).version == 1


def test_what_is_about_a_version_holds_for_those_that_repeat_it(index):
    index_1 = open_index(str(index))
    write_record(str(index), "a-night", {"version_after": 1, "listed_us": 77}, pytest.fail)
    assert last_check_us(index_1) == 77
    for _ in range(2):  # two vacuums in turn
        add_shard(index, {"x": "1"})
        for path in index.glob("shard-*"):
            date_file(path, PRESENT_S - 10 * DAY_S)
        clean(index)
    newest = open_index(str(index))
    assert newest.version == 3
    assert last_check_us(newest) == 77
    assert gate._ranking_of(newest) == gate._ranking_of(index_1)
    (vacuumed, again, made, _) = describe_index(str(index)).runs
    for run in (vacuumed, again):
        assert (run["vacuumed"], run["repeated_version"]) == (True, 1)
        assert not [name for name in run if name.startswith("num_")]
    assert made["run_id"] == "run1"
    assert "vacuumed" not in made


def test_a_vacuums_version_can_be_restored_and_is_no_vacuum_then(index):
    clean(index)
    commit(index, [add_shard(index, {"y": "1"})], run_id="later", rejects=None)
    restored = restore_index(str(index), 2)
    assert restored.run["restored_version"] == 2
    assert not {"vacuum", "repeated_version", "repeated_run_id"} & restored.run.keys()
    assert check_index(restored).faults == []


def night_and_vacuum(tmp_path):
    """A gallery's index; what a killed night staged 8 days ago; a vacuum that takes it."""
    uri, gallery = str(tmp_path), gallery_of(6)
    one_night(uri, gallery)
    for number in range(4):
        gallery.put(f"a/new {number}", b"new %d" % number)
    killed_night(uri, gallery)
    for path in [*tmp_path.glob("_staging/*"), *tmp_path.glob("shard-*")]:
        date_file(path, PRESENT_S - 8 * DAY_S)
    return uri, gallery


def test_a_night_that_only_a_vacuum_has_overtaken_takes_the_next_number(tmp_path):
    uri, gallery = night_and_vacuum(tmp_path)
    add_shard(tmp_path, {"x": "1"}, spec=None)  # rubbish that the night does not need
    candidate = begin(uri, gallery, LoopExecutor(uri, gallery))
    stale = set(tmp_path.glob("shard-*")) - {
        tmp_path / shard.path for shard in candidate.index.shards
    }
    for path in tmp_path.rglob("*"):  # all but what the night needs is old
        is_old = path in stale
        date_file(path, PRESENT_S - (10 if is_old else 1) * DAY_S)
    assert clean(tmp_path)["removed"]["shards"]["files"] == len(stale) > 0
    assert publish(candidate) == 2
    check(uri, gallery)


def test_another_run_still_ends_it_though_a_vacuum_came_after(tmp_path):
    uri, gallery = night_and_vacuum(tmp_path)
    candidate = begin(uri, gallery, LoopExecutor(uri, gallery))
    gallery.put("b/other", b"other")
    one_night(uri, gallery)
    add_shard(tmp_path, {"x": "1"})
    vacuum_index(uri, 0, force=True)
    assert open_index(uri).version == 2
    with pytest.raises(MismatchError, match="has committed version 2 meanwhile; this one started"):
        publish(candidate)
    check(uri, gallery)


def test_a_shard_that_a_vacuum_takes_before_the_entry_is_embedded_again(tmp_path):
    uri, gallery = night_and_vacuum(tmp_path)
    executor = LoopExecutor(uri, gallery)
    candidate = begin(uri, gallery, executor)
    assert executor.embedded == []
    clean(tmp_path)
    with pytest.raises(VacuumedError, match=r"this new shard is not there; .* run it again"):
        publish(candidate)
    executor = LoopExecutor(uri, gallery)
    assert publish(begin(uri, gallery, executor)) == 2
    assert len(executor.embedded) == 4
    check(uri, gallery)


def test_a_shard_that_a_killed_vacuum_has_listed_is_not_taken_up(tmp_path, monkeypatch):
    uri, gallery = night_and_vacuum(tmp_path)
    candidate = begin(uri, gallery, LoopExecutor(uri, gallery))
    killed_at(monkeypatch, vacuum, "vacuum", lambda: clean(tmp_path))  # before any removal
    for path in tmp_path.glob("_staging/*"):
        assert path.exists()
    killed_at(monkeypatch, vacuum, "list carried out", lambda: clean(tmp_path))
    (listed,) = read_lists(uri)
    assert lists_of(tmp_path) == [State.IN_FORCE]
    assert names_in_force(uri) == set(listed.names)
    with pytest.raises(VacuumedError):
        publish(candidate)
    assert read_receipts(uri, SPEC)[0] == []
    executor, _ = one_night(uri, gallery)
    assert len(executor.embedded) == 4
    check(uri, gallery)
    clean(tmp_path)
    assert read_lists(uri) == []
    check(uri, gallery)


def test_a_listed_shard_that_is_still_there_is_refused(index, monkeypatch):
    old = open_index(str(index), 0)
    killed_at(monkeypatch, vacuum, "vacuum", lambda: clean(index))
    assert (index / old.shards[0].path).exists()
    with pytest.raises(UsageError, match="version 0 cannot be restored: a vacuum is removing"):
        restore_index(str(index), 0)
    with pytest.raises(VacuumedError, match="this new shard is being vacuumed"):
        commit_index(str(index), old.spec, old.shards, run={}, seen_version=2)
    assert open_index(str(index)).version == 2
    clean(index)
    assert not (index / old.shards[0].path).exists()


def test_a_list_without_its_commit_is_heeded_by_nobody_and_goes_with_the_next(index, monkeypatch):
    killed_at(monkeypatch, vacuum, "list written", lambda: clean(index))
    assert lists_of(index) == [State.OPEN]
    assert names_in_force(str(index)) == set()
    restored = restore_index(str(index), 0)
    assert lists_of(index) == [State.DEAD]
    vacuum_index(str(index), 30)
    assert read_lists(str(index)) == []
    assert check_index(restored).faults == []


def test_an_open_list_is_made_dead_by_a_vacuum_that_removes_nothing(index):
    write_list(str(index), 1, ["shard-" + "0" * 32 + ".parquet"])
    vacuum_index(str(index), 30)
    assert open_index(str(index)).run["repeated_version"] == 1
    assert read_lists(str(index)) == []


def test_an_open_list_is_left_to_the_vacuum_that_may_be_about_to_commit(index):
    write_list(str(index), 1, [open_index(str(index), 0).shards[0].path])
    before = {path.name for path in index.iterdir()}
    vacuum._carry_out_lists(str(index))
    assert lists_of(index) == [State.OPEN]
    assert {path.name for path in index.iterdir()} == before


def test_a_list_whose_entry_has_been_cleaned_up_is_heeded_and_dropped(tmp_path):
    old_index(tmp_path, list(range(40, 28, -1)))
    name = open_index(str(tmp_path), 10).shards[0].path
    write_list(str(tmp_path), 3, [name])
    assert lists_of(tmp_path) == [State.DEAD]
    for version in range(5):
        entry(tmp_path, version).unlink()
    assert lists_of(tmp_path) == [State.FORGOTTEN]
    assert names_in_force(str(tmp_path)) == {name}
    vacuum_index(str(tmp_path), 20, now_s=PRESENT_S)
    assert read_lists(str(tmp_path)) == []


def test_rejects_that_vanish_in_the_middle_of_a_night_are_one_line(tmp_path, monkeypatch):
    uri, gallery = str(tmp_path), gallery_of(5)
    one_night(uri, gallery)
    gallery.put("a/x", b"bad x")

    def vanish(name):
        if name == "embedded":
            for path in tmp_path.glob("_staging/*.rejects.parquet"):
                path.unlink()

    monkeypatch.setattr(update_plan, "reached", vanish)
    with pytest.raises(VacuumedError, match=r"these rejects of this run are gone: .* run it again"):
        one_night(uri, gallery)
    monkeypatch.undo()
    assert open_index(uri).version == 0
    one_night(uri, gallery)
    check(uri, gallery)


def test_all_that_is_written_says_its_version(tmp_path):
    uri, gallery = str(tmp_path), gallery_of(6)
    one_night(uri, gallery)
    gallery.put("a/new", b"new")
    killed_night(uri, gallery)
    write_record(uri, "a", {"x": 1}, pytest.fail)
    write_list(uri, 0, [])
    for pattern in ("_staging/*.json", "_runs/*.json", "_vacuum/*.json"):
        (path,) = tmp_path.glob(pattern)
        assert json.loads(path.read_bytes())["format_version"] == 1, pattern
    info = json.loads(entry(tmp_path, 0).read_text().splitlines()[0])["commitInfo"]
    assert json.loads(info["retrieval.run"])["format_version"] == 1
    assert "format_version" not in open_index(uri).run
    assert "format_version" not in read_commit(uri, 0).run


def of_release(path, version):
    """Have a JSON file, or a commit's record, be of another version; None: not say it."""
    text = path.read_text()
    number = r'(\\?"format_version\\?": )1(, )?'
    other = "" if version is None else rf"\g<1>{version}\g<2>"
    assert re.search(number, text)
    path.write_text(re.sub(number, other, text))


@pytest.mark.parametrize(("version", "num_embedded"), [(None, 0), (1, 0), (2, 1)])
def test_a_receipt_of_a_newer_release_is_none(tmp_path, version, num_embedded):
    uri, gallery = str(tmp_path), gallery_of(6)
    one_night(uri, gallery)
    gallery.put("a/new", b"new")
    killed_night(uri, gallery)
    (path,) = tmp_path.glob("_staging/*.json")
    if version is None:
        found = json.loads(path.read_bytes())
        del found["format_version"]
        path.write_text(json.dumps(found))
    else:
        of_release(path, version)
    executor, _ = one_night(uri, gallery)
    assert len(executor.embedded) == num_embedded
    check(uri, gallery)


NEWER = r": written by a newer release: format_version 2; this program reads 1\. Upgrade"


def test_an_index_of_a_newer_release_is_one_line_for_all(index):
    of_release(entry(index, 1), 2)
    for use in (
        lambda: open_index(str(index)),
        lambda: restore_index(str(index), 0),
        lambda: clean(index),
        lambda: read_commit(str(index), 1),
        lambda: one_night(str(index), gallery_of(2)),
    ):
        with pytest.raises(IndexFormatError, match=rf"^{entry(index, 1)}{NEWER}"):
            use()
    assert open_index(str(index), 0).version == 0


def test_an_index_that_does_not_say_its_version_is_of_the_first(index):
    of_release(entry(index, 1), None)
    info, *actions = map(json.loads, entry(index, 1).read_text().splitlines())
    for name in ("retrieval.entry_sha256", "retrieval.content_sha256"):  # nor does it say a hash
        del info["commitInfo"][name]
    entry(index, 1).write_text("".join(f"{json.dumps(line)}\n" for line in (info, *actions)))
    assert open_index(str(index)).run["run_id"] == "run1"
    assert check_index(open_index(str(index))).faults == []


def test_a_candidate_and_a_list_of_a_newer_release_are_one_line(index):
    from retrieval.index import save_candidate

    address = save_candidate(open_index(str(index)))
    write_list(str(index), 1, [])
    (listed,) = (index / "_vacuum").iterdir()
    for path, use in ((index / "_candidates" / "run1.json", open_index), (listed, clean)):
        of_release(path, 2)
        with pytest.raises(IndexFormatError, match=rf"^{path}{NEWER}"):
            use(address if use is open_index else index)
