"""What make.py made, written down in plain text: contents/*.json.

Reads the files with json, hashlib, NumPy and pyarrow alone, never with the program's own readers,
and computes scores as fractions and hashes by their formula: so that it is a second witness.
"""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROOT = Path("/srv/golden-v1")
INDEXES = ("index", "float32", "killed", "gated", "gated/_probe")
COLUMNS = ("image_id", "uri", "content_sha256", "size_bytes", "modified_at", "width", "height",
           "label", "embedding")  # fmt: skip


def describe(folder: Path) -> dict[str, Any]:
    """All contents, by the name of their file."""
    indexes = {name: index_of(folder / name) for name in INDEXES}
    return {
        "hashes": hashes_of(folder),
        "models": models_of(folder),
        "indexes": indexes,
        "waiting": {"receipts": receipts_of(folder), "candidate": candidate_of(folder)},
        "rankings": rankings_of(folder, indexes),
        "folders": folders_of(folder),
    }


def as_text(value: Any, depth: int = 0) -> str:
    """JSON with a row of a table on each line."""
    start, end = " " * (depth + 1), " " * depth
    if isinstance(value, dict) and value and depth < 4:
        lines = [f"{start}{json.dumps(k)}: {as_text(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{end}}}"
    if isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        lines = [f"{start}{json.dumps(row, ensure_ascii=False)}" for row in value]
        return "[\n" + ",\n".join(lines) + f"\n{end}]"
    return json.dumps(value, ensure_ascii=False)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# hashes


def hash_of_preprocessing(size: int, mean: list[float], std: list[float]) -> str:
    content = {"decoder_version": 1, "size": size, "mean": mean, "std": std}
    return sha256(json.dumps(content, sort_keys=True).encode())


def hash_of_network(name: str, images: str, state: dict[str, np.ndarray]) -> str:
    """Of a network: its name, pooling, images, and each tensor but the counters."""
    head = {"network": name, "pooling": "average", "images": images}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for key, array in sorted(state.items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} torch.{array.dtype} {tuple(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
PREPROCESSING = {
    "224": (224, *IMAGENET),
    "32": (32, *IMAGENET),
    "299, mean and deviation 0.5": (299, [0.5] * 3, [0.5] * 3),
    "64, 0 to 1": (64, [0.0] * 3, [1.0] * 3),
}


def hashes_of(folder: Path) -> dict[str, Any]:
    """Fingerprints, also of networks filled by `tests.golden.tiny_network.fill_by_count`."""
    import torchvision

    from tests.golden.tiny_network import fill_by_count, tiny

    images = {name: hash_of_preprocessing(*values) for name, values in PREPROCESSING.items()}
    networks = {}
    for name in ("resnet18", "resnet50"):
        network = torchvision.models.get_model(name)
        network.fc = type(network.fc)(1, 1)  # the head is no part of it
        state = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
        bare = torchvision.models.get_model(name)
        del bare.fc
        fill_by_count(bare)
        arrays = {k: v.numpy() for k, v in bare.state_dict().items()}
        assert arrays.keys() == state.keys()
        networks |= {f"{name} {size}": hash_of_network(name, images[size], arrays)
                     for size in ("224", "32")}  # fmt: skip
    own = "tests.golden.tiny_network:tiny"
    # Their own networks lie in a module that names them "network.".
    arrays = {f"network.{k}": v.numpy() for k, v in tiny().state_dict().items()}
    networks[f"{own} 32"] = hash_of_network(own, images["32"], arrays)
    return {
        "preprocessing": {name: [*values, images[name]] for name, values in PREPROCESSING.items()},
        "networks filled by count": networks,
    }


# models


def models_of(folder: Path) -> dict[str, Any]:
    model = json.loads((folder / "model/model.json").read_text())
    weights = (folder / "model/weights.safetensors").read_bytes()
    assert model["weights_sha256"] == sha256(weights)
    state = safetensors_of(weights)
    body = {f"network.{name}": array for name, array in state.items() if name.startswith("layers.")}
    images = hash_of_preprocessing(**model["preprocessing"])
    assert model["fingerprint"] == hash_of_network(model["backbone"], images, body)
    return {
        "model.json": model,
        "weights": {name: [list(a.shape), a.tobytes().hex()] for name, a in state.items()},
        "metrics.jsonl": lines_of(folder / "model/metrics.jsonl"),
        "split": table_of(folder / "model/split.parquet"),
        "rejects": table_of(folder / "model/rejects.parquet"),
        "unfinished": {
            "settings": json.loads(
                (folder / "unfinished-model/training/settings.json").read_text()
            ),
            "split": table_of(folder / "unfinished-model/split.parquet"),
            "rejects": table_of(folder / "unfinished-model/rejects.parquet"),
            "epochs": len(lines_of(folder / "unfinished-model/metrics.jsonl")),
        },
    }


def safetensors_of(data: bytes) -> dict[str, np.ndarray]:
    """Eight bytes of length, a JSON of places, and the tensors."""
    length = int.from_bytes(data[:8], "little")
    places, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    found = {}
    for name, place in places.items():
        assert place["dtype"] == "F32"
        start, end = place["data_offsets"]
        found[name] = np.frombuffer(body[start:end], "<f4").reshape(place["shape"])
    return found


def lines_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def table_of(file: Path) -> list[list[Any]]:
    """The names of the columns, and the rows."""
    table = pq.read_table(file, partitioning=None)
    rows = [[plain(value) for value in row.values()] for row in table.to_pylist()]
    return [table.column_names, *rows]


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else value


# indexes


def index_of(folder: Path) -> dict[str, Any]:
    """Each version, by replaying the entries of the log in their order."""
    live: set[str] = set()
    versions, metadata = [], {}
    for entry in sorted((folder / "_delta_log").glob("*.json")):
        run: dict[str, Any] = {}
        for action in lines_of(entry):
            if "add" in action:
                live.add(action["add"]["path"])
            if "remove" in action:
                live.discard(action["remove"]["path"])
            if "metaData" in action:
                schema = json.loads(action["metaData"]["schemaString"])
                metadata = schema["fields"][-1]["metadata"]
            if "commitInfo" in action:
                run = json.loads(action["commitInfo"]["retrieval.run"])
        hashes = {name: sha256((folder / name).read_bytes()) for name in sorted(live)}
        assert run.pop("shards_sha256") == hashes
        versions.append(
            {
                "run": run,
                "shards": [[name, *shard_of(folder / name), hashes[name]] for name in hashes],
                "rows": sorted(row for name in hashes for row in rows_of(folder / name)),
                "rejects": rejects_of(folder, run.get("rejects")),
            }
        )
    checkpoints = [int(file.name[:20]) for file in (folder / "_delta_log").glob("*.checkpoint.*")]
    records = {file.stem: json.loads(file.read_text()) for file in (folder / "_runs").glob("*")}
    return {
        "spec": metadata,
        "checkpoints": checkpoints,
        "columns": list(COLUMNS),
        "versions": {str(number): version for number, version in enumerate(versions)},
        "records": [records[name] for name in sorted(records)],
    }


def shard_of(file: Path) -> list[int]:
    return [pq.read_metadata(file).num_rows, file.stat().st_size]


def rows_of(file: Path) -> list[list[Any]]:
    names, *rows = table_of(file)
    assert tuple(names) == COLUMNS
    return rows


def rejects_of(folder: Path, name: str | None) -> list[list[Any]]:
    return table_of(folder / name / "part-0.parquet") if name else []


def receipts_of(folder: Path) -> dict[str, Any]:
    """Of the run that was killed, with the rows of its shard and its rejects."""
    found = {}
    for file in sorted((folder / "killed/_staging").glob("*.json")):
        receipt = json.loads(file.read_text())
        found[file.stem] = {
            "receipt": receipt,
            "rows": rows_of(folder / "killed" / receipt["shard"]["path"]),
            "rejects": table_of(folder / "killed" / receipt["rejects"]),
        }
    return found


def candidate_of(folder: Path) -> dict[str, Any]:
    (file,) = (folder / "gated/_candidates").glob("*.json")
    candidate = json.loads(file.read_text())
    paths = [shard["path"] for shard in candidate["shards"]]
    return {
        "name": file.name,
        "candidate": candidate,
        "rows": sorted(row for path in paths for row in rows_of(folder / "gated" / path)),
    }


# rankings


def rankings_of(folder: Path, indexes: dict[str, Any]) -> dict[str, Any]:
    """Manifest and rows of each, with scores as hexadecimal floats; all proven right here."""
    found = {}
    for where in sorted((folder / "rankings").iterdir()):
        manifest = json.loads((where / "ranking.json").read_text())
        rows = [row for part in manifest["parts"] for row in table_of(where / part)[1:]]
        sides = [vectors_of(folder, indexes, manifest[side]) for side in ("queries", "gallery")]
        prove(manifest, rows, *sides)
        found[where.name] = {
            "manifest": manifest,
            "rows": [[query, rank, name, score.hex()] for query, rank, name, score in rows],
        }
    return found


Vectors = dict[str, list[Fraction]]


def vectors_of(folder: Path, indexes: dict[str, Any], side: dict[str, Any]) -> Vectors:
    name = side["uri"].removeprefix(f"{ROOT}/")
    if side["version"] is not None:
        rows = indexes[name]["versions"][str(side["version"])]["rows"]
        kind = np.dtype(side["dtype"]).newbyteorder("<")
        return {row[0]: exact(np.frombuffer(bytes.fromhex(row[-1]), kind)) for row in rows}
    if name.endswith(".parquet"):
        table = pq.read_table(folder / name).to_pylist()
        return {row["id"]: exact(row["vector"]) for row in table}
    ids = pq.read_table(folder / name / "metadata_0.parquet")["image_id"].to_pylist()
    array = np.load(folder / name / "img_emb_0.npy")
    return {row_id: exact(row) for row_id, row in zip(ids, array, strict=True)}


def exact(row: Any) -> list[Fraction]:
    return [Fraction(float(value)) for value in row]


def score(metric: str, ours: list[Fraction], theirs: list[Fraction]) -> float:
    """A score from exact sums."""
    dot = sum(a * b for a, b in zip(ours, theirs, strict=True))
    if metric == "ip":
        return float(dot)
    if metric == "cosine":
        squares = [float(sum(a * a for a in row)) for row in (ours, theirs)]
        return float(dot) / math.sqrt(squares[0] * squares[1])
    gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    if metric == "l1":
        return float(sum(gaps))
    if metric == "l2":
        return math.sqrt(float(sum(gap * gap for gap in gaps)))
    power = int(metric.removeprefix("minkowski:"))
    return float(sum(gap**power for gap in gaps)) ** (1 / power)


def prove(manifest: dict[str, Any], rows: list[Any], queries: Vectors, gallery: Vectors) -> None:
    """Each query's nearest, by plain loops: the same ids, and the same bits where they are due."""
    metric, is_near = manifest["metric"], manifest["metric"] in ("cosine", "ip")
    is_exact = manifest["gallery"]["dtype"] == "float16" and not metric.startswith("minkowski")
    wanted = []
    for query in sorted(queries, key=str.encode):
        near = [
            (score(metric, queries[query], vector), name)
            for name, vector in gallery.items()
            if not (manifest["exclude_self"] and name == query)
        ]
        near.sort(key=lambda row: (-row[0] if is_near else row[0], row[1].encode()))
        wanted += [[query, n, name, value]
                   for n, (value, name) in enumerate(near[: manifest["top_k"]], 1)]  # fmt: skip
    assert len(wanted) == len(rows) == manifest["num_rows"]
    for right, row in zip(wanted, rows, strict=True):
        assert right[:3] == row[:3], (metric, right, row)
        assert math.isclose(right[3], row[3], rel_tol=0 if is_exact else 1e-9), (metric, right, row)


# folders


def folders_of(folder: Path) -> dict[str, Any]:
    """What `augment` and `experiment` have written."""
    found = {}
    for name in ("augmented", "augmented-parquet"):
        hidden = folder / name / ".augmented"
        found[name] = {
            "settings": json.loads((hidden / "settings.json").read_text()),
            "manifest": table_of(hidden / "manifest.parquet"),
            "rejects": table_of(hidden / "rejects.parquet"),
            "copied": table_of(hidden / "copied.parquet"),
            "parts": {file.stem: table_of(file) for file in sorted((hidden / "parts").iterdir())},
        }
    for file in sorted((folder / "augmented-parquet").glob("part-*.parquet")):
        found["augmented-parquet"].setdefault("tables", {})[file.stem] = [
            [row["image_id"], row["label"], sha256(row["bytes"])]
            for row in pq.read_table(file).to_pylist()
        ]
    (result,) = (folder / "experiment/rows").glob("*/result.json")
    found["experiment"] = {
        "sides.json": json.loads((folder / "experiment/photos/sides.json").read_text()),
        "result.json": json.loads(result.read_text()),
        "photos": [
            [str(file.relative_to(folder / "experiment/photos")), sha256(file.read_bytes())]
            for file in sorted((folder / "experiment/photos").rglob("*.*g"))
        ],
    }
    return found


if __name__ == "__main__":
    HERE = Path(__file__).parent
    (HERE / "contents").mkdir()
    for name, content in describe(ROOT).items():
        text = as_text(content) + "\n"
        assert json.loads(text) == json.loads(json.dumps(content))
        (HERE / "contents" / f"{name}.json").write_text(text, encoding="utf-8")
