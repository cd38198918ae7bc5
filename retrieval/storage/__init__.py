"""Local paths and object-store addresses behind one small set of operations.

A location travels between processes as its URI, a plain string: an absolute local path, or
an address such as s3://bucket/key that `pyarrow.fs` understands. Credentials come from the
standard chain of the store (environment, profile, instance role) and never through here.

A file is written whole: on a local disk to a temporary name, synced and renamed; on an
object store by one upload, which is atomic there. So a reader never sees half a file.
"""

from retrieval.storage.addresses import absolute_uri, as_utf8, is_local, join, join_inside
from retrieval.storage.clients import delta_options, first_line, open_store
from retrieval.storage.files import (
    DAMAGED_PARQUET,
    check_writable,
    file_exists,
    file_stamp,
    open_input,
    read_buffer,
    read_bytes,
    remove_file,
    remove_folder,
    unfinished_files,
    write_bytes,
)
from retrieval.storage.listing import expand, leads_out, list_files, walk
from retrieval.storage.removal import remove_written

__all__ = [
    "DAMAGED_PARQUET",
    "absolute_uri",
    "as_utf8",
    "check_writable",
    "delta_options",
    "expand",
    "file_exists",
    "file_stamp",
    "first_line",
    "is_local",
    "join",
    "join_inside",
    "leads_out",
    "list_files",
    "open_input",
    "open_store",
    "read_buffer",
    "read_bytes",
    "remove_file",
    "remove_folder",
    "remove_written",
    "unfinished_files",
    "walk",
    "write_bytes",
]
