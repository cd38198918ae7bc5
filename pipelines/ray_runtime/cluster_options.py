"""Where a job runs: which cluster, which of its nodes, how many it waits for; is anybody there?

Asked without loading Ray, which takes a second.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from retrieval.errors import ClusterError, UsageError
from retrieval.settings import MANY, setting

__all__ = ["Site", "check_port", "host_of", "parse_labels"]

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
    def has_cluster(self) -> bool:
        """Whether there is a cluster: named here or by RAY_ADDRESS, or connected already."""
        # Ray is not imported for this: it takes as long as ranking a small gallery.
        ray = sys.modules.get("ray")
        is_connected = ray is not None and ray.is_initialized()
        return bool(self.address or os.environ.get("RAY_ADDRESS") or is_connected)

    @property
    def asks_for_nodes(self) -> bool:
        """Whether it asks for more than any one machine."""
        return bool(self.labels) or self.min_cpus > 1 or self.min_gpus > 0

    @property
    def label_options(self) -> dict[str, dict[str, str]]:
        """Keywords that keep a task or an actor of Ray on these nodes; none without labels."""
        return {"label_selector": dict(self.labels)} if self.labels else {}


_WORDS = ("auto", "local")
_FORMS = (
    "Use HOST:6379, ray://HOST:10001 from outside the cluster, or auto; http://HOST:8265 is for "
    "`submit`."
)
_TIMEOUT_S = 4.0  # a packet that was lost is sent again after 1 s, and after 3 s


def host_of(address: str) -> str:
    """The host of an address, with or without a scheme and a port.

    Example:
        >>> [host_of(a) for a in ("ray://head:10001", "http://[::1]:8265/", "10.0.0.1:6379", "a")]
        ['head', '::1', '10.0.0.1', 'a']
    """
    host = address.rpartition("://")[2].partition("/")[0]
    if not host.endswith("]"):
        host = host.rpartition(":")[0] or host
    return host.strip("[]")


def check_port(address: str) -> None:
    """Fail in seconds where nobody listens; ray.init would try for minutes.

    Raises:
        ClusterError: nobody listens at this address of a Ray cluster, or it is none.
    """
    if address in _WORDS:
        return
    if "@" in address or "?" in address:
        raise ClusterError(
            "Ray: no user, password or token belongs into the address of a cluster; it would get "
            "into logs. Ray takes the token of RAY_AUTH_TOKEN_PATH."
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if "://" in host or "/" in port or not (host and port.isdigit() and int(port) < 2**16):
        raise ClusterError(f"Ray {address}: is no address of a cluster. {_FORMS}")
    try:
        _connect(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"Ray {address}: nobody answers there ({reason}). Check the address: "
            f"HOST:6379, or ray://HOST:10001 from outside the cluster."
        ) from error


def _connect(host: str, port: int) -> None:
    """Connect and go; looking up a name takes as long as the system's resolver wants."""
    found: list[Exception] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_S + 1)
    if thread.is_alive():
        raise TimeoutError("timed out")
    if found:
        raise found[0]
