"""Waiting for what a job needs: nodes, which an autoscaler is asked for meanwhile, and actors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util import placement_group, remove_placement_group

from pipelines.progress import live_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.nodes import Node, Resources, present, usable
from retrieval.errors import ClusterError

__all__ = ["start_text", "wait_for_nodes"]

PATIENCE_S = 15 * 60  # a cloud brings a machine within minutes, and images take some to load
_POLL_S = 0.5
LONG_START_S = 30  # torch and a network are loaded by then


def wait_for_nodes(site: Site, *, can_grow: bool = True) -> None:
    """Return when the CPUs and GPUs that a site asks for are there. Needs a connected Ray.

    Args:
        site: What is asked for.
        can_grow: Whether nodes may join; not so where Ray is of this process alone.

    Raises:
        ClusterError: they did not come within 15 minutes; says what is there and what is missing.
    """
    nodes = present()
    if _has_all(site, nodes):
        return
    deadline = time.monotonic() + PATIENCE_S

    def text() -> str:
        return f"waiting for nodes: {_lacking(site, nodes)}"

    if can_grow:
        with _asked_for(site), live_line(text(), text):
            while not _has_all(site, nodes) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
                nodes = present()
    if not _has_all(site, nodes):
        raise ClusterError(_complaint(site, nodes, can_grow=can_grow))


def start_text(what: str, since: float, *, on_gpus: bool) -> str:
    """What to show while actors start, or wait for room to start in.

    Args:
        what: As "the workers".
        since: `time.monotonic()` when they were begun.
        on_gpus: Whether each books one: where it takes long, other jobs may hold them all.

    Returns:
        As "starting the workers, 40 s: 0 of 2 GPUs are free".
    """
    seconds = time.monotonic() - since
    text = f"starting {what}, {seconds:.0f} s"
    if on_gpus and seconds >= LONG_START_S:
        free, there = (
            found.get("GPU", 0) for found in (ray.available_resources(), ray.cluster_resources())
        )
        text += f": {free:g} of {there:g} GPUs are free"
    return text


@contextmanager
def _asked_for(site: Site) -> Iterator[None]:
    """Show an autoscaler what is needed, while the body runs; without one it is harmless.

    A placement group that waits for room is such a need. Ray takes it back by itself when this
    process ends in whatever way, where the need that `request_resources` tells stays until
    somebody tells another one; and Ray Data overwrites that one all the time.
    """
    bundles = [{"CPU": 1}] * site.min_cpus + [{"GPU": 1}] * site.min_gpus
    selectors = [dict(site.labels)] * len(bundles) if site.labels else None
    group = placement_group(bundles, strategy="PACK", bundle_label_selector=selectors)
    try:
        yield
    finally:
        remove_placement_group(group)
        # Until it has gone it books what the job's first tasks need.
        gone_by = time.monotonic() + 10
        while _is_booked(group) and time.monotonic() < gone_by:
            time.sleep(0.05)


def _is_booked(group: ray.util.placement_group.PlacementGroup) -> bool:
    return ray.util.placement_group_table(group).get("state") not in (None, "REMOVED")


def _has_all(site: Site, nodes: list[Node]) -> bool:
    found = usable(site, nodes)
    return found.num_cpus >= site.min_cpus and found.num_gpus >= site.min_gpus


def _lacking(site: Site, nodes: list[Node]) -> str:
    """As "3 of 16 CPUs, 0 of 2 GPUs with ray.io/accelerator-type=L4"."""
    found = usable(site, nodes)
    text = f"{found.num_cpus} of {site.min_cpus} CPUs"
    if site.min_gpus:
        text += f", {found.num_gpus} of {site.min_gpus} GPUs"
    return text + "".join(f" with {key}={value}" for key, value in site.labels.items())


def _complaint(site: Site, nodes: list[Node], *, can_grow: bool) -> str:
    lacking = _lacking(site, nodes)
    if not can_grow:
        return (
            f"Ray on this machine alone: {lacking}, and no other node can join it. Name a cluster "
            f"by `address`, or ask for less."
        )
    text = f"Ray: after {PATIENCE_S} s of waiting there are {lacking}. "
    if site.labels:
        text += f"{_labels_there(nodes)} "
    return text + (
        "Add workers, look at what the autoscaler says (ray status), or ask for less: `min_cpus`, "
        "`min_gpus`, `site.labels`."
    )


def _labels_there(nodes: list[Node]) -> str:
    """What `--node` could name; without the id that each node has of its own."""
    found = {
        f"{key}={value}"
        for node in Resources(tuple(nodes)).nodes
        for key, value in node.labels.items()
        if key != "ray.io/node-id"
    }
    return f"Labels there: {', '.join(sorted(found))}." if found else "No node there has a label."
