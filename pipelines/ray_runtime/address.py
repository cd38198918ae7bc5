"""Is anybody there? Asked without loading Ray, which takes a second."""

from __future__ import annotations

import socket
import threading

from retrieval.errors import ClusterError

_WORDS = ("auto", "local")
_FORMS = (
    "Use HOST:6379, ray://HOST:10001 from outside the cluster, or auto; http://HOST:8265 is for "
    "`submit`."
)
_TIMEOUT_S = 4.0  # a packet that was lost is sent again after 1 s, and after 3 s

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
