"""Files that users exchange run no code: a trap in every place that could, and one line each time.

Each trap leaves a file when it is sprung; what opens the file must refuse it, or go on without.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray

from pipelines.cli import main
from pipelines.submit import read_runtime_env
from pipelines.train.publishing import resume_split
from retrieval.augmentations import load_recipe
from retrieval.augmentations.manifest import MANIFEST, SETTINGS
from retrieval.errors import RetrievalError
from retrieval.gallery.labels import labeller
from retrieval.gallery.manifest import read_manifest
from retrieval.index import EmbeddingSpec, commit_index, index_schema, open_index, write_shard
from retrieval.models.backbones import BackboneSpec, build_backbone
from retrieval.training.checkpoints import load_checkpoint
from retrieval.vectors import open_source
from tests.conftest import draw_photos, make_index
from tests.retrieval.models import edit, make_model

ROOT = Path(__file__).parents[1]


class Sprung:
    """Unpickled, it leaves a folder."""

    def __init__(self, ran):
        self._ran = ran

    def __reduce__(self):
        return os.mkdir, (str(self._ran),)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """The file that a trap leaves; trap.py, which can be imported, leaves it as well."""
    ran = tmp_path / "ran"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "trap.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nfrom tests.fakes import one_weight as network\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield ran
    sys.modules.pop("trap", None)
    assert not ran.exists()


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def one_line(act, *arguments):
    with pytest.raises(RetrievalError) as caught:
        act(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def objects(ran, count=1):
    """A column of pickles, as Ray Data writes what Arrow has no type for."""
    return ArrowPythonObjectArray.from_objects([Sprung(ran)] * count)


def test_the_traps_spring_where_nothing_guards_them(tmp_path):
    ran = tmp_path / "ran"
    for spring in (
        lambda: objects(ran).to_pylist(),
        lambda: pickle.loads(pickle.dumps(Sprung(ran))),
    ):
        spring()
        ran.rmdir()


COMMANDS = {
    "embed": ["embed", "{photos}", "{new}", "--model", "{model}"],
    "embed --dry-run": ["embed", "{photos}", "{new}", "--model", "{model}", "--dry-run"],
    "embed --backbone": ["embed", "{photos}", "{new}", "--model", "{model}",
                         "--backbone", "resnet18"],
    "retry-rejects": ["retry-rejects", "{photos}", "{new}", "--model", "{model}"],
    "reindex": ["reindex", "{photos}", "{new}", "--model", "{model}"],
    "reindex --dry-run": ["reindex", "{photos}", "{new}", "--model", "{model}", "--dry-run"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_model_folder_that_names_code(ran, tmp_path, command):
    photos, model = draw_photos(tmp_path / "photos"), tmp_path / "model"
    make_model(model)
    edit(model, backbone="trap:network")
    places = {"photos": photos, "model": model, "new": tmp_path / "new"}
    result = invoke(*(word.format(**places) for word in command))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "trap:network" in result.stderr
    assert not (tmp_path / "new" / "_delta_log").exists()


def test_an_index_that_names_code(ran, tmp_path):
    """Nobody but who embeds builds the network; all others read the name as text."""
    index, ranking = tmp_path / "index", tmp_path / "ranking"
    spec = EmbeddingSpec(
        fingerprint="f" * 64, backbone="trap:network", weights=f"{tmp_path}/w.pth", dim=2,
        dtype="float16",
    )  # fmt: skip
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Sprung(ran)))
    made = make_index(tmp_path / "other", ["a", "b"], np.eye(2, dtype=np.float16), labels=["x"] * 2)
    rows = pa.concat_tables([pq.read_table(f"{made.uri}/{shard.path}") for shard in made.shards])
    shard = write_shard(str(index), rows.cast(index_schema(spec)))
    commit_index(str(index), spec, [shard], run={}, seen_version=None)
    assert open_index(str(index)).spec.backbone == "trap:network"
    for command in (
        ["rank", index, index, ranking, "--exclude-self"],
        ["evaluate", ranking, "--queries", index, "--gallery", index],
        ["verify", ranking, "--queries", index, "--gallery", index],
        ["verify", index],
        ["status", index],
        ["report", ranking, tmp_path / "page.html"],
        ["diff", index],
        ["vacuum", index],
    ):
        result = invoke(*command)
        assert "Traceback" not in result.output, (command, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit), command


def test_weights_that_are_a_pickle(ran, tmp_path):
    for name, data in {
        "a.pth": pickle.dumps(Sprung(ran)),
        "b.safetensors": pickle.dumps({"conv.weight": Sprung(ran)}),
    }.items():
        (tmp_path / name).write_bytes(data)
        spec = BackboneSpec(name="tests.fakes:one_weight", weights=str(tmp_path / name))
        assert "cannot be loaded safely" in one_line(build_backbone, spec)
    torch.save({"conv.weight": Sprung(ran)}, tmp_path / "c.pth")
    spec = BackboneSpec(name="tests.fakes:one_weight", weights=str(tmp_path / "c.pth"))
    assert "cannot be loaded safely" in one_line(build_backbone, spec)


def test_a_checkpoint_of_somebody_else_s_training(ran, tmp_path):
    (tmp_path / "history.json").write_text("[]")
    torch.save({"best": Sprung(ran), "network": {}, "optimizer": {}}, tmp_path / "state.pt")
    message = one_line(load_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path}: this checkpoint of a training cannot be loaded safely")
    assert "weights_only" not in message


def test_the_split_of_somebody_else_s_training(ran, tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "settings.json").write_text("{}")
    pq.write_table(pa.table({"image_id": objects(ran)}), tmp_path / "split.parquet")
    message = one_line(resume_split, str(tmp_path), {})
    assert message.startswith(f"{tmp_path}/split.parquet: cannot be read (the column 'image_id' ")


def test_a_recipe(ran, tmp_path):
    file = tmp_path / "recipe.yaml"
    for tag in ("!!python/object/apply:builtins.open", "!!python/object/new:builtins.open"):
        file.write_text(f"{tag} [{str(ran)!r}, 'w']\n")
        assert str(file) in one_line(load_recipe, str(file))
    file.write_text("!!python/module:trap []\n")
    assert str(file) in one_line(load_recipe, str(file))


def test_a_runtime_environment(ran, tmp_path):
    file = tmp_path / "environment.yaml"
    file.write_text(f"env_vars: !!python/object/apply:builtins.open [{str(ran)!r}, 'w']\n")
    assert str(file) in one_line(read_runtime_env, str(file))


def table(ran, **columns):
    """Columns of a file of two rows; those that are None hold pickles."""
    return pa.table(
        {name: objects(ran, 2) if kept is None else kept for name, kept in columns.items()}
    )


@pytest.mark.parametrize("trapped", ["image_id", "label"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_file_of_labels(ran, tmp_path, trapped, is_nested):
    columns = {"image_id": ["a", "b"], "label": ["x", "y"]} | {trapped: objects(ran, 2)}
    if is_nested:
        columns[trapped] = pa.StructArray.from_arrays([columns[trapped]], ["inner"])
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    message = one_line(labeller, str(tmp_path / "labels.parquet"))
    assert f"the column '{trapped}' holds Python objects (ray.data.arrow_pickled_object)" in message


@pytest.mark.parametrize("trapped", ["image_id", "uri", "size_bytes", "modified_at"])
def test_a_manifest_of_photos(ran, tmp_path, trapped):
    columns = {
        "image_id": ["a", "b"],
        "uri": ["file:///etc/passwd", "http://127.0.0.1:9/a.jpg"],  # data, and read as photos
        "size_bytes": [1, 1],
        "modified_at": pa.array([0, 0], pa.timestamp("us", "UTC")),
    }
    file = tmp_path / "photos.parquet"
    pq.write_table(table(ran, **columns | {trapped: None}), file)
    message = one_line(lambda: list(read_manifest(str(file))))
    assert f"the column '{trapped}' holds Python objects" in message


def test_the_list_that_augment_leaves(ran, tmp_path):
    photos = draw_photos(tmp_path / "photos")
    (photos / SETTINGS).parent.mkdir()
    (photos / SETTINGS).write_text("{}")
    columns = {"image_id": ["a", "b"], "source_sha256": ["c", "d"], "technique": None}
    pq.write_table(table(ran, **columns), photos / MANIFEST)
    result = invoke("train", photos, tmp_path / "model", "--dry-run", "--weights", "none")
    assert result.exit_code == 1, result.output
    assert "the column 'technique' holds Python objects" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("trapped", ["image_id", "embedding"])
def test_vectors_of_other_tools(ran, tmp_path, trapped):
    columns = {"image_id": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]]}
    file = tmp_path / "shard.parquet"
    pq.write_table(table(ran, **columns | {trapped: None}), file)
    assert f"the column '{trapped}' holds Python objects" in one_line(open_source, str(file))
    pq.write_table(table(ran, **columns, label=None), file)  # that nobody needs to rank
    assert "the column 'label' holds Python objects" in one_line(open_source, str(file))


def test_vectors_of_other_tools_that_are_swapped_once_they_are_ranked(ran, tmp_path):
    file, ranking = tmp_path / "shard.parquet", tmp_path / "ranking"
    columns = {"image_id": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]], "label": ["x", "x"]}
    pq.write_table(pa.table(columns), file)
    ranked = invoke("rank", file, file, ranking, "--top-k", "2")
    assert ranked.exit_code == 0, ranked.stderr
    pq.write_table(table(ran, **columns | {"label": None}), file)
    result = invoke("evaluate", ranking, "--queries", file, "--gallery", file)
    assert result.exit_code == 1
    assert "the column 'label' holds Python objects" in result.stderr
    assert result.stderr.count("\n") == 1


def test_arrays_of_objects(ran, tmp_path):
    np.save(tmp_path / "a.npy", np.array([[Sprung(ran)]], object), allow_pickle=True)
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "a.parquet")
    assert "a.npy" in one_line(open_source, str(tmp_path))
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=np.array([[Sprung(ran)]], object))
    (tmp_path / "b.npz").write_bytes(buffer.getvalue())
    assert "b.npz" in one_line(open_source, str(tmp_path / "b.npz"))


@pytest.mark.parametrize("folder", ["retrieval", "pipelines"])
def test_parquet_is_opened_by_the_guarded_door_alone(folder):
    opens = re.compile(
        r"pq\.(ParquetFile\(|read_table|ParquetDataset)|\b(?:pd|pandas)\.read_|allow_pickle=T"
    )
    for file in (ROOT / folder).rglob("*.py"):
        if file.name != "parquet.py" or file.parent.name != "storage":
            assert not opens.search(file.read_text()), file
