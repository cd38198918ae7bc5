"""A wrong address of a cluster is told within seconds, before the job is loaded."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.ray_runtime import cluster_options as ray_address
from pipelines.ray_runtime.cluster_options import check_port
from retrieval.errors import ClusterError

VERBS = {
    "embed": ["embed", "photos", "index"],
    "train": ["train", "photos", "model"],
    "augment": ["augment", "photos", "output"],
    "rank": ["rank", "a", "b", "c"],
    "reindex": ["reindex", "photos", "index"],
    "experiment": ["experiment", "photos", "output"],
}
NO_ADDRESSES = ["head", "http://127.0.0.1:8265", "https://head:8265", "127.0.0.1", "head:", ":6379"]
NO_ADDRESSES += ["ray://head", "127.0.0.1:6379/", "head:70000", "127.0.0.1:-1", "Auto"]


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_of_a_cluster_is_told_with_those_that_are(address):
    with pytest.raises(ClusterError, match=r": is no address of a cluster\. Use HOST:6379, ray://"):
        check_port(address)


@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize("command", VERBS.values(), ids=VERBS.keys())
def test_each_command_tells_it_before_it_loads_its_job(command, by, monkeypatch):
    monkeypatch.setattr("builtins.__import__", _refuse_jobs(__import__))
    given = ["--address", "127.0.0.1:1"] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    result = CliRunner().invoke(main, [*command, *given])
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: Ray 127.0.0.1:1: nobody answers there (Connection ref")
    assert result.stderr.count("\n") == 1


def _refuse_jobs(load):
    def only_what_is_light(name, *rest, **settings):
        assert name.partition(".")[0] not in ("torch", "ray", "pyarrow"), name
        return load(name, *rest, **settings)

    return only_what_is_light


def test_a_host_that_says_nothing_and_a_name_that_nobody_knows_take_seconds(monkeypatch):
    monkeypatch.setattr(ray_address, "_TIMEOUT_S", 0.1)
    is_over = threading.Event()

    def never(*_):
        is_over.wait(60)
        raise OSError("the test is over")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"Ray head:6379: nobody answers there \(timed out\)"):
        check_port("head:6379")
    assert time.monotonic() - start < 10
    is_over.set()


def test_a_name_that_no_host_can_have_is_told():
    with pytest.raises(ClusterError, match=r"nobody answers there .*label"):
        check_port(f"{'a' * 100}.example:6379")


def test_who_listens_is_found_by_every_form():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"localhost:{port}"):
            check_port(address)
    check_port("auto")
    check_port("local")
