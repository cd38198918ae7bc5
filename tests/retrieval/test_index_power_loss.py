"""A loss of power at any moment of a commit leaves the old version or the new, whole.

Once the commit has returned it leaves the new one. Each state that POSIX allows is made and
opened.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from retrieval.errors import RetrievalError
from tests.retrieval.commits import make_versions, night, state_of
from tests.retrieval.power_loss import Recorder, possible_states, rebuild

# Number of versions before, and the ids that a run leads to: it adds, and from 1 on it removes.
RUNS = {"first": (0, ["a", "b"]), "change": (1, ["a", "b", "new"]), "tenth": (9, ["a", "new"])}


@pytest.fixture(params=RUNS)
def recorded(request, tmp_path):
    """What a run did to the disk; the state before and after; the ids."""
    num_versions, ids = RUNS[request.param]
    root = tmp_path / "disk"
    root.mkdir()
    uri = root / "index"
    if num_versions:
        make_versions(uri, num_versions)
    old, recorder = state_of(uri), Recorder(root)
    with recorder.watch():
        night(uri, ids)
    return recorder, old, (num_versions, ids), ids


def states_of(recorder, events):
    """Every state that a loss of power can leave → whether the run had returned by then."""
    states = {}
    for num_events in range(len(events) + 1):
        for state in possible_states(recorder, events[:num_events]):
            states[state] = False
    for state in possible_states(recorder, events):
        states[state] = True
    return states


def found_in(state, recorder, to):
    """What an index holds after a loss of power; the error if it cannot be read."""
    rebuild(state, recorder.root, to)
    try:
        return state_of(to / "index")
    except RetrievalError as error:
        return str(error)


def test_every_loss_of_power_leaves_the_old_version_or_the_new(recorded, tmp_path):
    recorder, old, new, ids = recorded
    states = states_of(recorder, recorder.events)
    assert len(states) > 12  # few, since little is ever left unsynced
    assert sum(states.values()) >= 1
    found_ones = set()
    for state, has_returned in states.items():
        found = found_in(state, recorder, tmp_path / "rebuilt")
        found_ones.add(str(found))
        assert found == new or (found == old and not has_returned)
        night(tmp_path / "rebuilt" / "index", ids)
        assert state_of(tmp_path / "rebuilt" / "index") == new
    assert found_ones == {str(old), str(new)}


@pytest.mark.parametrize(
    "is_forgotten",
    [
        lambda event: event[0] == "sync",
        lambda event: event[0] == "sync names" and event[1].endswith("_delta_log"),
        lambda event: event[0] == "sync names" and event[1].endswith("index"),
    ],
    ids=["files", "log", "folder"],
)
def test_without_any_of_its_syncs_a_commit_could_be_lost_or_torn(recorded, tmp_path, is_forgotten):
    recorder, old, new, _ = recorded
    events = [event for event in recorder.events if not is_forgotten(event)]
    assert len(events) < len(recorder.events)
    assert any(
        found != new and (has_returned or found != old)
        for state, has_returned in states_of(recorder, events).items()
        for found in [found_in(state, recorder, tmp_path / "rebuilt")]
    )


def test_the_kernel_is_told_to_sync_before_the_entry_gets_its_name(tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace, uri = tmp_path / "trace", tmp_path / "index"
    calls = "trace=fsync,fdatasync,link,linkat,rename,renameat,renameat2"
    script = f"from tests.retrieval.commits import night; night({str(uri)!r}, ['a', 'b'])"
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", calls, sys.executable, "-c", script]
    traced = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if traced.returncode and "ptrace" in traced.stderr:
        pytest.skip(f"strace is not allowed: {traced.stderr.splitlines()[0]}")
    assert traced.returncode == 0
    done = [step for line in whole_calls(trace.read_text()) if (step := step_of(line, uri))]
    entry, folder = f"_delta_log/{0:020d}.json", "."
    shards = [to for verb, _, to in done if verb == "rename" and "shard-" in to]
    assert len(shards) == 2
    linked = next(at for at, step in enumerate(done) if step[0] == "link" and step[2] == entry)
    before, after = done[:linked], done[linked + 1 :]
    assert ("sync", done[linked][1], None) in before
    for shard in shards:
        renamed = next(step for step in before if step[2] == shard)
        synced = before.index(("sync", renamed[1], None))
        assert synced < before.index(renamed) < last_of(before, ("sync", folder, None))
    assert ("sync", "_delta_log", None) in after
    assert ("sync", "..", None) in before  # in which the index's own name was made


def whole_calls(trace):
    """Lines of strace, where a call that another thread's came between is one line, at its end."""
    begun = {}
    for line in trace.splitlines():
        process, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[process] = call.removesuffix("<unfinished ...>")
        elif found := re.match(r"\s*<\.\.\. \w+ resumed>(.*)", call):
            yield f"{process} {begun.pop(process, '')}{found[1]}"
        else:
            yield line


def test_a_call_that_was_interrupted_counts_as_one():
    trace = "7 fsync(3</a> <unfinished ...>\n8 link(1) = 0\n7 <... fsync resumed>) = 0\n"
    assert list(whole_calls(trace)) == ["8 link(1) = 0", "7 fsync(3</a> ) = 0"]


def step_of(line, uri):
    """(verb, path, new path) of a successful call on something in the index's folder."""
    if not line.endswith("= 0"):
        return None
    if found := re.search(r"f(?:data)?sync\(\d+<(.*)> ?\)", line):
        verb, paths = "sync", [found[1]]
    elif found := re.search(r"(link|rename)(?:at2?)?\(.*?\"(.*?)\", .*?\"(.*?)\"", line):
        verb, paths = found[1], [found[2], found[3]]
    else:
        return None
    if not any(path.startswith(str(uri)) for path in paths) and paths != [str(uri.parent)]:
        return None
    inside = [".." if path == str(uri.parent) else path.removeprefix(f"{uri}/") for path in paths]
    inside = ["." if path == str(uri) else path for path in inside]
    return verb, inside[0], inside[1] if len(inside) == 2 else None


def last_of(steps, step):
    return len(steps) - 1 - steps[::-1].index(step)
