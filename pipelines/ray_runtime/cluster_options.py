"""Where a job runs: which cluster, which of its nodes, and how many it waits for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from retrieval.errors import UsageError
from retrieval.settings import MANY, setting

__all__ = ["Site", "parse_labels"]

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([A-Za-z0-9.-]+/)?{_NAME}")
# Ray would read more into "!spot" or "in(a,b)"; a node's own labels are of this form.
_VALUE = re.compile(_NAME)


def parse_labels(given: Sequence[str]) -> dict[str, str]:
    """Labels of Ray, each given as KEY=VALUE.

    Raises:
        ValueError: one is no label, or is given twice.
    """
    labels: dict[str, str] = {}
    for text in given:
        key, _, value = text.partition("=")
        if key in labels and labels[key] != value:
            raise ValueError(f"{key} is given twice; a node has one value of it.")
        labels[key] = value
    _check_labels(labels)
    return labels


def _check_labels(labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        if not (_KEY.fullmatch(key) and _VALUE.fullmatch(value)):
            raise UsageError(
                f"`site.labels` {key}={value}: is no label of a Ray node. Use KEY=VALUE, such as "
                f"ray.io/accelerator-type=L4; the value of letters, digits, '-', '_' and '.'."
            )


@dataclass(frozen=True)
class Site:
    """Where a job runs. Every job takes one, as its keyword `site`.

    Attributes:
        address: A cluster, as "ray://HOST:10001", "HOST:6379" or "auto". Default: that of
            RAY_ADDRESS, which `ray job submit` sets, or else a Ray of this process alone.
        min_cpus: CPUs that must be there before the job begins, at least 1.
        min_gpus: GPUs that must be there before it begins.
        labels: Labels of Ray that a node must carry to get any of the work, such as
            {"ray.io/accelerator-type": "L4"}.

    Raises:
        UsageError: a number is too small, or what is given is no label.
    """

    address: str | None = setting(
        None,
        "Ray cluster, such as auto or HOST:6379. [default: RAY_ADDRESS, or this machine alone]",
    )
    min_cpus: int = setting(
        1,
        "CPUs to wait for before the job begins; an autoscaler is asked for them.",
        numbers=MANY,
    )
    min_gpus: int = setting(0, "GPUs to wait for, alike.", numbers=replace(MANY, low=0))
    labels: Mapping[str, str] = setting(
        dict,
        "Work only on nodes with this Ray label, as in ray.io/accelerator-type=L4. May be given "
        "again.",
        name="node",  # some jobs have labels of their own
        shape="KEY=VALUE",
        parse=parse_labels,
        is_many=True,
    )

    def __post_init__(self) -> None:
        for option, found, least in (
            ("`min_cpus`", self.min_cpus, 1),
            ("`min_gpus`", self.min_gpus, 0),
        ):
            if found < least:
                raise UsageError(f"{option} {found}: at least {least} is needed.")
        _check_labels(self.labels)

    @property
    def asks_for_nodes(self) -> bool:
        """Whether it asks for more than any one machine."""
        return bool(self.labels) or self.min_cpus > 1 or self.min_gpus > 0

    @property
    def label_options(self) -> dict[str, dict[str, str]]:
        """Keywords that keep a task or an actor of Ray on these nodes; none without labels."""
        return {"label_selector": dict(self.labels)} if self.labels else {}
