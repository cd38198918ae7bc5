"""The images of one side of a ranking: ids, labels and addresses, as they were ranked."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from retrieval.errors import IndexFormatError
from retrieval.gallery.labels import as_labels
from retrieval.index import open_index
from retrieval.index.reading import read_columns
from retrieval.index.table import newest_version
from retrieval.ranking.files import Ranking
from retrieval.ranking.sides import ids_sum, misfit, open_ranked
from retrieval.storage import (
    check_inflation,
    first_line,
    is_no_answer,
    not_read,
    open_input,
    parquet_file,
)
from retrieval.storage.text_columns import as_text
from retrieval.vectors import VectorSource
from retrieval.vectors.ids import id_text

__all__ = ["read_photos"]

_PHOTOS = pa.schema([(name, pa.string()) for name in ("image_id", "label", "uri")])


def read_photos(uri: str, ranking: Ranking, side: str) -> pa.Table:
    """Ids, labels and addresses of the photos of one side of a ranking.

    Args:
        uri: An index, by any spelling of its place, or other tools' Parquet. Of an index the
            version that was ranked is read; INDEX@12 must be that one.
        ranking: The ranking.
        side: "queries" or "gallery".

    Returns:
        Columns image_id, label and uri, all string; label and uri null where unknown.

    Raises:
        MismatchError: what is there is not what was ranked.
        StorageError, IndexFormatError: nothing is there, or it cannot be read.
    """
    source = open_ranked(uri, ranking, side)
    ranked = ranking.facts.get(side) or {}
    if ranked.get("num_rows") not in (None, source.num_rows):
        raise misfit(ranking, side, f"{uri} holds {source.num_rows} rows")
    photos = _read_index(source) if source.spec else _read_files(source)
    # An index of an earlier release may hold "" where a photo has no label.
    photos = photos.set_column(1, "label", as_labels(photos["label"]))
    known = (ranking.facts.get("ids_sum") or {}).get(side)
    if known is not None and known != ids_sum(_as_text(photos["image_id"], uri)):
        raise misfit(ranking, side, f"{uri} holds as many rows of other ids")
    return photos


def _as_text(ids: pa.ChunkedArray, where: str) -> Iterator[pa.Array]:
    return (id_text(chunk, where, 0) for chunk in ids.chunks)


def _read_index(source: VectorSource) -> pa.Table:
    index = open_index(source.uri, source.version)
    try:
        return read_columns(index, ["image_id", "label", "uri"])
    except IndexFormatError as error:
        if index.version == newest_version(index.uri):
            raise
        raise IndexFormatError(
            f"{index.uri}: version {index.version}, which was ranked, can no longer be read, as "
            f"after a vacuum. Rank again."
        ) from error


def _read_files(source: VectorSource) -> pa.Table:
    names = [file.ids_uri or file.uri for file in source.files]
    return pa.concat_tables([_read_foreign(name, source.id_column) for name in names])


def _read_foreign(uri: str, id_column: str) -> pa.Table:
    try:
        with open_input(uri) as stream, parquet_file(stream) as file:
            if not file.metadata.num_rows:  # whatever the types of its columns
                return _PHOTOS.empty_table()
            names = file.schema_arrow.names
            there = [name for name in ("label", "uri") if name in names]
            check_inflation(file, [id_column, *there], stream.size())
            table = file.read(columns=[id_column, *there])
        nothing = pa.nulls(table.num_rows, pa.string())
        return pa.table(
            [
                as_text(table[id_column]).cast(pa.string()),
                as_labels(table["label"]) if "label" in there else nothing,
                as_text(table["uri"]).cast(pa.string()) if "uri" in there else nothing,
            ],
            schema=_PHOTOS,
        )
    except (OSError, pa.ArrowException, KeyError) as error:
        if is_no_answer(error):
            raise not_read(uri, error) from error
        raise IndexFormatError(
            f"{uri}: its ids and labels cannot be read as text ({first_line(error)})."
        ) from error
