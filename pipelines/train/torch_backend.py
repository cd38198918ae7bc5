"""What is seen to before torch connects the workers: their GPUs, and where they meet.

They meet by the addresses by which Ray's nodes do. On CPUs torch uses gloo, which listens where the
name of its machine leads to. On many machines that is 127.0.0.1 or 127.0.1.1 (Debian's /etc/hosts),
and workers of two machines would never meet.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import ray
import torch
from ray.train.torch import TorchConfig

from pipelines.ray_runtime.nodes import no_gpu_found

if TYPE_CHECKING:
    from ray.train._internal.base_worker_group import BaseWorkerGroup

__all__ = ["ConnectionConfig"]


class ConnectionConfig(TorchConfig):
    """Ray Train's own configuration of torch, on the interface of the node's address."""

    @property
    def backend_cls(self) -> type:
        """What Ray Train makes to connect the workers."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:
        worker_group.execute(check_gpu)
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


def check_gpu() -> None:
    """Raise ClusterError where this worker has booked a GPU that torch does not find."""
    if ray.get_gpu_ids() and not torch.cuda.is_available():
        raise no_gpu_found()


def choose_interface() -> None:
    """Name gloo the interface with this node's address; a user's own choice wins."""
    address = ray.util.get_node_ip_address()
    for name, found in psutil.net_if_addrs().items():
        if any(one.address == address for one in found):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
