"""A network made quick for inference: folded, in half precision, compiled.

Photos a second by steps, resnet18 / resnet50 at 224 pixels on two cores with AVX-512 BF16, taken
once by hand: as torchvision gives it 35 / 10; batch normalisation folded, channels_last 50 / 18;
bfloat16 98 / 38; compiled 105 / 46. There a matrix product alone has 183 GFLOP/s in float32 and
408 in bfloat16, which are 50 and 112 photos of resnet18. With AMX the products are so fast that
what lies between them counts; `fusion` has those figures.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from retrieval.choices import PRECISIONS
from retrieval.errors import UsageError
from retrieval.models.fusion import join_convolutions
from retrieval.storage import first_line

Network: TypeAlias = Callable[[Tensor], Tensor]

__all__ = ["PRECISIONS", "QuickNetwork", "agreement", "choose_dtype"]

# Least cosine between a photo's features from the quick network and from the network as it is.
_AGREES = 0.999
# Photos of the first forward pass that are compared, at most.
_NUM_COMPARED = 16
# Compiling takes 7 to 30 s, or 3 s where the compiled code is kept from a run before, and saves
# 5 % (resnet18) to 20 % (resnet50) of a forward pass whose convolutions are not joined with what
# follows them; nothing of one whose are.
_COMPILING_PAYS_S = 100


class QuickNetwork:
    """A network that answers as another one does, sooner. Several threads may call it.

    Its answers to photos of the first batch are compared with those of the network as it is, in
    float32; where the cosine of one is below 0.999, the latter is used from the start.

    Attributes:
        manner: In words, how it computes.
    """

    def __init__(
        self, network: nn.Module, *, precision: str = "auto", is_own: bool, num_photos: int = 0
    ) -> None:
        """Prepare; all work is left to the first batch.

        Args:
            network: From (B, 3, S, S) float32 to (B, D), in evaluation mode, on its device.
            precision: One of PRECISIONS.
            is_own: Whether it is somebody's own: such a one may do anything, so it is neither
                folded nor compiled, and keeps float32 where no precision is named.
            num_photos: That one thread will ask for. For many of them it is compiled.

        Raises:
            UsageError: another precision.
        """
        if precision not in PRECISIONS:
            raise UsageError(f"precision={precision!r}: none of {', '.join(PRECISIONS)}.")
        self._plain = network
        self._is_own = is_own
        self._precision = "float32" if is_own and precision == "auto" else precision
        self._num_photos = num_photos
        self._quick: Network | None = None
        self._dtype = torch.float32
        self._choosing = threading.Lock()
        self.manner = ""

    def __call__(self, images: Tensor) -> Tensor:
        """Features, float32 (B, D), of normalised float32 images (B, 3, S, S)."""
        with self._choosing:
            if self._quick is None:
                self._quick, self._dtype, self.manner = self._choose(images)
        features: Tensor = self._quick(images.to(self._dtype)).float()
        if self._dtype != torch.float32 and not features.isfinite().all():
            features = self._plain(images).float()  # float16 ends at 65504
        return features

    def _choose(self, images: Tensor) -> tuple[Network, torch.dtype, str]:
        """The network to use, its type, and the manner in words."""
        dtype = choose_dtype(self._precision, images.device)
        name = str(dtype).removeprefix("torch.")
        if self._is_own and dtype == torch.float32:
            return self._plain, dtype, name
        inputs, expected = images.to(dtype), self._plain(images[:_NUM_COMPARED])
        if images.device.type == "cpu" and not self._is_own:
            joined = _joined(_quicken(self._plain, dtype, is_folded=True), inputs, expected)
            if joined is not None:
                return joined, dtype, name
        quick = _quicken(self._plain, dtype, is_folded=not self._is_own)
        found, seconds = _timed(quick, inputs[:_NUM_COMPARED])
        cosine = agreement(found, expected)
        if not cosine >= _AGREES:
            remark = f"float32 (not {name}: a photo's features had a cosine of {cosine:.4f})"
            return self._plain, torch.float32, remark
        if images.device.type == "cuda":  # where the first calls load the kernels
            seconds = min(_timed(quick, inputs)[1] for _ in range(2))
        if self._is_own or seconds * self._num_photos <= _COMPILING_PAYS_S:
            return quick, dtype, name
        compiled, remark = _compiled(quick, inputs, expected)
        return compiled, dtype, f"{name}, {remark}"


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type in which a network computes.

    Args:
        precision: One of PRECISIONS. "auto" is float16 on a GPU (as fast as bfloat16, and eight
            times as exact), bfloat16 on a CPU that multiplies it natively, else float32.
        device: Where it computes.
    """
    if precision == "auto":
        # Older versions of torch do not say what the CPU can; then it is taken to be nothing.
        has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        is_native = has.get("avx512_bf16") or has.get("amx_bf16")
        on_cpu = "bfloat16" if is_native else "float32"
        precision = "float16" if device.type == "cuda" else on_cpu
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[precision]


