"""What has become of the photos since a model was trained on them, by their names and sizes."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.scan import presume_photos
from pipelines.train.config import TrainConfig
from pipelines.train.publishing import read_split
from retrieval.errors import RetrievalError

__all__ = ["say_changes"]


def say_changes(photos: str, model: str, config: TrainConfig, say: Callable[[str], None]) -> None:
    """Say a line where photos were added, are gone, or have another size; opens none of them.

    None where it cannot be told: the folder of photos may be gone by now.

    Cost: lists the folders.
    """
    try:
        split = read_split(model)
        scans = [
            presume_photos(folder, config.labels, follow_links=config.follow_links)
            for folder in (photos, config.validation_folder)
            if folder is not None
        ]
    except RetrievalError:
        return
    uris, sizes = (split.photos[name].to_pylist() for name in ("uri", "size_bytes"))
    before = dict(zip(uris, sizes, strict=True))
    now = {
        uri: size
        for scan in scans
        for uri, size in zip(
            scan.photos["uri"].to_pylist(), scan.photos["size_bytes"].to_pylist(), strict=True
        )
    }
    counts = {
        "added": len(now.keys() - before.keys() - set(split.rejects["uri"].to_pylist())),
        "gone": len(before.keys() - now.keys()),
        "changed": sum(now.get(uri, size) != size for uri, size in before.items()),
    }
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if found:
        say(
            f"{model}: is a model of the photos as they were ({found} since). For one of those of "
            f"now, train in another folder"
        )
