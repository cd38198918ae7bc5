"""Which versions of a file's form are read, and what is said of the others."""

from __future__ import annotations

import re

import pytest

from retrieval.errors import IndexFormatError, ModelError
from retrieval.format_version import check_format_version


def test_known_versions_are_told_and_none_means_the_first():
    assert check_format_version({}, 1, "a.json", ModelError) == 1
    assert check_format_version({"format_version": 1}, 1, "a.json", ModelError) == 1
    assert check_format_version({"format_version": 2}, 3, "a.json", ModelError) == 2


@pytest.mark.parametrize(("newest", "reads"), [(1, "1"), (3, "1 to 3")])
def test_a_newer_one_is_refused_in_one_line(newest, reads):
    message = (
        f"a.json: written by a newer release: format_version 4; this program reads {reads}. "
        f"Upgrade retrieval-cli."
    )
    with pytest.raises(IndexFormatError, match=f"^{re.escape(message)}$"):
        check_format_version({"format_version": 4}, newest, "a.json", IndexFormatError)


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", None, True, [1]])
def test_what_is_no_version_is_refused_in_one_line(version):
    with pytest.raises(ModelError, match=r"^a\.json: format_version .*; a whole number from 1 on"):
        check_format_version({"format_version": version}, 2, "a.json", ModelError)
