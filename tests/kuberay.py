"""KubeRay's kinds, as far as our examples use them: their fields, their pods, what they run."""

from __future__ import annotations

import shlex
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).parents[1]


def documents(path):
    """Of a YAML file below the repository."""
    return list(yaml.safe_load_all((ROOT / path).read_text()))


def schema_errors(document):
    """What KubeRay's CRD of its kind would refuse in a document."""
    schema = yaml.safe_load((ROOT / "tests" / "kuberay_schema.yaml").read_text())
    schema = {**schema, "$ref": f"#/$defs/{document['kind']}"}
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [error.message for error in errors]


def pods(cluster):
    """The pods of a cluster's spec by the name of their group, the head's first."""
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster.get("workerGroupSpecs", ())}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def arguments(line):
    """What retrieval-cli is given in a command line."""
    words = shlex.split(line)
    start = next(n for n, word in enumerate(words) if Path(word).name == "retrieval-cli")
    ends = (n for n, word in enumerate(words) if n > start and word in (">>", "||", "&&", "|"))
    return words[start + 1 : next(ends, None)]
