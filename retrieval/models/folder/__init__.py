"""The model folder: what training writes, and embedding reads.

    weights.safetensors   the whole network: the body's tensors by the names that torchvision, or
                          the author of the network, gave them; the head's as fc.weight, fc.bias
    model.json            network, classes, preprocessing, fingerprint, settings, metrics

model.json is written last and says the hash of the weights: a folder without it is no model,
and weights that were swapped or cut are noticed. Nothing in a folder is ever unpickled, and no code
is run because a folder names it: the package.module:function of a network of one's own is imported
and called only where the caller names it, too.
"""

from retrieval.models.folder.manifest import (
    MODES,
    ModelFacts,
    ModelFolder,
    is_model,
    open_model,
)
from retrieval.models.folder.network import load_network, write_model

__all__ = [
    "MODES",
    "ModelFacts",
    "ModelFolder",
    "is_model",
    "load_network",
    "open_model",
    "write_model",
]
