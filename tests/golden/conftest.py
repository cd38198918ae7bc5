"""A copy of the golden files for each test: they are never written to where they lie."""

from __future__ import annotations

import shutil

import pytest

from tests.golden.contents import V1


@pytest.fixture
def v1(tmp_path):
    return shutil.copytree(V1, tmp_path / "v1", ignore=shutil.ignore_patterns("*.py", "contents"))