def agreement(found: Tensor, expected: Tensor) -> float:
    """The smallest cosine between rows of two feature matrices (B, D); NaN if one is not finite.

    A row that is zero in both counts as 1, in one alone as 0.
    """
    found, expected = found.double().cpu(), expected.double().cpu()
    cosines = nn.functional.cosine_similarity(found, expected, eps=1e-30)
    both_zero = (found == 0).all(dim=1) & (expected == 0).all(dim=1)
    return float(torch.where(both_zero, 1.0, cosines).min())


def _quicken(network: nn.Module, dtype: torch.dtype, *, is_folded: bool) -> Any:  # noqa: ANN401
    """A copy of the given type; folding puts batch normalisation into the convolutions.

    Returns:
        A GraphModule if it is folded, else a Module.
    """
    quick: nn.Module = fuse(network) if is_folded else copy.deepcopy(network)
    quick.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return quick.eval().requires_grad_(False)


def _joined(network: fx.GraphModule, inputs: Tensor, expected: Tensor) -> Network | None:
    """The network with its convolutions joined; None where oneDNN or torch cannot, or errs."""
    try:
        joined = join_convolutions(network)
        cosine = agreement(joined(inputs)[: len(expected)], expected)
    except Exception:  # noqa: BLE001 - operators that torch may rename, or lack on this processor
        return None
    return joined if cosine >= _AGREES else None


def _timed(network: Network, inputs: Tensor) -> tuple[Tensor, float]:
    """The features, and the seconds that a photo took."""
    started = time.monotonic()
    features = network(inputs).float().cpu()
    return features, (time.monotonic() - started) / len(inputs)


def _compiled(network: nn.Module, inputs: Tensor, expected: Tensor) -> tuple[Network, str]:
    """The network compiled, or as it is where that fails or errs; and which of it, in words."""
    try:
        compiled = _compile(network, inputs)
    except Exception as error:  # noqa: BLE001 - no C++ compiler, an operator it lacks
        return network, f"not compiled ({first_line(error)})"
    cosine = agreement(compiled(inputs)[: len(expected)], expected)
    if not cosine >= _AGREES:
        return network, f"not compiled (a cosine of {cosine:.4f})"
    return compiled, "compiled"


def _compile(network: nn.Module, inputs: Tensor) -> Network:
    """Compile for inputs of one shape; raises whatever torch and the compilers raise.

    What was compiled is kept in the user's cache folder, for the next run.
    """
    # torch's own choice is a folder in /tmp with a name that others can foresee, and take first.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "torchinductor"))
    # Frozen weights are laid out for the kernels once. No processes to compile in: this is a
    # worker that has booked a share of its machine.
    options: dict[str, Any] = {"freezing": True, "compile_threads": 1}
    compiled: Network = torch.compile(network, dynamic=False, options=options)
    compiled(inputs)
    return compiled
