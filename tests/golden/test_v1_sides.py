"""Rankings of release 0.1.0 whose two sides lie elsewhere now: found, and read as they were."""

from __future__ import annotations

import pytest

from retrieval.evaluation import read_photos
from retrieval.ranking.files import open_ranking
from retrieval.ranking.sides import open_ranked
from retrieval.ranking.verification import verify
from tests.golden.contents import MADE_AT, contents

RANKINGS = contents("rankings")


@pytest.mark.parametrize("name", RANKINGS)
def test_what_was_ranked_is_found_where_it_lies_now(v1, name):
    ranking, places = open_ranking(str(v1 / "rankings" / name)), {}
    for side in ("queries", "gallery"):
        ranked = RANKINGS[name]["manifest"][side]
        place = places[side] = str(v1) + ranked["uri"].removeprefix(MADE_AT)
        source = open_ranked(place, ranking, side)
        assert (source.version, source.num_rows) == (ranked["version"], ranked["num_rows"])
        assert read_photos(place, ranking, side).num_rows == ranked["num_rows"]
    assert verify.run(ranking.uri, **places)["is_exact"]
