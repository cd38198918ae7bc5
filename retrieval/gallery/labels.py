"""Labels: which building a photo shows, from its folder, its name or a file.

A photo without a label stays in the gallery: there it is a distractor, and as a query it
is ranked but not scored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.storage import absolute_uri, check_inflation, first_line, parquet_file, read_buffer
from retrieval.storage.text_columns import as_text

__all__ = ["as_labels", "assign_labels", "check_labels", "is_label_file", "labeller"]

_PATTERN = "pattern:"
_COLUMNS = ["image_id", "label"]
# Of the CSV that is parsed at a time; no row may be longer.
_CSV_BYTES = 2**26
_BATCH_ROWS = 2**16


def as_labels(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Labels as text, of whatever type a table has them.

    Args:
        column: Text, numbers, truth values, times, UUIDs, or a dictionary of these.

    Returns:
        string; null where there is no label: where a cell is null, NaN or empty. Text such as
        "nan", "NA" or a space is a label.

    Raises:
        pa.ArrowException: it is of another type, such as lists.

    Example:
        >>> as_labels(pa.array([7.0, float("nan"), None])).to_pylist()
        ['7', None, None]
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([_labels_of(chunk) for chunk in chunks], pa.string())


def _labels_of(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return _labels_of(column.dictionary).take(column.indices)
    if pa.types.is_floating(column.type):
        # Other tools have no other way to say that a number is missing.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    text = as_text(column).cast(pa.string())
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def assign_labels(image_ids: Sequence[str], rule: str) -> pa.Array:
    r"""Give each photo its label.

    Args:
        image_ids: Ids of the catalogue, relative paths with "/".
        rule: "folder": the first folder of the id ("12/a/b.jpg" has label "12"; a photo
            outside any folder has none). "none": no labels. "pattern:REGEX": the group
            called `label`, or else the first group, of the expression searched for in the
            file's name (not its folders). Anything else: a CSV or Parquet file with the
            columns `image_id` and `label`.

    Returns:
        string (N,), null where the rule gives no label.

    Raises:
        UsageError: the expression is invalid, has no group, or the rule labels no photo.
        StorageError, IndexFormatError: the file is missing or lacks the columns.

    Example:
        >>> assign_labels(["a/1.jpg", "b/c/2.jpg", "3.jpg"], "folder").to_pylist()
        ['a', 'b', None]
        >>> assign_labels(["x/class_7_no_1.jpg"], r"pattern:class_(\d+)").to_pylist()
        ['7']
    """
    labels = pa.array(map(labeller(rule), image_ids), pa.string())
    if image_ids:
        check_labels(rule, labels.null_count, len(image_ids), image_ids[0])
    return labels


def is_label_file(rule: str) -> bool:
    """Whether a rule names a file."""
    return rule not in ("none", "folder") and not rule.startswith(_PATTERN)


def labeller(rule: str) -> Callable[[str], str | None]:
    """The rule as a function of one image id; arguments and errors as of `assign_labels`."""
    if rule == "none":
        return lambda image_id: None
    if rule == "folder":
        return _folder
    if rule.startswith(_PATTERN):
        return _by_pattern(rule.removeprefix(_PATTERN))
    table = _read_table(rule)
    return table.get


def check_labels(rule: str, num_unlabelled: int, num_photos: int, example: str) -> None:
    """Refuse a pattern or a file that labels no photo; folders may be missing on purpose."""
    if num_unlabelled == num_photos and rule not in ("none", "folder"):
        raise UsageError(
            f"`labels` {rule}: gives a label to none of the {num_photos} photos, such as "
            f"{example!r}. Mend the rule, or use `labels` none."
        )


def _folder(image_id: str) -> str | None:
    folder, slash, _ = image_id.partition("/")
    return (folder or None) if slash else None  # a key of a store may begin with a slash


def _by_pattern(expression: str) -> Callable[[str], str | None]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UsageError(
            f"`labels` pattern:{expression}: no valid regular expression ({error})."
        ) from error
    if not pattern.groups:
        raise UsageError(
            f"`labels` pattern:{expression}: has no group. Put the label into brackets, "
            f"as in pattern:class_([0-9]+)_"
        )
    group = "label" if "label" in pattern.groupindex else 1

    def find(image_id: str) -> str | None:
        match = pattern.search(image_id.rpartition("/")[2])
        return match[group] or None if match else None  # an empty match is no label

    return find


def _read_table(rule: str) -> dict[str | None, str | None]:
    """image_id → label of a CSV or Parquet file; the content tells which of the two it is."""
    try:
        data = read_buffer(absolute_uri(rule))
    except OSError as error:
        raise StorageError(
            f"`labels` {rule}: cannot be read ({first_line(error)}). "
            f"Use folder, none, pattern:REGEX or the name of a CSV or Parquet file."
        ) from error
    labels: dict[str | None, str | None] = {}
    repeats: Counter[str | None] = Counter()
    try:
        for batch in _batches(data, rule):
            ids, names = _texts(batch["image_id"], as_text), _texts(batch["label"], _labels_of)
            for image_id, name in zip(ids, names, strict=True):
                if image_id in labels:
                    repeats[image_id] += 1
                labels[image_id] = name
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise IndexFormatError(
            f"`labels` {rule}: cannot be read as CSV or Parquet ({first_line(error)}). "
            f"Write it again, as UTF-8, with one row a photo."
        ) from error
    if repeats:
        count = max(repeats.values())
        commonest = next(image_id for image_id in labels if repeats[image_id] == count)
        raise IndexFormatError(
            f"`labels` {rule}: {commonest!r} has {count + 1} rows; one row a photo is needed."
        )
    return labels


def _batches(data: pa.Buffer, rule: str) -> Iterator[pa.RecordBatch]:
    """The two columns, some rows at a time."""
    source = pa.BufferReader(data)
    if data[:4].to_pybytes() == b"PAR1":
        with parquet_file(source) as file:
            _check_columns(file.schema_arrow.names, rule)
            check_inflation(file, _COLUMNS, data.size)
            kinds = {name: file.schema_arrow.field(name).type for name in _COLUMNS}
        # A text that stands in many rows is held once, so that it takes no more than in the file.
        text = (pa.string(), pa.large_string())
        repeated = [name for name, kind in kinds.items() if kind in text]
        with parquet_file(source, read_dictionary=repeated) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=_COLUMNS)
        return
    with _csv(data) as head:
        _check_columns(head.schema.names, rule)
    with _csv(data, _COLUMNS) as reader:
        yield from reader


def _texts(column: pa.Array, read: Callable[[pa.Array], pa.Array]) -> list[str | None]:
    """A column as a list; of a dictionary each text once, however often it is repeated."""
    if not pa.types.is_dictionary(column.type):
        return list(read(column).to_pylist())
    texts = [*read(column.dictionary).to_pylist(), None]
    codes = pc.fill_null(column.indices.cast(pa.int64()), len(texts) - 1)
    return [texts[code] for code in codes.to_pylist()]


def _csv(data: pa.Buffer, columns: Sequence[str] = ()) -> pacsv.CSVStreamingReader:
    """A CSV file, some rows at a time; columns as text: "007" is a label, not the number 7."""
    return pacsv.open_csv(
        pa.BufferReader(data),
        # A block ends within a row, which has to end in the next: cells may be long.
        pacsv.ReadOptions(block_size=max(1, min(data.size, _CSV_BYTES))),
        pacsv.ParseOptions(newlines_in_values=True),
        pacsv.ConvertOptions(
            column_types=dict.fromkeys(_COLUMNS, pa.string()), include_columns=columns
        ),
    )


def _check_columns(names: Sequence[str], rule: str) -> None:
    if not set(_COLUMNS) <= set(names):
        raise IndexFormatError(
            f"`labels` {rule}: has the columns {', '.join(map(repr, names))}; 'image_id' and "
            f"'label' are needed. In a CSV file, separate columns by commas."
        )
    for name in _COLUMNS:
        if (count := names.count(name)) > 1:
            raise KeyError(f'Field "{name}" exists {count} times in schema')
