"""Locations as text: absolute, joined, in UTF-8, and without credentials."""

from __future__ import annotations

from pathlib import Path

from retrieval.errors import UsageError
from retrieval.secrets import holds_secret, scheme_of

__all__ = [
    "absolute_uri",
    "as_utf8",
    "check_no_secret",
    "check_utf8",
    "is_local",
    "is_utf8",
    "join",
    "join_inside",
]


def is_local(uri: str) -> bool:
    """Whether a URI is a path on this machine (no scheme, or file://)."""
    return "://" not in uri or uri.startswith("file://")


def absolute_uri(uri: str) -> str:
    """The form in which a location is stored and handed to workers.

    Args:
        uri: A local path (relative ones and ~ allowed), a file:// address or
            an object-store address.

    Returns:
        An absolute local path without trailing slash, or the address without one.

    Raises:
        UsageError: it is empty, names no bucket, holds credentials, or is not UTF-8, which
            neither a table nor a report can hold; a name of the current folder may be what is not.
    """
    if not uri.strip():
        raise UsageError("An empty path was given; a folder, file or s3:// address is needed.")
    check_no_secret(uri)  # also of what looks local: s3:/KEY:SECRET@bucket
    if not is_local(uri):
        check_utf8(uri)
        if not uri.partition("://")[2].partition("/")[0]:
            raise UsageError(f"{uri}: names no bucket; scheme://bucket/key is needed.")
        return uri.rstrip("/")
    local = uri.removeprefix("file://")
    path = str(Path(local).expanduser().absolute())
    check_utf8(path)
    return path


def is_utf8(text: str) -> bool:
    """Whether a name of a file, or an argument, holds nothing but UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_utf8(text: str) -> None:
    """Refuse a path or another setting that is not UTF-8: UsageError."""
    if not is_utf8(text):
        shown = as_utf8(text).encode(errors="backslashreplace").decode()
        raise UsageError(
            f"{shown}: is not UTF-8, so it fits no table and no report (its other bytes are shown "
            f"as %XX). Rename it, or write it in UTF-8."
        )


def check_no_secret(uri: str) -> None:
    """Refuse an address with credentials in it, without repeating them.

    Raises:
        UsageError: it has. It would stand in logs, tables and reports.
    """
    if holds_secret(uri):
        raise UsageError(
            f"{scheme_of(uri)}://***: credentials stand in this address, and would get "
            f"into logs and tables. Leave them out, and give them by the environment "
            f"(AWS_ACCESS_KEY_ID, ...), a profile or the role of the machine."
        )


def join(uri: str, *names: str) -> str:
    """The URI of something inside a folder; names may hold slashes."""
    return "/".join([uri.rstrip("/"), *names])


def join_inside(folder: str, name: str) -> str:
    """The URI of a file inside a folder, whose name others have chosen.

    Raises:
        UsageError: it would lie somewhere else, as "../a" and "/a" do.
    """
    if name.startswith("/") or "\0" in name or {".", ".."} & set(name.split("/")):
        raise UsageError(
            f"{name!r}: the name of a photo that would be written outside {folder}. Ids without "
            f"'..' are needed; rename it."
        )
    return join(folder, name)


def as_utf8(name: str) -> str:
    """Write bytes of a file's name that are not UTF-8 as %XX, so that it fits a Parquet string."""
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter
        for letter in name
    )
