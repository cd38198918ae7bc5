"""The content of what settings only name: a recipe, a file of labels or weights, own code.

A file can be edited under its name. So the settings of a training carry a hash of each content too,
and two trainings are of the same settings only if these agree.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipelines.train.config import TrainConfig
from retrieval.augmentations import RECIPES, load_recipe
from retrieval.errors import RetrievalError
from retrieval.gallery.labels import is_label_file
from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec, build_backbone, fingerprint
from retrieval.models.own_networks import is_own
from retrieval.storage import absolute_uri, read_bytes

__all__ = ["CONTENTS", "content_hashes", "with_contents"]

CONTENTS: Final = "contents"  # the key of the hashes, among the settings
_ADDRESS: Final = re.compile(" at 0x[0-9a-f]+")  # of an object in this process, as Python prints it


def with_contents(settings: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Settings with the hashes under CONTENTS; without that key where they name no content."""
    hashes = content_hashes(config)
    return {**settings, **({CONTENTS: hashes} if hashes else {})}


def content_hashes(config: TrainConfig) -> dict[str, str]:
    """Name of a setting → sha256, in hexadecimal, of what it names.

    Of a recipe what it does counts and not how its file is written. Of own code only what can be
    seen of the network that it builds: its layers, as torch prints them, and its first weights.
    What cannot be read is left out: whoever needs it says so.

    Cost: reads the files; builds a network of one's own, twice.
    """
    named: dict[str, Callable[[], bytes | None]] = {
        "recipe": lambda: _recipe(config.recipe),
        "labels": lambda: _file(config.labels) if is_label_file(config.labels) else None,
        "weights": lambda: _file(config.weights_file),
        "backbone": lambda: _own_network(config),
    }
    found = {}
    for name, read in named.items():
        try:
            content = read()
        except (OSError, RetrievalError):
            continue
        if content is not None:
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def _recipe(name: str) -> bytes | None:
    if name in RECIPES:
        return None
    return json.dumps(load_recipe(name).to_json(), sort_keys=True).encode()


def _file(uri: str | None) -> bytes | None:
    return read_bytes(absolute_uri(uri)) if uri else None


def _own_network(config: TrainConfig) -> bytes | None:
    if not is_own(config.backbone):
        return None
    spec = BackboneSpec(name=config.backbone, weights="none", seed=config.seed)
    networks = [build_backbone(spec) for _ in range(2)]
    first, second = (fingerprint(spec, network, Preprocessing()) for network in networks)
    # A function that draws its weights by means of its own gives others each time.
    weights = first if first == second else ""
    return f"{_ADDRESS.sub('', repr(networks[0]))} {weights}".encode()
