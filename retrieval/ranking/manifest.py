"""The manifest of a ranking, `_ranking.json`: what it must say, and whether that fits together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from retrieval.errors import IndexFormatError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.storage import JsonObject, join, read_json
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

__all__ = ["MANIFEST", "MANIFESTS", "RANKING_FORMAT", "read_manifest"]

MANIFEST: Final = "_ranking.json"
# The newer name first: where both lie, a run that replaced a ranking was killed before it removed
# the older one, and what it has written is whole.
MANIFESTS: Final = (MANIFEST, "ranking.json")
# 1 knew a version of an index by the addresses of its shards (shards_sha256), and one rule of
# scores; 2 knows it by their names and rows (content_sha256), and names the rule (score_rule).
RANKING_FORMAT: Final = 2

_MAX_BYTES = 256 * 2**20  # some 300 bytes a block of queries
_SIDES = ("queries", "gallery")

_SPEC = {
    "fingerprint": text,
    "backbone": text,
    "weights": text,
    "dim": whole(1),
    "dtype": text,
    "normalised": flag,
}
_SIDE = {
    "uri": text,
    "version": optional(whole()),
    "num_rows": whole(),
    "num_files": whole(),
    "content_sha256": optional(text),
    "shards_sha256": optional(text),
    "dim": whole(1),
    "dtype": text,
    "id_column": optional(text),
    "vector_column": optional(text),
    "spec": optional(items(_SPEC)),
}
_FACTS = {
    "parts": texts,
    "ranking": text,
    **dict.fromkeys(_SIDES, optional(items(_SIDE))),
    "ids_sum": optional(items(dict.fromkeys(_SIDES, optional(text)))),
    "metric": text,
    "top_k": whole(1),
    "is_complete": flag,
    "exclude_self": flag,
    "num_queries": whole(),
    "num_gallery": whole(),
    "num_rows": whole(),
    "created_at": text,
    "num_resumed_parts": whole(),
    "previous": optional(text),
    "num_spared_queries": whole(),
    "plan": items({"query_rows": whole(1), "gallery_rows": whole(1)}),
    "seconds": items(dict.fromkeys(("open", "start_ray", "rank"), number)),
}
# What `rank` has written in every release, and from version 2 on. One by hand may say less: what
# it does not say is told when it is asked for.
_ALWAYS = (
    *_SIDES, "metric", "top_k", "is_complete", "exclude_self", "num_queries", "num_gallery",
    "num_rows", "created_at",
)  # fmt: skip
_ALWAYS_OF_A_SIDE = (
    "uri", "version", "num_rows", "dim", "dtype", "id_column", "vector_column", "spec",
)  # fmt: skip
_BY_RANK_ALONE = {FORMAT_VERSION, "plan", "seconds"}


def read_manifest(folder: str, names: Sequence[str] = MANIFESTS) -> tuple[JsonObject, str]:
    """What the manifest of a ranking says, checked, and the file.

    Asked for what it does not say, the object raises IndexFormatError as well.

    Args:
        folder: The ranking.
        names: What it may be called: the first that is there is read.

    Raises:
        OSError: as the file system raises it; FileNotFoundError: there is none.
        IndexFormatError: it is damaged, does not agree with itself, or a newer release wrote it.
    """
    for name in names:
        where = join(folder, name)

        def fault(what: str, where: str = where) -> IndexFormatError:
            return IndexFormatError(f"{where}: cannot be read ({what}). Rank again.")

        try:
            found = read_json(where, fault, max_bytes=_MAX_BYTES)
        except FileNotFoundError:
            if name == names[-1]:
                raise
            continue
        break
    version = check_format_version(found, RANKING_FORMAT, where, IndexFormatError)
    try:
        check_fields(found, _FACTS)
        found["parts"]
        if _BY_RANK_ALONE & found.keys():
            _check_whole(found, version)
    except ValueError as error:
        raise fault(str(error)) from error
    return found, where


def _check_whole(found: JsonObject, version: int) -> None:
    """Whether a manifest says all that `rank` writes, and its numbers belong together."""
    for name in _ALWAYS:
        found[name]
    for name in _SIDES:
        _check_side(name, found[name])
    if version > 1:
        found["score_rule"], found["ids_sum"]
    if said := next(_contradictions(found), None):
        raise ValueError(said)


def _check_side(name: str, side: JsonObject | None) -> None:
    if side is None:
        raise ValueError(f"{name} is null")
    for key in _ALWAYS_OF_A_SIDE:
        side[key]
    digest = side["shards_sha256" if "shards_sha256" in side else "content_sha256"]
    if len({value is None for value in (side["version"], digest, side["spec"])}) > 1:
        # Other tools' files have none of the three.
        raise ValueError(f"{name} has some of version, hash and spec, and not all")
    for key in _SPEC if side["spec"] is not None else ():
        side["spec"][key]


def _contradictions(found: Mapping[str, Any]) -> Iterator[str]:
    queries, gallery, rows, k = (
        found[name] for name in ("num_queries", "num_gallery", "num_rows", "top_k")
    )
    for name, number_of, side in zip(
        ("num_queries", "num_gallery"), (queries, gallery), _SIDES, strict=True
    ):
        if number_of != (held := found[side]["num_rows"]):
            yield f"{name} is {number_of}, but {side} has {held} rows"
    if k > gallery or found["is_complete"] != (k == gallery):
        yield f"top_k is {k} of {gallery} images, and is_complete {found['is_complete']}"
    least = queries * k
    if found["exclude_self"]:  # of other tools' files, a query's own id may be there many times
        least = queries * (k - found["is_complete"]) if found["gallery"]["spec"] else 0
    if not least <= rows <= queries * k:
        yield f"num_rows is {rows}, but {queries} queries list {k} images each"
