"""Local paths and object-store addresses behind one small set of operations.

A location travels between processes as its URI, a plain string: an absolute local path, or
an address such as s3://bucket/key that `pyarrow.fs` understands. Credentials come from the
standard chain of the store (environment, profile, instance role) and never through here.

A file is written whole: on a local disk to a temporary name, synced and renamed; on an
object store by one upload, which is atomic there. So a reader never sees half a file.
"""

from retrieval.storage.addresses import (
    absolute_uri,
    as_utf8,
    check_utf8,
    is_local,
    is_utf8,
    join,
    join_inside,
)
from retrieval.storage.answers import is_no_answer, not_read
from retrieval.storage.clients import check_store_answers, delta_options, first_line, open_store
from retrieval.storage.files import (
    DAMAGED_PARQUET,
    FileTooLargeError,
    file_exists,
    file_stamp,
    open_input,
    read_bounded,
    read_buffer,
    read_bytes,
    remove_file,
)
from retrieval.storage.json_files import LISTING_BYTES, JsonObject, parse_json, read_json
from retrieval.storage.listing import (
    LITTER,
    Entry,
    entries,
    entry_at,
    expand,
    first_stranger,
    is_litter,
    leads_out,
    list_files,
    walk,
)
from retrieval.storage.parquet import check_inflation, parquet_file, parquet_table
from retrieval.storage.places import check_apart, contents_at, is_same_place, none_there
from retrieval.storage.removal import is_path_below, remove_written
from retrieval.storage.writing import (
    check_writable,
    sync_folder,
    unfinished_files,
    write_bytes,
    written_as,
)

__all__ = [
    "DAMAGED_PARQUET",
    "LISTING_BYTES",
    "LITTER",
    "Entry",
    "FileTooLargeError",
    "JsonObject",
    "absolute_uri",
    "as_utf8",
    "check_apart",
    "check_inflation",
    "check_store_answers",
    "check_utf8",
    "check_writable",
    "contents_at",
    "delta_options",
    "entries",
    "entry_at",
    "expand",
    "file_exists",
    "file_stamp",
    "first_line",
    "first_stranger",
    "is_litter",
    "is_local",
    "is_no_answer",
    "is_path_below",
    "is_same_place",
    "is_utf8",
    "join",
    "join_inside",
    "leads_out",
    "list_files",
    "none_there",
    "not_read",
    "open_input",
    "open_store",
    "parquet_file",
    "parquet_table",
    "parse_json",
    "read_bounded",
    "read_buffer",
    "read_bytes",
    "read_json",
    "remove_file",
    "remove_written",
    "sync_folder",
    "unfinished_files",
    "walk",
    "write_bytes",
    "written_as",
]
