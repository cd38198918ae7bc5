"""Is anybody there? Asked without loading Ray, which takes a second."""

from __future__ import annotations

import socket

from retrieval.errors import ClusterError

__all__ = ["check_port", "host_of"]


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
        ClusterError: nobody listens at this address of a Ray cluster.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ClusterError(
            f"Ray {address}: nobody answers there ({error.strerror or error}). Check the address: "
            f"HOST:6379, or ray://HOST:10001 from outside the cluster."
        ) from error
