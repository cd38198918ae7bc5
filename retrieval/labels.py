"""Labels: which building a photo shows, from its folder, its name or a file.

A photo without a label stays in the gallery: there it is a distractor, and as a query it
is ranked but not scored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.storage import absolute_uri, first_line, parquet_table, read_buffer

__all__ = ["assign_labels", "check_labels", "is_label_file", "labeller"]

_PATTERN = "pattern:"


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
    return lambda image_id: table.get(image_id) or None  # an empty cell is no label


def check_labels(rule: str, num_unlabelled: int, num_photos: int, example: str) -> None:
    """Refuse a pattern or a file that labels no photo; folders may be missing on purpose."""
    if num_unlabelled == num_photos and rule not in ("none", "folder"):
        raise UsageError(
            f"--labels {rule}: gives a label to none of the {num_photos} photos, such as "
            f"{example!r}. Mend the rule, or use --labels none."
        )


def _folder(image_id: str) -> str | None:
    folder, slash, _ = image_id.partition("/")
    return (folder or None) if slash else None  # a key of a store may begin with a slash


def _by_pattern(expression: str) -> Callable[[str], str | None]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UsageError(
            f"--labels pattern:{expression}: no valid regular expression ({error})."
        ) from error
    if not pattern.groups:
        raise UsageError(
            f"--labels pattern:{expression}: has no group. Put the label into brackets, "
            f"as in pattern:class_([0-9]+)_"
        )
    group = "label" if "label" in pattern.groupindex else 1

    def find(image_id: str) -> str | None:
        match = pattern.search(image_id.rpartition("/")[2])
        return match[group] or None if match else None  # an empty match is no label

    return find


def _read_table(rule: str) -> dict[str, str]:
    """image_id → label of a CSV or Parquet file; the content tells which of the two it is."""
    try:
        data = read_buffer(absolute_uri(rule))
    except OSError as error:
        raise StorageError(
            f"--labels {rule}: cannot be read ({first_line(error)}). "
            f"Use folder, none, pattern:REGEX or the name of a CSV or Parquet file."
        ) from error
    try:
        table = _parse_table(data)
        if not {"image_id", "label"} <= set(table.column_names):
            names = ", ".join(map(repr, table.column_names))
            raise IndexFormatError(
                f"--labels {rule}: has the columns {names}; 'image_id' and 'label' are needed. "
                f"In a CSV file, separate columns by commas."
            )
        columns = [table.column(name).cast(pa.string()) for name in ("image_id", "label")]
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise IndexFormatError(
            f"--labels {rule}: cannot be read as CSV or Parquet ({first_line(error)}). "
            f"Write it again, as UTF-8, with one row a photo."
        ) from error
    ids, labels = (column.to_pylist() for column in columns)
    (commonest, count), *_ = Counter(ids).most_common(1) or [("", 0)]
    if count > 1:
        raise IndexFormatError(
            f"--labels {rule}: {commonest!r} has {count} rows; one row a photo is needed."
        )
    return dict(zip(ids, labels, strict=True))


def _parse_table(data: pa.Buffer) -> pa.Table:
    source = pa.BufferReader(data)
    if data[:4].to_pybytes() == b"PAR1":
        return parquet_table(source)
    # As text: "007" is a label, not the number 7.
    as_text = pacsv.ConvertOptions(column_types={"image_id": pa.string(), "label": pa.string()})
    return pacsv.read_csv(source, convert_options=as_text)
