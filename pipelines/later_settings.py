"""Settings that jobs got after the first release, and what files mean that do not have them.

Settings are compared: an unfinished training goes on, a model or a row of an experiment is
finished, where those of the file are those of now. A file that was written before there was an
option does not name it, and means what all did then. That value stands here and never changes;
the option's default may.

Who adds an option to `TrainConfig` or `AugmentConfig` adds it here. If nothing had that effect
before, its value here is the one that has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

__all__ = ["AUGMENT", "TRAIN", "Later", "comparable"]

Later: TypeAlias = Mapping[str, Any]  # name of an option → what all did before it

# Mean and deviation: None is those of ImageNet, as all networks had.
TRAIN: Final[Later] = {"mean": None, "std": None, "decoder": 1}
AUGMENT: Final[Later] = {"decoder": 1}


def comparable(settings: Mapping[str, Any], later: Later) -> dict[str, Any]:
    """Settings in the one form in which files of all releases agree.

    Args:
        settings: Of a config, or of a file.
        later: Options that came after the first release.

    Returns:
        The settings as JSON gives them back, without later ones that are as all were before, or
        None, which leaves them open: the hash of it is then that of the first release, too.

    Example:
        >>> comparable({"size": (3, 4), "decoder": 1}, {"decoder": 1})
        {'size': [3, 4]}
        >>> comparable({"size": (3, 4), "decoder": 2}, {"decoder": 1})
        {'size': [3, 4], 'decoder': 2}
    """
    plain: dict[str, Any] = json.loads(json.dumps({**settings}))
    known = json.loads(json.dumps({**later}))
    return {
        name: value
        for name, value in plain.items()
        if name not in known or value not in (None, known[name])
    }
