"""Multiply the photos of each class by augmentation.

Reads       every labelled photo once to examine it, and once more to work on it.
Writes      the photos themselves, byte for byte, and their results, as class folders or as
            Parquet; a contact sheet. Beside them, hidden in `.augmented`: the settings, the
            rejects, and last the manifest, one row an image with the photo that it was made of.
Resources   one CPU a task, which takes a few photos at a time and writes what it makes. Memory
            does not grow with the number of photos, but for their listing and the manifest.
Resume      a killed run has no manifest; run it again. What is finished is kept, and what is
            there in the end is the same to the byte. With other settings or photos, only
            the classes that this changes are made anew; what belongs to none is removed.
Fails when  no photo can be read, the output cannot be written, a photo changes meanwhile, or a
            class cannot be brought to the wanted number; the rest is kept then.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from pipelines.augment.config import AugmentConfig
from pipelines.augment.output import (
    REJECTS,
    AugmentReport,
    check_format,
    check_places,
    finished_parts,
    make_method,
    read_parts,
    remove_others,
    sheet_path,
)
from pipelines.augment.plan import ClassPlan, check_names, plan_classes
from pipelines.augment.worker import Augment, Part, encode_table
from pipelines.metrics import Laps
from pipelines.progress import progress_line, status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.counter import Tally
from pipelines.ray_runtime.session import quiet_data, session
from pipelines.scan import Scan, list_labelled, scan_photos
from retrieval.augmentations.contact_sheet import contact_sheet
from retrieval.augmentations.manifest import AUGMENT_FORMAT, AUGMENTED, MANIFEST, SETTINGS
from retrieval.augmentations.multiplying import Method, reduced_picture
from retrieval.augmentations.quality_filter import Verdict
from retrieval.errors import ImageError, RetrievalError, StorageError, UsageError
from retrieval.format_version import FORMAT_VERSION
from retrieval.images.fetch import fetch_photo
from retrieval.storage import (
    absolute_uri,
    check_writable,
    join,
    remove_written,
    write_bytes,
)

__all__ = ["AugmentConfig", "run"]


def run(
    photos: str,
    output: str,
    config: AugmentConfig,
    say: Callable[[str], None],
    *,
    site: Site = Site(),
) -> AugmentReport:
    """Bring each class to the wanted number of images.

    Args:
        photos: Folder or address of the photos.
        output: Folder or address of the result; an earlier result is replaced.
        config: Settings.
        say: Called with one line for each thing that a person should know but that stops
            nothing.
        site: Where it runs.

    Returns:
        The report: counts, where things are, seconds of each step.

    Raises:
        RetrievalError: see the head of this module.
    """
    laps = Laps()
    photos, output = absolute_uri(photos), absolute_uri(output)
    check_format(output)
    method = make_method(config, output)
    check_places(photos, output)
    check_writable(output)
    listed = list_labelled(photos, config.labels, follow_links=config.follow_links)
    check_names(listed[0], config.labels)
    with session(site):
        laps.end("start_ray")
        scan = scan_photos(
            photos,
            config.labels,
            size=config.size,
            decoder=method.decoder,
            site=site,
            listed=listed,
        )
        for label in scan.empty_classes:
            say(f"{photos}: class {label!r} has no readable photo and is left out")
        laps.end("scan")
        plans = plan_classes(
            scan.photos, config.labels, method, per_class=config.per_class, kind=config.format
        )
        _write_settings(photos, output, config, method)
        kept = _tidy(output, plans, config.format)
        laps.end("plan")
        parts = _make_all(output, plans, kept, Augment(output, method, config.format), site)
        laps.end("augment")
    laps.end("stop_ray")
    sheet = _write_sheet(output, plans[0].photos[0], config, method.decoder)
    rejects = _write_rejects(output, scan)
    manifest = _write_manifest(output, parts.values(), scan.photos.num_rows)
    laps.end("finish")
    if method.num_techniques:
        _check_numbers(output, config, manifest)
    num_new = sum(part.rows.num_rows for unit, part in parts.items() if unit not in kept)
    return AugmentReport(
        output=output,
        recipe=config.recipe,
        per_class=config.per_class,
        num_listed=scan.num_listed,
        num_rejected=scan.rejects.num_rows,
        reject_reasons=scan.reject_reasons,
        rejects=rejects,
        num_unlabelled=scan.num_unlabelled,
        num_classes=len(plans),
        empty_classes=list(scan.empty_classes),
        num_originals=scan.photos.num_rows,
        num_augmented=manifest.num_rows - scan.photos.num_rows,
        num_reused=manifest.num_rows - num_new,
        num_dropped=_count_dropped(parts.values()),
        contact_sheet=sheet,
        manifest=join(output, MANIFEST),
        images_per_s=_rate(num_new, laps.seconds["augment"]),
        seconds=laps.seconds,
    )


def _rate(num: int, seconds: float) -> float | None:
    """Images a second; None where none was made."""
    return round(num / max(seconds, 0.001), 1) if num else None


def _write_settings(photos: str, output: str, config: AugmentConfig, method: Method) -> None:
    """Before any other file: it tells that the folder is ours."""
    settings = {"photos": photos, **asdict(config), "method": method.to_json()}
    settings = {FORMAT_VERSION: AUGMENT_FORMAT, **settings}
    write_bytes(join(output, SETTINGS), (json.dumps(settings, indent=2) + "\n").encode())


def _tidy(output: str, plans: Sequence[ClassPlan], kind: str) -> dict[str, Part]:
    """What is finished already; the rest of the output is removed."""
    with status_line(f"looking for what is finished in {output}"):
        kept = finished_parts(output, {plan.key for plan in plans})
        ids = {photo["image_id"] for plan in plans for photo in plan.photos}
        remove_others(output, kept, ids, kind)
    return kept


def _make_all(
    output: str, plans: Sequence[ClassPlan], kept: Mapping[str, Part], augment: Augment, site: Site
) -> dict[str, Part]:
    """Make what is not kept, round by round, until each class has its number or can no more."""
    parts: dict[str, Part] = {}
    while plans:
        units = {name: unit for plan in plans for name, unit in plan.units().items()}
        missing = {name: unit for name, unit in units.items() if name not in kept}
        if missing:
            remove_written(output, [MANIFEST])  # it vouches for the whole
            _make(list(missing.values()), augment, site)
        made = {**kept, **_parts_of(output, missing)}
        given: Counter[str] = Counter()
        for name in units:
            parts[name] = made[name]
            given.update(made[name].count_results())
        plans = [later for plan in plans if (later := plan.next_round(given))]
    return parts


def _parts_of(output: str, units: Collection[str]) -> dict[str, Part]:
    """The parts of units that have just been made."""
    found = read_parts(output, units)
    parts = {name: part for name, part in found.items() if part}
    if len(parts) < len(found):
        raise StorageError(
            f"{output}: {len(found) - len(parts)} of {len(found)} files that this run has written "
            f"to {AUGMENTED}/parts are gone. Let no other run write there; run this one again."
        )
    return parts


def _make(units: Sequence[pa.Table], augment: Augment, site: Site) -> None:
    """Make units on the cluster, one a task."""
    num_images = sum(
        pc.sum(unit["count"]).as_py() + pc.sum(unit["is_copied"]).as_py() for unit in units
    )
    tally = Tally(num_images)
    quiet_data(site)
    dataset = ray.data.from_blocks(list(units)).map_batches(
        augment,
        fn_args=(tally,),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
    )

    with progress_line("augmented", "images", num_images, tally.counts):
        for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            pass


def _write_sheet(output: str, photo: Mapping[str, Any], config: AugmentConfig, decoder: int) -> str:
    """The first photo of the first class under every technique."""
    uri = join(output, sheet_path(config.format))
    content = fetch_photo(photo["uri"])
    if isinstance(content, ImageError):
        raise StorageError(
            f"{photo['uri']}: could be read when this run began, but no more ({content.message})."
            f" Put it back or remove it, and run the same command again: what is finished is kept."
        )
    picture = reduced_picture(content, config.size, decoder)
    write_bytes(uri, contact_sheet(picture, config.seed, photo["source_id"]))
    return uri


def _write_rejects(output: str, scan: Scan) -> str | None:
    uri = join(output, REJECTS)
    if not scan.rejects.num_rows:
        remove_written(output, [REJECTS])
        return None
    write_bytes(uri, encode_table(scan.rejects))
    return uri


def _write_manifest(output: str, parts: Collection[Part], num_originals: int) -> pa.Table:
    manifest = pa.concat_tables([part.rows for part in parts]).sort_by("image_id")
    found = manifest["technique"].null_count
    if found != num_originals:
        raise RetrievalError(
            f"{output}: {num_originals} photos were to be copied, but {found} are. This is a "
            f"defect of the job; there is no manifest."
        )
    write_bytes(join(output, MANIFEST), encode_table(manifest))
    return manifest


def _check_numbers(output: str, config: AugmentConfig, manifest: pa.Table) -> None:
    """Raise UsageError, after all has been written, if a class has fewer than wanted."""
    counts = Counter(manifest["label"].to_pylist())
    short = {label: count for label, count in counts.items() if count < config.per_class}
    if not short:
        return
    label = min(short, key=lambda name: (short[name], name))
    raise UsageError(
        f"`per_class` {config.per_class}: class {label!r} has only {short[label]} images, since "
        f"more by recipe {config.recipe!r} would be near copies or destroyed; {len(short)} of "
        f"{len(counts)} classes {'falls' if len(short) == 1 else 'fall'} short. All are kept and "
        f"listed in {join(output, MANIFEST)}. Use `per_class` {short[label]}, add photos, or "
        f"choose a recipe that varies more."
    )


def _count_dropped(parts: Collection[Part]) -> dict[str, Any]:
    """How many results were dropped: for each reason, and by technique."""
    dropped = sum((Counter(part.dropped) for part in parts), Counter[str]())
    of_verdict = {verdict.value: 0 for verdict in (Verdict.NEAR_COPY, Verdict.DESTROYED)}
    of_technique: Counter[str] = Counter()
    for name, count in dropped.items():
        technique, _, verdict = name.partition("/")
        of_verdict[verdict] += count
        of_technique[technique] += count
    return {**of_verdict, "by_technique": dict(of_technique.most_common())}
