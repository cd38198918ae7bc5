"""Before the workers of a training connect: by which network interface, and with which GPU."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import psutil
import pytest
import ray
import torch

from pipelines.train.trainer import check_gpu, choose_interface
from retrieval.errors import ClusterError

ADDRESSES = {"lo": ["127.0.0.1"], "eth0": ["fe80::1", "10.0.0.7"], "eth1": ["10.1.0.7"]}


@pytest.fixture(autouse=True)
def interfaces(monkeypatch):
    found = {
        name: [SimpleNamespace(family=socket.AF_INET, address=address) for address in addresses]
        for name, addresses in ADDRESSES.items()
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "to be restored")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")


def at(monkeypatch, address):
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
    choose_interface()
    return os.environ.get("GLOO_SOCKET_IFNAME")


@pytest.mark.parametrize(
    ("address", "name"), [("10.0.0.7", "eth0"), ("127.0.0.1", "lo"), ("203.0.113.1", None)]
)
def test_it_is_that_of_the_nodes_address_if_there_is_one(monkeypatch, address, name):
    assert at(monkeypatch, address) == name


def test_a_users_own_choice_wins(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth1")
    assert at(monkeypatch, "10.0.0.7") == "eth1"


def test_a_worker_that_has_booked_a_gpu_needs_one(monkeypatch):
    check_gpu()  # it has booked none
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: ["0"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClusterError, match="offers GPUs, but torch finds none there"):
        check_gpu()
