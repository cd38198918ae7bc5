"""What a loss of power may leave of a folder, by the rules of POSIX.

A file's content is safe from its fsync on: before, it may be empty, cut, zeros or whole. A name
in a folder (made, changed, removed) is safe from the fsync of that folder on: before, any of
the changes may be there or not, whatever became of the others. A folder whose own name is lost
is lost with all inside it.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections import defaultdict
from pathlib import Path

from tests.retrieval.disk import watched

FOLDER = "folder"
# Links for a checkpoint, which no reader looks at.
_PASSED_OVER = "/.checkpoint."
_lstat = os.lstat


class Recorder:
    """Keeps, in order, what was done to the files of a folder.

    Events: ("names", {path: file or FOLDER or None}), ("write", file, content),
    ("sync", file) and ("sync names", folder); a file is known by a number.
    """

    def __init__(self, root):
        self.root, self.events = root, []
        self.durable = {str(path): read(path) for path in root.rglob("*")}
        self._files, self._numbers = {}, itertools.count()

    def watch(self):
        return watched(self.root, lambda *_: None, self._note)

    def _note(self, name, path, other):
        note = getattr(self, f"_note_{name}", None)
        if note is not None:
            note(path, other)

    def _note_create(self, path, _):
        self._files[_lstat(path).st_ino] = next(self._numbers)  # an inode may come again
        self._name({path: self._file(path)})

    def _note_fsync(self, path, _):
        if Path(path).is_dir():
            self.events.append(("sync names", path))
        else:
            self._note_content(path)
            self.events.append(("sync", self._file(path)))

    def _note_link(self, path, other):
        self._note_content(path)
        self._name({other: self._file(path)})

    def _note_replace(self, path, other):
        self._note_content(other)
        self._name({path: None, other: self._file(other)})

    _note_rename = _note_replace

    def _note_unlink(self, path, _):
        self._name({path: None})

    def _note_mkdir(self, path, _):
        self._name({path: FOLDER})

    def _name(self, names):
        names = {path: to for path, to in names.items() if _PASSED_OVER not in path}
        if names:
            self.events.append(("names", names))

    def _file(self, path):
        inode = _lstat(path).st_ino
        if inode not in self._files:
            self._files[inode] = next(self._numbers)
        return self._files[inode]

    def _note_content(self, path):
        """What is in a file by now, if that is not known."""
        event = ("write", self._file(path), read(Path(path)))
        if event not in self.events:
            self.events.append(event)


def read(path):
    # Not by pathlib, which is watched.
    if path.is_dir():
        return FOLDER
    with open(path, "rb") as stream:  # noqa: PTH123
        return stream.read()


def possible_states(recorder, events):
    """All that a loss of power after some events may leave: sets of (path, content)."""
    safe, open_changes = {}, []
    contents = defaultdict(lambda: [b""])
    for position, event in enumerate(events):
        kind, what = event[:2]
        if kind == "names":
            open_changes.append((position, what))
        elif kind == "write":
            contents[what] = parts_of(event[2])
        elif kind == "sync":
            contents[what] = contents[what][-1:]
        else:
            settled = [change for change in open_changes if is_in(change[1], what)]
            safe.update(settled)
            open_changes = [change for change in open_changes if change not in settled]
    for chosen in itertools.product([False, True], repeat=len(open_changes)):
        changes = safe | dict(itertools.compress(open_changes, chosen))
        names = dict(recorder.durable)
        for at in sorted(changes):
            names |= changes[at]
        yield from with_contents(recorder.root, names, contents)


def parts_of(content):
    """What may be there of a content that is not synced; all of it comes last."""
    return [b"", content[: len(content) // 2], bytes(len(content)), content[:-1], content]


def is_in(names, folder):
    """Whether a change is made safe by the fsync of a folder: that of its newest name."""
    return str(Path(list(names)[-1]).parent) == folder


def with_contents(root, names, contents):
    """Each choice of the contents that the files with these names may have."""
    there = {path: to for path, to in names.items() if to is not None}
    there = {path: to for path, to in there.items() if has_parents(root, path, there)}
    choices = [contents[to] if isinstance(to, int) else [to] for to in there.values()]
    for chosen in itertools.product(*choices):
        yield frozenset(zip(there, chosen, strict=True))


def has_parents(root, path, there):
    """Whether all folders on the way from the root to a path are there."""
    inside = Path(path).relative_to(root).parents
    return all(there.get(str(root / parent)) == FOLDER for parent in inside if parent.name)


def rebuild(state, root, to):
    """Write a state into another folder."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for path, content in sorted(state, key=lambda pair: pair[0]):
        place = to / Path(path).relative_to(root)
        if content == FOLDER:
            place.mkdir()
        else:
            place.write_bytes(content)
