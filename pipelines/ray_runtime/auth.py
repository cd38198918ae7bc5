"""The token at the door: Ray runs the code of whoever reaches it, so a token must prove them."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path

from pipelines.progress import announce
from pipelines.ray_runtime.cluster_options import check_port, host_of
from retrieval.errors import ClusterError

__all__ = ["admit", "is_loopback", "refusal", "require_token", "token_source"]

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_DEFAULT_FILE = Path("~/.ray/auth_token")
_KNOCK_S = 10.0
_HOW = (
    f"Set the cluster's token here and on every node: export {_MODE}=token {_PATH}=FILE, a file of "
    "mode 0600; `ray get-auth-token --generate` makes the first one, in ~/.ray/auth_token."
)


def admit(address: str) -> None:
    """Check in seconds that a cluster may be used, and that it lets us in.

    Args:
        address: As for ray.init: "HOST:6379", "ray://HOST:10001", "auto" or "local".

    Raises:
        ClusterError: no token where one is needed, nobody listens, or the token is refused.
    """
    if address == "local":
        return
    place = _resolved(address)
    require_token(place)
    check_port(place)
    _knock(place)


def require_token(address: str) -> None:
    """Turn the token on where there is one; beyond this machine's loopback there must be.

    Sets RAY_AUTH_MODE=token, for this process and those that it starts, where a token exists and
    the mode is not set: Ray itself does so for some addresses only.

    Args:
        address: A host and port with or without a scheme; only the host counts.

    Raises:
        ClusterError: there is no token, or the mode is "disabled", and the address is not loopback;
            or the mode is "token" and there is none.
    """
    source, mode = token_source(), os.environ.get(_MODE, "").lower()
    if mode not in ("", "token", "disabled"):
        raise ClusterError(f"{_MODE}={mode}: no such mode. {_HOW}")
    if mode == "token" or (source and not mode):
        if not source:
            raise ClusterError(f"Ray {address}: {_MODE} is token, but there is no token. {_HOW}")
        _turn_on()
    elif not is_loopback(host_of(address)):
        found = f"{_MODE} is disabled" if mode else "there is no token"
        raise ClusterError(
            f"Ray {address}: {found}, and beyond this machine's loopback anybody who reaches a Ray "
            f"without one runs code on it. {_HOW}"
        )


def refusal(address: str) -> ClusterError:
    """What to tell where Ray does not take our token, or misses one."""
    source = token_source()
    found = f"refuses the token of {source}" if source else "asks for a token, and there is none"
    return ClusterError(f"Ray {address}: {found}. {_HOW}")


def token_source() -> str | None:
    """Where Ray finds a token, in words and never the token itself; None if there is none.

    Raises:
        ClusterError: RAY_AUTH_TOKEN_PATH names no file, or an empty one.
    """
    if os.environ.get(_TOKEN):
        return _TOKEN
    named = os.environ.get(_PATH)
    file = Path(named) if named else _DEFAULT_FILE.expanduser()
    try:
        is_there, mode = bool(file.read_text().strip()), file.stat().st_mode
    except OSError:
        is_there, mode = False, 0
    if named and not is_there:
        raise ClusterError(f"{_PATH}={named}: cannot be read, or is empty. {_HOW}")
    if is_there and mode & (stat.S_IRWXG | stat.S_IRWXO):
        announce(f"{file}: others on this machine may read this token: chmod 600 {file}")
    return str(file) if is_there else None


def is_loopback(host: str) -> bool:
    """Whether only this machine can mean this host.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.9", "::1", "localhost", "10.0.0.1", "head")]
        [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _turn_on() -> None:
    os.environ[_MODE] = "token"
    from ray._private.authentication.authentication_token_setup import _enable_token_auth
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    if not is_token_auth_enabled():  # Ray was imported, and has read its environment, before
        _enable_token_auth()


def _resolved(address: str) -> str:
    """HOST:PORT of the cluster that ray.init would take."""
    if address != "auto":
        return address
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address(address))
    except ConnectionError as error:
        raise ClusterError(
            "Ray auto: no Ray runs on this machine. Start one with `ray start --head`, name a "
            "cluster as HOST:6379, or leave `address` out."
        ) from error


def _knock(place: str) -> None:
    """Let a wrong token be known at once: ray.init would try for 20 s and not name the reason."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    # Any call that exists will do: the token is looked at before the request.
    is_client = place.startswith("ray://")
    call = "RayletDriver/ClusterInfo" if is_client else "NodeInfoGcsService/CheckAlive"
    with init_grpc_channel(place.removeprefix("ray://")) as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=_KNOCK_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise refusal(place) from None
