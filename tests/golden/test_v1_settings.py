"""What release 0.1.0 hashed of an experiment's settings: a row goes on in the same folder."""

from __future__ import annotations

from pathlib import PurePosixPath

import pyarrow as pa

from pipelines.experiment.config import ExperimentConfig
from pipelines.experiment.photos import Sides
from pipelines.experiment.row import RowRun
from pipelines.ray_runtime.cluster_options import Site
from retrieval.experiments import ROWS
from tests.golden.contents import MADE_AT, contents

KNOWN = contents("folders")["experiment"]


def test_the_model_of_a_row_has_the_same_folder():
    result = KNOWN["result.json"]
    sides = [name.split("/", 1) for name, _ in KNOWN["photos"]]
    photos = {
        "image_id": [image_id for _, image_id in sides],
        "content_sha256": [sha256 for _, sha256 in KNOWN["photos"]],
        "side": [side for side, _ in sides],
    }
    shared = Sides(pa.table(photos).sort_by("image_id"))
    assert shared.fingerprint() == result["settings"]["photos_sha256"]
    config = ExperimentConfig(
        scale="small", epochs=1, image_size=32, per_class=8, queries_per_class=1, batch_size=8
    )
    (row,) = (row for row in ROWS if row.name == result["name"])
    where = PurePosixPath(MADE_AT, "experiment")
    folder = str(where / "rows" / row.name)
    made = RowRun(row, config, str(where / "photos"), shared, folder, Site())
    assert made.settings() == result["settings"]
    assert made.model() == result["paths"]["model"]
