"""The token at the door: required beyond loopback, turned on where it exists, never shown."""

from __future__ import annotations

import pytest

from pipelines.ray_runtime import auth as tokens
from pipelines.ray_runtime.auth import admit, require_token, token_source
from retrieval.errors import ClusterError
from tests.pipelines.job_server import run_python

SECRET = "hush-" + "5" * 40
FAR = ["10.0.0.1:6379", "ray://head:10001", "http://10.0.0.1:8265", "[fd00::1]:6379", "0.0.0.0:1"]
NEAR = ["127.0.0.1:6379", "ray://localhost:10001", "http://127.8.8.8:8265", "[::1]:6379"]


@pytest.fixture
def turned_on(monkeypatch, tmp_path):
    """No token and no mode, whatever this machine has; a list that tells whether Ray was told."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    told = []
    # Ray reads its mode once in a process, and other tests use Ray in this one.
    monkeypatch.setattr(tokens, "_turn_on", lambda: told.append(True))
    return told


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "token"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("address", FAR)
def test_beyond_loopback_there_must_be_a_token(turned_on, address):
    with pytest.raises(ClusterError) as refused:
        require_token(address)
    assert str(refused.value) == (
        f"Ray {address}: there is no token, and beyond this machine's loopback anybody who reaches "
        "a Ray without one runs code on it. Set the cluster's token here and on every node: export "
        "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE, a file of mode 0600; `ray get-auth-token "
        "--generate` makes the first one, in ~/.ray/auth_token."
    )
    assert not turned_on


@pytest.mark.parametrize("address", NEAR)
def test_on_loopback_there_need_be_none(turned_on, address):
    require_token(address)
    assert not turned_on


@pytest.mark.parametrize("address", [FAR[0], NEAR[0]])
@pytest.mark.parametrize("where", ["variable", "named file", "file at home"])
def test_a_token_that_exists_is_used(turned_on, monkeypatch, file, tmp_path, address, where):
    if where == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    elif where == "named file":
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    else:
        (tmp_path / ".ray").mkdir()
        file.rename(tmp_path / ".ray" / "auth_token")
    require_token(address)
    assert turned_on


def test_a_mode_that_is_set_is_heeded(turned_on, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1: RAY_AUTH_MODE is token, but there is"):
        require_token("127.0.0.1:1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    require_token("127.0.0.1:1")
    assert not turned_on
    with pytest.raises(ClusterError, match=r"head:1: RAY_AUTH_MODE is disabled, and beyond"):
        require_token("head:1")
    monkeypatch.setenv("RAY_AUTH_MODE", "tokn")
    with pytest.raises(ClusterError, match=r"RAY_AUTH_MODE=tokn: no such mode\."):
        require_token("127.0.0.1:1")


def test_a_token_file_is_for_its_owner_alone(turned_on, monkeypatch, file, tmp_path, capsys):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert token_source() == str(file)
    assert capsys.readouterr().err == ""
    file.chmod(0o640)
    assert token_source() == str(file)
    assert capsys.readouterr().err == (
        f"{file}: others on this machine may read this token: chmod 600 {file}\n"
    )
    for wrong in (tmp_path / "missing", tmp_path / "empty"):
        (tmp_path / "empty").touch()
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong))
        with pytest.raises(ClusterError, match=r"PATH=.*: cannot be read, or is empty\."):
            token_source()


def test_where_no_ray_runs_auto_says_so(turned_on, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: None)
    with pytest.raises(ClusterError, match=r"^Ray auto: no Ray runs on this machine\."):
        admit("auto")


LOCAL = """
import functools, http.client, sys
import grpc, psutil, ray
from pipelines.ray_runtime.session import session
tell = functools.partial(print, file=sys.__stdout__)
def listeners():
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                yield connection.laddr
def over_http(host, port):
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", "/api/nothing")
    return connection.getresponse()
CALLS = ["NodeInfoGcsService/CheckAlive", "CoreWorkerService/PushTask",
         "ReporterService/GetTraceback", "NodeManagerService/RequestWorkerLease",
         "ObjectManagerService/Push"]
with session():
    ray.get(ray.remote(lambda: 1).remote())
    own = ray.util.get_node_ip_address()
    for address in set(listeners()):
        host = own if address.ip in ("::", "0.0.0.0") else address.ip
        try:
            answer = over_http(host, address.port)
            is_metrics = answer.read(7) == b"# HELP "
            tell("metrics" if is_metrics else f"http {answer.status}")
            continue
        except (http.client.HTTPException, OSError):
            pass
        with grpc.insecure_channel(f"{host}:{address.port}") as channel:
            for call in CALLS:
                try:
                    channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=5)
                    tell("let in", call)
                except grpc.RpcError as error:
                    tell(call, error.code().name)
"""


def test_a_ray_of_this_process_alone_answers_nobody_without_its_token(tmp_path):
    # Whatever the mode: Ray's ports are open to the network.
    done = run_python(LOCAL, HOME=str(tmp_path), RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    said = set(done.stdout.splitlines())
    refused = {line.split()[0] for line in said if line.endswith("UNAUTHENTICATED")}
    assert len(refused) == 5, said  # each service of Ray's, at some port
    assert "http 401" in said
    # Metrics are for Prometheus, which has no token; they run nothing.
    others = said - {f"{call} UNAUTHENTICATED" for call in refused} - {"http 401", "metrics"}
    assert all(line.endswith("UNIMPLEMENTED") for line in others), others
