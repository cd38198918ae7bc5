"""Convolutions joined with what follows them, by operators of oneDNN that torch's compiler uses.

ReLU, and the sum that closes a residual block, cost a pass over memory each where they run by
themselves. Milliseconds a photo of 224 pixels on a core with AMX, in bfloat16, passes of 8:

                                    resnet18    resnet50
    one by one, passes of 32           7.7        27.4
    one by one                         6.7        18.5
    joined                             5.0        11.8
    compiled (torch.compile)           5.3

The operators are torch's own, and not public: `QuickNetwork` compares their answers with those of
the network as it is, and does without them where they are missing.
"""

from __future__ import annotations

import operator
from typing import TypeGuard

import torch
from torch import Tensor, fx, nn

__all__ = ["join_convolutions"]

_SUMS = (operator.add, operator.iadd, torch.add)
_RELUS = (torch.relu, nn.functional.relu)


def join_convolutions(network: fx.GraphModule) -> fx.GraphModule:
    """Put sums and ReLUs into the convolutions before them; in place.

    Args:
        network: Folded, for a CPU, in its final type and in the memory layout channels_last.

    Returns:
        The same module; its first call lays the weights out for oneDNN.
    """
    for node in list(network.graph.nodes):
        if _is_relu(network, node):
            _join(network, node)
    for node in list(network.graph.nodes):
        module = _module_of(network, node)
        if _is_plain(module):
            _put(network, node, _Convolution(module, relu=False), node.args)
        elif isinstance(module, nn.MaxPool2d) and _ends_in_relu(network, node.args[0]):
            _put(network, node, _MaxPool(module), node.args)
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    return network


class _Convolution(nn.Module):
    """A convolution; with another tensor its sum with that, which takes its place; ReLU."""

    def __init__(self, plain: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self._weight, self._bias = plain.weight.detach(), plain.bias
        self._geometry = (plain.padding, plain.stride, plain.dilation, plain.groups)
        self.ends_in_relu = relu
        self._last = "relu" if relu else "none"
        self._is_packed = False

    def forward(self, images: Tensor, other: Tensor | None = None) -> Tensor:
        if not self._is_packed:  # with the first photos, since the layout depends on their size
            size = list(images.shape)
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, *self._geometry, size
            )
            self._is_packed = True
        convolution = (images, self._weight, self._bias, *self._geometry)
        found: Tensor
        if other is None:
            found = torch.ops.mkldnn._convolution_pointwise(*convolution, self._last, [], "")
        else:
            found = torch.ops.mkldnn._convolution_pointwise_.binary(
                other, *convolution, "add", 1.0, self._last, [], ""
            )
        return found


class _MaxPool(nn.Module):
    """Of what a ReLU gave: numbers of 16 bits that are not negative are in the order of their bits.

    torch pools integers three times as fast as bfloat16: 0.4 ms instead of 1.1 ms a photo.
    """

    def __init__(self, plain: nn.MaxPool2d) -> None:
        super().__init__()
        self._plain = plain

    def forward(self, images: Tensor) -> Tensor:
        if images.element_size() != 2:
            return self._plain(images)
        return self._plain(images.view(torch.int16)).view(images.dtype)


def _join(network: fx.GraphModule, relu: fx.Node) -> None:
    """Replace a ReLU, and a convolution or a sum with one before it, by one operator."""
    before = relu.args[0]
    if not isinstance(before, fx.Node) or len(before.users) > 1:
        return
    module = _module_of(network, before)
    if _is_plain(module):
        _put(network, relu, _Convolution(module, relu=True), before.args)
        network.graph.erase_node(before)
        return
    if before.op != "call_function" or before.target not in _SUMS or len(before.args) != 2:
        return
    for plain, other in (before.args, before.args[::-1]):
        if not isinstance(plain, fx.Node) or not isinstance(other, fx.Node):
            continue
        if other is plain or other in plain.all_input_nodes:  # would be read while written
            continue
        module = _module_of(network, plain)
        if _is_plain(module) and _may_move(network, plain) and _may_overwrite(network, other, relu):
            _put(network, relu, _Convolution(module, relu=True), (*plain.args, other))
            network.graph.erase_node(before)
            network.graph.erase_node(plain)
            return


def _may_move(network: fx.GraphModule, convolution: fx.Node) -> bool:
    """Whether it may run later: nobody else has its answer, or writes into what it reads."""
    if len(convolution.users) > 1:
        return False
    readers = [node for given in convolution.all_input_nodes for node in given.users]
    return not any(
        isinstance(_module_of(network, node), _Convolution)
        and node.args[1:] == convolution.args[:1]
        for node in readers
    )


def _may_overwrite(network: fx.GraphModule, tensor: fx.Node, end: fx.Node) -> bool:
    """Whether nobody wants a tensor after `end`, nor another one in the same memory."""
    place = {node: number for number, node in enumerate(network.graph.nodes)}
    others = [user for user in tensor.users if user not in end.all_input_nodes]  # beside the sum
    return all(
        isinstance(_module_of(network, node), nn.Conv2d | nn.MaxPool2d | _Convolution)
        and place[node] < place[end]
        for node in (tensor, *others)
    )


def _put(network: fx.GraphModule, node: fx.Node, module: nn.Module, args: object) -> None:
    """Let a new module take the place of a node."""
    name = f"joined_{node.name}"
    network.add_module(name, module)
    with network.graph.inserting_before(node):
        new = network.graph.create_node("call_module", name, args)  # type: ignore[arg-type]
    node.replace_all_uses_with(new)
    network.graph.erase_node(node)


def _module_of(network: fx.GraphModule, node: object) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        return network.get_submodule(str(node.target))
    return None


def _is_plain(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether oneDNN's operator can do what it does: zeros around, as many as are told."""
    return (
        isinstance(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _is_relu(network: fx.GraphModule, node: fx.Node) -> bool:
    is_function = node.op == "call_function" and node.target in _RELUS
    return is_function or isinstance(_module_of(network, node), nn.ReLU)


def _ends_in_relu(network: fx.GraphModule, node: object) -> bool:
    module = _module_of(network, node)
    return isinstance(module, _Convolution) and module.ends_in_relu
