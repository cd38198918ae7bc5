"""By which model a run embeds: what the command leaves open is what the index was embedded by.

So that an option that was forgotten never replaces an index by that of another model, which
takes a night, and makes its rankings strangers to all that were made before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pipelines.embed.config import DECIDED_BY_MODEL, DEFAULTS, EmbedConfig
from pipelines.progress import announce
from retrieval.errors import UsageError
from retrieval.images import Preprocessing
from retrieval.index import EmbeddingSpec, Index
from retrieval.models.own_networks import describe_preprocessing, is_own
from retrieval.storage import absolute_uri

__all__ = ["Network", "check_same_model", "complete", "describe_input", "load_network"]

# Settings that decide what an embedding is → their type in the record of a commit.
_RECORDED: Final[Mapping[str, type]] = {
    "model": str,
    "backbone": str,
    "weights": str,
    "seed": int,
    "image_size": int,
    "mean": list,
    "std": list,
    "decoder": int,
    "dtype": str,
}


@dataclass(frozen=True)
class Network:
    """A network that this process has built once; every worker builds the same.

    Attributes:
        settings: Arguments of each worker's `Embedder`.
        spec: What its embeddings are.
    """

    settings: Mapping[str, Any]
    spec: EmbeddingSpec

    @property
    def preprocessing(self) -> Preprocessing:
        """What its input is."""
        found: Preprocessing = self.settings["preprocessing"]
        return found


def complete(config: EmbedConfig, seen: Index | None) -> EmbedConfig:
    """The settings with nothing left open.

    What is not named is what the record of the index says or, for a new index and with
    `new_model`, the default. Whether the model is then that of the index, its fingerprint tells:
    see `check_same_model`.

    Args:
        config: Settings of the run.
        seen: The index as it is; None if there is none.

    Raises:
        UsageError: the index was embedded by a function or a file of somebody's own, which only
            the command may name; or by a model's folder, and the run names a network in part.
    """
    recorded = {} if seen is None or config.new_model else _recorded(seen)
    if seen is not None and config.model is None:
        if "model" in recorded:
            recorded = _of_folder(seen, config, recorded)
        if "model" not in recorded:
            recorded = _of_network(seen, config, recorded)
    model = config.model or recorded.get("model")
    if model is not None:
        decided = {name: value for name, value in recorded.items() if name in ("decoder", "dtype")}
        # The record is to have an absolute address: the next run may stand in another folder.
        decided |= {"model": absolute_uri(model), "dtype": decided.get("dtype", DEFAULTS["dtype"])}
    else:
        decided = {**DEFAULTS, **recorded}
    named = {name: getattr(config, name) for name in decided.keys() - {"model"}}
    return replace(
        config, **decided | {name: value for name, value in named.items() if value is not None}
    )


def _recorded(seen: Index) -> dict[str, Any]:
    """What the commit says of its model; a value of another type is as if it were not there."""
    settings = seen.run.get("settings")
    found = settings if isinstance(settings, Mapping) else {}
    named = {name: found[name] for name, kind in _RECORDED.items() if type(found.get(name)) is kind}
    for name in ("mean", "std"):
        values = tuple(named.pop(name, ()))
        if len(values) == 3 and all(type(value) in (int, float) for value in values):
            named[name] = values
    if "model" in named:
        named["model"] = seen.spec.weights  # the folder's absolute address
    return named


def _of_folder(seen: Index, config: EmbedConfig, recorded: dict[str, Any]) -> dict[str, Any]:
    """The record of an index of a model's folder, for a run that names no folder."""
    given = [name for name in DECIDED_BY_MODEL if getattr(config, name) is not None]
    if config.backbone is not None and not is_own(config.backbone):
        given.insert(0, "backbone")
    if not given:
        return recorded
    if not (config.backbone and config.weights):  # else the fingerprint tells
        option = f"`{given[0]}` {getattr(config, given[0])}"
        raise UsageError(
            f"{seen.uri}: was embedded by `model` {recorded['model']}, and {option} is of another "
            f"model. Leave it out to go on with that of the index, or give `new_model` to embed "
            f"all its {seen.num_rows} images anew."
        )
    return {name: value for name, value in recorded.items() if name != "model"}


def _of_network(seen: Index, config: EmbedConfig, recorded: dict[str, Any]) -> dict[str, Any]:
    """The record of an index of a network, for a run that names no folder.

    Code and weights of a file come from the command alone, never from what a file says.
    """
    found = {**recorded}
    if "backbone" in found:  # then it names mean and deviation where they are not the usual ones
        found = {"mean": Preprocessing.mean, "std": Preprocessing.std, **found}
    if config.backbone is None and is_own(found.get("backbone", "")):
        raise UsageError(
            f"{seen.uri}: was embedded by a function, `backbone` {found['backbone']}. Code that "
            f"a file names is not run: name it on the command line."
        )
    if config.backbone not in (None, found.get("backbone")):
        found.pop("weights", None)  # of another network
    weights = found.get("weights", "none")
    if config.weights is None and weights not in ("imagenet", "none"):
        raise UsageError(
            f"{seen.uri}: was embedded with weights of a file, `weights` {weights}. Name it on the "
            f"command line, or where it lies now."
        )
    return found


