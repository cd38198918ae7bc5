"""Models, trainings, augmented photos and experiments of release 0.1.0, and hashes that last."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.augment.output import check_places, finished_parts
from pipelines.augment.plan import plan_classes
from pipelines.experiment.config import ExperimentConfig
from pipelines.experiment.photos import Sides, copy_photos
from pipelines.experiment.row import RowRun
from pipelines.ray_runtime.cluster_options import Site
from pipelines.scan import Scan
from pipelines.train import TrainConfig
from pipelines.train.network import build_network
from pipelines.train.publishing import finished_model, resume_split
from pipelines.train.split import share_photos
from retrieval.augmentations import load_recipe
from retrieval.augmentations.manifest import MANIFEST, MANIFEST_SCHEMA
from retrieval.augmentations.multiplying import Method
from retrieval.experiments import ROWS, Measured
from retrieval.images import Preprocessing, decode_image
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.models.backbones import BackboneSpec, build_backbone, fingerprint, inner_network
from retrieval.models.embedder import Embedder
from retrieval.models.folder import load_network, open_model
from retrieval.training.checkpoints import Progress
from tests.golden.contents import MADE_AT, contents, plain_rows
from tests.golden.tiny_network import fill_by_count

HASHES, MODELS, FOLDERS = contents("hashes"), contents("models"), contents("folders")
OWN = "tests.golden.tiny_network:tiny"
TRAINED = TrainConfig(
    backbone=OWN, weights="none", image_size=32, batch_size=8, learning_rate=0.001, epochs=2
)
KINDS = {"augmented": "jpeg", "augmented-parquet": "parquet"}


def network_of(model):
    return load_network(model, OWN)  # no folder alone has code run


def embedder_of(model):
    return Embedder(model, model.preprocessing, precision="float32", model_backbone=OWN)


@pytest.mark.parametrize("name", HASHES["preprocessing"])
def test_preprocessing_keeps_its_hash(name):
    size, mean, std, known = HASHES["preprocessing"][name]
    made = Preprocessing(size=size, mean=tuple(mean), std=tuple(std))
    assert made.fingerprint() == known
    assert Preprocessing.from_json({"size": size, "mean": mean, "std": std}) == made


def test_the_defaults_are_the_hashed_ones():
    assert Preprocessing().fingerprint() == HASHES["preprocessing"]["224"][3]
    assert Preprocessing(size=32).fingerprint() == HASHES["preprocessing"]["32"][3]


@pytest.mark.parametrize("case", HASHES["networks filled by count"])
def test_a_network_keeps_its_fingerprint(case):
    """Filled without chance, since torch may draw other numbers for a seed tomorrow."""
    name, _, size = case.rpartition(" ")
    spec = BackboneSpec(name=name, weights="none", seed=0)
    network = build_backbone(spec)
    fill_by_count(inner_network(network))
    known = HASHES["networks filled by count"][case]
    assert fingerprint(spec, network, Preprocessing(size=int(size))) == known


def test_a_model_folder_is_read_as_it_was_written(v1):
    model, known = open_model(str(v1 / "model")), MODELS["model.json"]
    names = ("backbone", "mode", "dim", "fingerprint", "weights_sha256", "training", "metrics")
    assert {name: getattr(model, name) for name in names} == {name: known[name] for name in names}
    assert list(model.classes) == known["classes"]
    assert model.preprocessing == Preprocessing.from_json(known["preprocessing"])
    lines = (v1 / "model/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == MODELS["metrics.jsonl"]


def test_its_network_has_the_weights(v1):
    model = open_model(str(v1 / "model"))
    state = inner_network(network_of(model)).state_dict()
    known = MODELS["weights"]
    assert known.keys() - state == {"fc.weight", "fc.bias"}
    for name, tensor in state.items():
        shape, data = known[name]
        assert list(tensor.shape) == shape
        assert tensor.numpy().astype("<f4").tobytes().hex() == data
    name = BackboneSpec(name=model.backbone)
    assert fingerprint(name, network_of(model), model.preprocessing) == model.fingerprint


def test_it_embeds_as_it_did(v1):
    """To the last bits: processors round the sums of a convolution differently."""
    model, versions = open_model(str(v1 / "model")), contents("indexes")["index"]["versions"]
    embedder = embedder_of(model)
    written = contents("indexes")["index"]["spec"]
    assert embedder.spec.to_metadata() == {**written, "weights": model.uri}
    rows = versions[str(max(map(int, versions)))]["rows"]
    assert len(rows) > 10
    for image_id, _, content_sha256, *_, vector in rows:
        data = (v1 / "photos" / image_id).read_bytes()
        assert hashlib.sha256(data).hexdigest() == content_sha256
        pixels = decode_image(data, model.preprocessing).pixels
        found = embedder.embed(pixels[None])[0].astype(np.float64)
        known = np.frombuffer(bytes.fromhex(vector), "<f2").astype(np.float64)
        cosine = found @ known / np.sqrt((found @ found) * (known @ known))
        assert cosine > 0.9999
        np.testing.assert_allclose(found, known, atol=2e-3)


def test_a_finished_training_is_known_by_its_settings(v1):
    settings = {"photos": f"{MADE_AT}/training-photos", **asdict(TRAINED)}
    found = finished_model(str(v1 / "model"), settings)
    assert found is not None
    assert found.fingerprint == MODELS["model.json"]["fingerprint"]


def test_an_unfinished_training_goes_on_with_its_split(v1):
    known, folder = MODELS["unfinished"], v1 / "unfinished-model"
    config = replace(TRAINED, epochs=known["settings"]["epochs"])
    settings = {"photos": f"{MADE_AT}/training-photos", **asdict(config)}
    split = resume_split(str(folder), settings)
    assert split is not None
    for table, name in ((split.photos, "split"), (split.rejects, "rejects")):
        assert [table.column_names, *plain_rows(table)] == known[name]
    assert {row[3] for row in known["split"][1:]} == {"training", "validation"}
    (checkpoint,) = folder.glob("training/run/checkpoint_2*")
    network = build_network(config, 3)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad])
    progress = Progress.load(checkpoint, network, optimizer)
    assert len(progress.history) == known["epochs"]
    assert progress.best in progress.history
    assert progress.best_weights.keys() == network.state_dict().keys()


def photos_in(where):
    """What `scan_photos` finds in a folder, without Ray."""
    photos = [
        {
            "image_id": str(file.relative_to(where)),
            "uri": str(file),
            "size_bytes": file.stat().st_size,
            "label": file.parent.name,
            "content_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(where.glob("[!.]*/*"))
        if file.name != "broken.jpg"
    ]
    return pa.Table.from_pylist(photos)


@pytest.mark.parametrize("name", KINDS)
def test_augmented_photos_are_known_for_what_they_are(v1, name):
    """Those that `augment` would plan today are found finished, down to the last file."""
    known, kind = FOLDERS[name], KINDS[name]
    photos = photos_in(v1 / "few-photos")
    check_places(str(v1 / "few-photos"), str(v1 / name))
    method = Method(load_recipe("light"), 0, 256, 90)
    plans = plan_classes(photos, "folder", method, per_class=4, kind=kind)
    units = {unit for plan in plans for unit in plan.units()}
    assert units == known["parts"].keys()
    parts = finished_parts(str(v1 / name), {plan.key for plan in plans})
    assert parts.keys() == units
    for unit, part in parts.items():
        assert part.rows.schema == MANIFEST_SCHEMA
        assert plain_rows(part.rows) == [row[:-1] for row in known["parts"][unit][1:]]
    found = sorted(row for part in parts.values() for row in plain_rows(part.rows))
    assert found == sorted(known["manifest"][1:])
    copied = {row[0] for row in known["manifest"][1:] if row[4] is None}
    assert copied == {row[0] for row in known["copied"][1:]}


def test_a_training_knows_augmented_copies_from_photos(v1):
    table = photos_in(v1 / "augmented")
    manifest = {row[0]: row for row in FOLDERS["augmented"]["manifest"][1:]}
    assert sorted(manifest) == table["image_id"].to_pylist()

    def examine(folder):
        return Scan(table, REJECT_SCHEMA.empty_table(), table.num_rows, 0, ())

    split = share_photos(str(v1 / "augmented"), TRAINED, lambda line: None, examine)
    side = {row["image_id"]: row["side"] for row in split.photos.to_pylist()}
    held = {manifest[name][3] for name, where in side.items() if where == "validation"}
    assert len(held) == 3
    for name, row in manifest.items():
        wanted = "training"
        if row[3] in held:
            wanted = "validation" if row[4] is None else "left out"
        assert side[name].replace("_", " ").replace("-", " ") == wanted
    assert (v1 / "augmented" / MANIFEST).is_file()


def test_a_finished_row_of_an_experiment_is_not_run_again(v1):
    known, where = FOLDERS["experiment"], v1 / "experiment"
    table = photos_in(v1 / "training-photos")
    on_side = {tuple(name.split("/", 1))[::-1]: sha for name, sha in known["photos"]}
    sides = [
        next(side for name, side in on_side if name == i) for i in table["image_id"].to_pylist()
    ]
    table = table.append_column("side", pa.array(sides))
    shared = Sides(table.select(["image_id", "uri", "content_sha256", "label", "side"]))
    assert {"sha256": shared.fingerprint()} == known["sides.json"]
    before = {file: file.stat().st_mtime_ns for file in (where / "photos").rglob("*")}
    copy_photos(shared, str(where / "photos"))
    assert before == {file: file.stat().st_mtime_ns for file in (where / "photos").rglob("*")}
    config = ExperimentConfig(
        scale="small", epochs=1, image_size=32, per_class=8, queries_per_class=1, batch_size=8
    )
    name = known["result.json"]["name"]
    (row,) = (row for row in ROWS if row.name == name)
    folder = str(where / "rows" / name)
    done = RowRun(row, config, str(where / "photos"), shared, folder, Site()).finished()
    assert done == Measured(**known["result.json"]["measured"])
