"""A night on a disk of which one file operation fails, whichever: old version, new one, no other.

Beyond tests/retrieval/test_index_faults.py, which is about the commit: here the receipts, the
shards that are written anew, the rejects and the tidying up fail as well.
"""

from __future__ import annotations

import shutil

import pytest

from retrieval.errors import RetrievalError
from retrieval.index import open_index
from tests.retrieval.disk import Faults, watched
from tests.retrieval.nights import Gallery, check, one_night, rows_of


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory):
    """An index, its gallery, and the gallery of a day on which a little happened."""
    gallery = Gallery()
    for number in range(9):
        gallery.put(f"{number % 2}/{number}", b"photo %d" % number)
    gallery.put("0/broken", b"bad")
    uri = tmp_path_factory.mktemp("yesterday") / "index"
    one_night(str(uri), gallery)
    new = Gallery(dict(gallery.photos), gallery.now_us)
    new.put("0/new", b"something new")
    new.put("1/bad", b"bad too")
    del new.photos["1/3"]
    new.move("0/4", "1/four")
    return uri, gallery, new


def num_operations(yesterday, folder):
    faults = Faults()
    uri = shutil.copytree(yesterday[0], folder)
    with watched(uri, faults):
        one_night(str(uri), Gallery(dict(yesterday[2].photos), yesterday[2].now_us))
    return faults.num_operations


@pytest.mark.parametrize(
    ("stays_broken", "step"),
    [
        pytest.param(False, 4, id="every fourth, once"),
        pytest.param(False, 1, id="once", marks=pytest.mark.soak),
        pytest.param(True, 1, id="from then on", marks=pytest.mark.soak),
    ],
)
def test_whichever_file_operation_fails_nothing_is_lost(
    tmp_path, yesterday, stays_broken, step, capsys
):
    before, old, new = yesterday
    num = num_operations(yesterday, tmp_path / "counted")
    assert num > 60
    outcomes = {"committed": 0, "failed": 0, "failed, yet committed": 0}
    for number in range(1, num + 1, step):
        uri = str(shutil.copytree(before, tmp_path / f"{number}"))
        gallery = Gallery(dict(new.photos), new.now_us)
        failed = False
        try:
            with watched(uri, Faults(number, stays_broken=stays_broken)):
                one_night(uri, gallery)
        except (RetrievalError, OSError):
            failed = True
        version = open_index(uri).version
        outcomes[
            "committed" if not failed else "failed, yet committed" if version else "failed"
        ] += 1
        check(uri, gallery if version else old)
        rows = rows_of(uri, 0)
        one_night(uri, gallery)
        check(uri, gallery)
        assert rows_of(uri, 0) == rows
        executor, candidate = one_night(uri, gallery)
        assert (executor.embedded, candidate.is_unchanged) == ([], True)
        shutil.rmtree(uri)
    # What fails after the commit is tidying up; the next night does it.
    assert outcomes["failed"] > 40 / step
    with capsys.disabled():
        print(f"\n{num} operations, one in {step} made to fail: {outcomes}")  # noqa: T201
