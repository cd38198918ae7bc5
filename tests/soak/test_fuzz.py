"""Thousands of damages to each kind of file that we read: see `tests.damage`. Prints the counts."""

from __future__ import annotations

import random

import pytest

from tests.damage import count_outcomes
from tests.pipelines import test_fuzz_rankings
from tests.retrieval import test_fuzz_files, test_fuzz_rejects, test_fuzz_vectors

pytestmark = pytest.mark.soak

TARGETS = [
    *test_fuzz_vectors.TARGETS,
    *test_fuzz_rejects.TARGETS,
    *test_fuzz_rankings.TARGETS,
    *test_fuzz_files.TARGETS,
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_file_is_read_right_or_refused(tmp_path, target):
    seed = random.randrange(2**32)
    print(f"{target.name}, seed {seed}: ", end="", flush=True)
    print(dict(count_outcomes(target, tmp_path / "whole", seed, number=2000)))
