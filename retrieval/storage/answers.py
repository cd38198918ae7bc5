"""Whether a disk or a store has not answered, or whether the bytes that it gave are wrong.

pyarrow raises OSError for both. What a disk refuses has a number; what a store refuses names its
service; all else is what a reader says of the bytes.
"""

from __future__ import annotations

import errno
import os
import re

from retrieval.errors import StorageError
from retrieval.storage.clients import first_line

__all__ = ["is_no_answer", "not_read"]

# As the clients of stores call what they did not get: of AWS, Google, Azure, Hadoop; deltalake's.
_NO_ANSWER = re.compile(
    r"AWS Error|google::cloud::Status|Azure|HDFS|curlCode|after \d+ retries|response body"
    r"|before message (length|completed)|error sending request|Generic (S3|GCS|MicrosoftAzure)"
)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as Rust tells it
# The disk has nothing there, or has lost it: what is needed must be made again.
_LOST = (errno.ENOENT, errno.EIO, errno.ENOTDIR)
# No file by this name can be read, whoever tries.
_OTHER = (errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
_REFUSED = (errno.EACCES, errno.EPERM)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_FORBIDDEN = re.compile(r"ACCESS_DENIED|HTTP status 40[13]|PERMISSION_DENIED|Forbidden")


def is_no_answer(error: BaseException) -> bool:
    """Whether an error tells nothing about the bytes: trying again, or a right, may mend it.

    Not where a file is gone, or its disk has lost it.
    """
    number = _number(error)
    if number:
        return number not in (*_LOST, *_OTHER)
    return isinstance(error, Exception) and bool(_NO_ANSWER.search(str(error)))


def not_read(uri: str, error: BaseException) -> StorageError:
    """The error for a file that was not read, with what may mend that."""
    number, text = _number(error), str(error)
    if number in _REFUSED or _FORBIDDEN.search(text):
        advice = "Allow reading it, and run it again."
    elif number in _TOO_MANY:
        advice = "Too many files are open: raise the limit (ulimit -n), and run it again."
    elif number == errno.ENOSPC:
        advice = "Make room on the disk, and run it again."
    elif number in _LOST:
        advice = "Check the disk."
    else:
        advice = "Nothing is known to be damaged: check the disk or the store, and run it again."
    why = os.strerror(number) if number else first_line(error)
    return StorageError(f"{uri}: cannot be read ({why}). {advice}")


def _number(error: BaseException) -> int | None:
    """The number that the operating system gives the error; None of a store."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None
