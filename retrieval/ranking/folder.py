"""Where a ranking may lie, which files in its folder are its own, and what may be removed."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from retrieval.errors import IndexFormatError, StorageError
from retrieval.index.history import split_version
from retrieval.ranking.manifest import MANIFESTS, read_manifest
from retrieval.storage import (
    absolute_uri,
    check_apart,
    entries,
    entry_at,
    expand,
    file_exists,
    is_local,
    is_same_place,
    join,
    remove_written,
    written_as,
)

__all__ = [
    "PART",
    "check_places",
    "check_ranking_place",
    "is_ranking",
    "own_files",
    "remove_ranking",
]

# Parts as write_part names them: other tools' part-00000-….parquet must never be removed.
PART = re.compile(r"part-\d{5,}-[0-9a-f]{12}\.parquet")


def check_ranking_place(uri: str) -> None:
    """Refuse a folder that a ranking would be mixed up with; hidden files of others stay there.

    Raises:
        StorageError: it holds something that is no part of a ranking, or a link, or is a file.
    """
    uri = absolute_uri(uri)
    advice = "Choose a new folder, or one that holds a ranking to replace."
    entry = entry_at(uri)
    if entry and entry.kind in ("file", "other"):
        raise StorageError(f"{uri}: is a file. {advice}")
    for entry in entries(uri):
        is_hidden = any(name.startswith((".", "_")) for name in entry.path.split("/"))
        is_hidden &= not _is_own(entry.path)
        is_fit = {"file": _is_own(entry.path), "folder": not _is_own(entry.path)}
        if not (is_hidden or is_fit.get(entry.kind, False)):
            raise StorageError(
                f"{uri}: holds {entry.path}, which is no part of a ranking. {advice}"
            )
    if name := _foreign_manifest(uri):
        raise StorageError(f"{uri}: holds {name}, which is no part of a ranking. {advice}")


def _foreign_manifest(uri: str) -> str | None:
    """A file with a manifest's name that is none by its content, or if damaged by the parts."""
    has_parts = any(PART.fullmatch(name) for name in own_files(uri))
    for name in MANIFESTS:
        try:
            read_manifest(uri, (name,))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, IndexFormatError):
            if not has_parts:
                return name
        has_parts = False  # they are those of the newer manifest
    return None


def own_files(uri: str) -> list[str]:
    """The files of a ranking, and what a killed run has left of some."""
    files = (entry.path for entry in entries(uri) if entry.kind == "file")
    return [name for name in files if _is_own(written_as(name))]


def _is_own(name: str) -> bool:
    return name in MANIFESTS or PART.fullmatch(name) is not None


def remove_ranking(uri: str) -> None:
    """Remove the files of a ranking, its manifest first; what else lies there stays.

    Raises:
        StorageError: a file cannot be removed.
    """
    uri = absolute_uri(uri)
    names = own_files(uri)
    remove_written(uri, reversed(MANIFESTS))  # never the older one alone, if both lie there
    remove_written(uri, names)


def is_ranking(uri: str) -> bool:
    """Whether a finished ranking is there; StorageError if the store does not say."""
    return any(file_exists(join(absolute_uri(uri), name)) for name in MANIFESTS)


def check_places(queries: str, gallery: str, ranking: str, previous: str | None = None) -> None:
    """Refuse a ranking inside the vectors that it is made of, and vectors inside the ranking.

    It may replace the previous ranking, in its own folder.

    Raises:
        UsageError: two of them do not lie apart.
        StorageError: a glob matches no file.
    """
    for name, side in (("the queries", queries), ("the gallery", gallery)):
        for uri in _places_of(side):
            check_apart({name: uri}, {"the ranking": ranking})
    if previous is not None and not is_same_place(previous, ranking):
        check_apart({"the previous ranking": previous}, {"the ranking": ranking})


def _places_of(side: str) -> list[str]:
    """What is read; of a glob one file in each folder, beside which other files may be written."""
    if is_local(side) and glob.has_magic(side) and not Path(absolute_uri(side)).exists():
        return list({str(Path(file).parent): file for file in expand(side)}.values())
    return [split_version(side)[0]]