def check_same_model(
    config: EmbedConfig, seen: Index | None, made: EmbeddingSpec | None, count: Callable[[], int]
) -> None:
    """Refuse to embed an index anew that was not to be.

    Args:
        config: Complete settings.
        seen: The index as it is.
        made: What the embeddings of this run would be; None where the network is not loaded yet:
            another name is another fingerprint, whatever its weights are.
        count: Counts the images of the gallery.

    Raises:
        UsageError: the model is another one than that of the index, and `new_model` is not set.
    """
    if seen is None or config.new_model:
        return
    if made is not None:
        is_same = made.makes_same(seen.spec)
    else:
        _check_still_there(config, seen)
        is_same = config.model is not None or config.network == seen.spec.backbone
        is_same &= config.dtype == seen.spec.dtype
    if not is_same:
        raise UsageError(
            f"{seen.uri}: was embedded otherwise ({_differences(config, seen, made)}). To go on as "
            f"before, leave the options of the model out; to embed all {count()} images anew, give "
            f"`new_model`."
        )


def _check_still_there(config: EmbedConfig, seen: Index) -> None:
    """Say what to name where the folder of the index's model has moved."""
    from retrieval.models.folder import is_model  # torch takes seconds to load

    if config.model is None or config.model != _recorded(seen).get("model"):
        return
    if not is_model(config.model):
        raise UsageError(
            f"{seen.uri}: was embedded by `model` {config.model}, where no model is now. Name the "
            f"folder in which it lies: `model`."
        )


def _differences(config: EmbedConfig, seen: Index, made: EmbeddingSpec | None) -> str:
    before, now = _recorded(seen), {**config.recorded(), **_normalising(config)}
    found = [
        f"{name.replace('_', ' ')} {before[name]}, now {now[name]}"
        for name in _RECORDED
        if name in before and now.get(name) not in (None, before[name])
    ]
    if not found or ("model" in before and config.model is None):
        was = f"{seen.spec.backbone}, weights {seen.spec.weights}"
        found.insert(0, f"{was}, now {config.network}, weights {config.start_weights}")
    if made is not None and made.fingerprint != seen.spec.fingerprint:
        found.append(f"fingerprint {seen.spec.fingerprint[:12]}, now {made.fingerprint[:12]}")
    return "; ".join(found)


def _normalising(config: EmbedConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("mean", "std")}


def load_network(config: EmbedConfig) -> Network:
    """Build the network that the settings name.

    The driver builds it once itself: unknown names and unfit weights end the job
    before Ray starts, and its fingerprint is what every worker must have.

    Args:
        config: Complete settings.

    Raises:
        ModelError, UsageError: as `Embedder`.
    """
    from retrieval.models.backbones import BackboneSpec  # torch takes seconds to load
    from retrieval.models.embedder import Embedder
    from retrieval.models.folder import ModelFolder, open_model

    given = config.given_preprocessing
    backbone: BackboneSpec | ModelFolder
    if config.model is not None:
        backbone = open_model(config.model)
        if diverged := backbone.training.get("diverged"):
            announce(f"{config.model}: {diverged}, so training ended there; the best epoch is used")
        given = {"decoder": config.decoder or backbone.preprocessing.decoder}
    else:
        seed = config.seed or 0
        backbone = BackboneSpec(name=config.network, weights=config.start_weights, seed=seed)
    settings: dict[str, Any] = {
        "backbone": backbone,
        "model_backbone": config.backbone,
        "preprocessing": given,
        "batch_size": config.batch_size,
        "dtype": config.dtype,
        "precision": config.precision,
    }
    embedder = Embedder(**settings)
    settings["preprocessing"] = embedder.preprocessing  # as the driver's network has stated it
    return Network({**settings, "expect": embedder.spec.fingerprint}, embedder.spec)


def describe_input(
    preprocessing: Preprocessing, asked: EmbedConfig, config: EmbedConfig, seen: Index | None
) -> dict[str, Any]:
    """`describe_preprocessing` for the report; "index" is from what the index says.

    Args:
        preprocessing: What is used.
        asked: The settings as they were given.
        config: The settings with nothing left open.
        seen: The index as it was.
    """
    found = describe_preprocessing(preprocessing, asked.given_preprocessing, model=config.model)
    if seen is not None and not config.new_model:
        for name, value in config.given_preprocessing.items():
            if value is not None and found["from"][name] in ("default", "network"):
                found["from"][name] = "index"
    return found
