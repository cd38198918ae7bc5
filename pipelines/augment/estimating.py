"""What a run would do, for `--dry-run`: it lists, opens no photo and writes nothing."""

from __future__ import annotations

import pyarrow.compute as pc

from pipelines.augment.config import AugmentConfig
from pipelines.augment.output import SETTINGS, check_format, check_places, make_method
from pipelines.augment.plan import plan_classes
from pipelines.dry_run import Estimate, ResourceRequest, look_around
from pipelines.ray_runtime.cluster_options import Site
from pipelines.scan import presume_photos
from retrieval.storage import absolute_uri, file_exists, join

__all__ = ["estimate"]

# Ray's worker with the decoders, and a photo with its results.
_TASK_BYTES = 400_000_000


def estimate(photos: str, output: str, config: AugmentConfig, *, site: Site = Site()) -> Estimate:
    """What `run` would do, with the same arguments, if every labelled file is a good photo.

    Which results of an earlier run are kept, only the content of the photos tells: an output
    that is there counts as if it were empty. Whether it can be written is not tried.

    Raises:
        RetrievalError: as `run` does before it opens the first photo.
    """
    photos, output = absolute_uri(photos), absolute_uri(output)
    check_format(output)
    method = make_method(config, output)
    check_places(photos, output)
    scan = presume_photos(photos, config.labels, follow_links=config.follow_links)
    plans = plan_classes(
        scan.photos, config.labels, method, per_class=config.per_class, kind=config.format
    )
    num_results = sum(share.count for plan in plans for share in plan.shares)
    num_bytes = pc.sum(scan.photos["size_bytes"]).as_py()
    capacity = look_around(site)
    facts = {
        "photos": photos,
        "output": output,
        "recipe": config.recipe,
        "per_class": config.per_class,
        "num_listed": scan.num_listed,
        "num_unlabelled": scan.num_unlabelled,
        "num_classes": len(plans),
        "num_originals": scan.photos.num_rows,
        "num_augmented": num_results,
        "goes_on": file_exists(join(output, SETTINGS)),
        "num_to_hash": scan.photos.num_rows,
        "num_tasks": sum(len(plan.units()) for plan in plans),
    }
    return Estimate(
        facts=facts,
        read_bytes={"to_examine": num_bytes, "to_augment": num_bytes},
        write_bytes={"copies": num_bytes, "results": None},  # they hang on the pictures
        work=capacity.plan([ResourceRequest("tasks", None, 1, 0, _TASK_BYTES)]),
    )
