"""Where a job runs: which cluster, which of its nodes, and how many it waits for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval.errors import UsageError

__all__ = ["Site"]

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([A-Za-z0-9.-]+/)?{_NAME}")
# Ray would read more into "!spot" or "in(a,b)"; a node's own labels are of this form.
_VALUE = re.compile(_NAME)


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

    address: str | None = None
    min_cpus: int = 1
    min_gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option, found, least in (
            ("`min_cpus`", self.min_cpus, 1),
            ("`min_gpus`", self.min_gpus, 0),
        ):
            if found < least:
                raise UsageError(f"{option} {found}: at least {least} is needed.")
        for key, value in self.labels.items():
            if not (_KEY.fullmatch(key) and _VALUE.fullmatch(value)):
                raise UsageError(
                    f"`site.labels` {key}={value}: is no label of a Ray node. Use KEY=VALUE, such "
                    f"as ray.io/accelerator-type=L4; the value of letters, digits, '-', '_' and "
                    f"'.'."
                )

    @property
    def asks_for_nodes(self) -> bool:
        """Whether it asks for more than any one machine."""
        return bool(self.labels) or self.min_cpus > 1 or self.min_gpus > 0

    @property
    def label_options(self) -> dict[str, dict[str, str]]:
        """Keywords that keep a task or an actor of Ray on these nodes; none without labels."""
        return {"label_selector": dict(self.labels)} if self.labels else {}
