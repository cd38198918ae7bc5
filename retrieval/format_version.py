"""The version of a file's form, so that a program refuses what it would misread.

Every file that users keep says `format_version`, a whole number. It rises only when a program
that knows the older form would read the file wrongly; a file that does not say it is of version
1, as those are that were written before this was kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrieval.errors import RetrievalError

__all__ = ["FORMAT_VERSION", "check_format_version"]

FORMAT_VERSION = "format_version"  # its name in every file


def check_format_version(
    found: Mapping[str, Any], newest: int, where: str, error: type[RetrievalError]
) -> int:
    """The version of a file's form.

    Args:
        found: What the file says.
        newest: The newest version that the caller reads; it must read all older ones.
        where: The file, for the error.
        error: What to raise.

    Returns:
        From 1 to `newest`; 1 where the file does not say it.

    Raises:
        RetrievalError: of the class `error`: the version is newer, or no whole number from 1 on.

    Example:
        >>> check_format_version({"format_version": 2}, 3, "a.json", RetrievalError)
        2
        >>> check_format_version({}, 3, "a.json", RetrievalError)
        1
    """
    version = found.get(FORMAT_VERSION, 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise error(
            f"{where}: format_version {version!r}; a whole number from 1 on is needed. The file "
            f"is damaged: write it again."
        )
    if version > newest:
        raise error(
            f"{where}: written by a newer release: format_version {version}; this program reads "
            f"{'1' if newest == 1 else f'1 to {newest}'}. Upgrade retrieval-cli."
        )
    return version
