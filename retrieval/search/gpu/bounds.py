"""How far a float16 matrix product may be off, and the limit that no neighbour can miss.

The twin on the CPU is `retrieval.search.bounds`.

A guess is Σ q̂ᵢ x̂ᵢ over float16 operands with a float32 accumulator. Products of two float16
values have 22 bits: exact in float32, never subnormal. Only adding loses something.

On a CPU additions round to nearest: |error| ≤ γ · Σ|q̂ᵢ x̂ᵢ|, γ = D·2⁻²⁴ / (1 − D·2⁻²⁴), in
any order, with or without fused multiply-add (Higham, Accuracy and Stability, §3.1).

NVIDIA's tensor cores are not IEEE: each step aligns b products and the accumulator to the
largest of them, cuts off what is shifted out, adds, and cuts again (Fasi, Higham, Mikaitis,
Pranesh, PeerJ CS 7:e330, 2021; bit-accurate models up to H100 and B200: Khattak and Mikaitis,
arXiv 2512.07004). Every generation measured keeps at least 24 bits of the largest, so that an
addend loses less than 2⁻²² of it: a model with two bits to spare, taken from measurements
since the vendor documents none. The largest is at most S = Σ|q̂ᵢ x̂ᵢ| plus the error so far,
and a step has b + 1 addends: E ≤ (1 + 1/b) · D' · 2⁻²² · (S + E), D' = D rounded up to whole
steps. b = 4 (Volta) is the worst, 16 the present. Partial sums of a product that is split
along D add at most one IEEE addition per 16 terms, 2⁻²⁶ a term, within the spare. Hence
a = 1.25 · (D + 16) · 2⁻²² and E ≤ a/(1 − a) · S. By Cauchy–Schwarz S ≤ ‖q̂‖·‖x̂‖.

Rounding of the operands: q·x − q̂·x̂ = q·(x − x̂) + (q − q̂)·x̂, so at most ‖q‖ρₓ + ρ_q‖x̂‖
with the measured residuals ρ, which are zero for stored float16.

The limit. A pair with canonical key ≥ t has, all errors on its side,

    guess ≥ limit(q) · factor(x) + offset(x)

    cosine  factor = ‖x‖, offset = 0, limit = t‖q‖ − slack          (slack a unit of ‖x‖)
    ip      factor = 1,   offset = 0, limit = t − slack
    l2      factor = 1,   offset = ‖x‖²/2, limit = (‖q‖² − t²)/2 − slack,  since d² = ‖q‖²+‖x‖²−2q·x

in the units of the operands (stored vectors times powers of two). A canonical distance is right
to (D + 2) · 2⁻⁵² of itself (`scores`), so where it is at most t, d² ≤ t² · (1 + (D + 8) · 2⁻⁵⁰):
that is what t² stands for above. Among near neighbours t² is tiny, and so is what is added to it;
but the slack is a part of the norms, as are the errors of q·x and of both ‖·‖², so that the sum's
cancellation lets too many pairs pass, and none too few.

Slacks use the largest norm and residual of the chunk. What is compared is float32: a limit and
an offset are lowered by 2⁻²¹ of their size, more than the conversion, the product and the sum
there can round. The float64 operations before that round by 2⁻⁵³ of the norms' squares, for
which norm_error, at least 2⁻³⁰, has room: it is taken three times, and twice would do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval.search.gpu.operands import HalfRows, times_power

__all__ = ["accumulation_error", "largest_slack", "query_limits", "row_terms"]

_COMPARE = 2.0**-21  # relative: see the module's head
_TINY = 2.0**-100  # absolute: covers values that float32 or float64 lose as subnormal
_LARGEST = 3.0e38  # a float32; an offset that is lowered to it stays a lower bound


def accumulation_error(dim: int, device: torch.device) -> float:
    """Largest |guess − canonical dot product| for operands without residual, a unit of ‖q‖‖x‖.

    Args:
        dim: Length of the vectors, D; the bound is below 1 up to about 500 000.
        device: A CPU adds by IEEE rules; any other device is taken for a tensor core.
    """
    ieee, tensor_core = dim * 2.0**-24, 1.25 * (dim + 16) * 2.0**-22
    loss = ieee if device.type == "cpu" else tensor_core
    # The canonical score rounds too: products to 2⁻⁵⁰, quotient and root by 2⁻⁵³ each.
    return loss / (1 - loss) + (dim + 8) * 2.0**-46


def row_terms(metric: str, rows: HalfRows, queries: HalfRows) -> tuple[Tensor, Tensor]:
    """Factor and offset of each gallery row; see the module's head.

    Returns:
        factor float32 (N,), positive, and offset float32 (N,), rounded down.
    """
    ones = torch.ones_like(rows.norms, dtype=torch.float32)
    if metric == "cosine":
        return rows.norms.float(), torch.zeros_like(ones)
    if metric == "ip":
        return ones, torch.zeros_like(ones)
    apart = _common_exponent(queries) - _common_exponent(rows)
    halves = _half_square(rows) * (1 - 3 * rows.norm_error)
    offset = times_power(halves, torch.full_like(rows.exponents, apart))
    return ones, (offset * (1 - _COMPARE)).clamp(max=_LARGEST).float()


def query_limits(
    metric: str, keys: Tensor, queries: HalfRows, rows: HalfRows, accumulation: float
) -> Tensor:
    """What the guess of a pair with a key of at least `keys` cannot fall below.

    Args:
        metric: "cosine", "ip" or "l2".
        keys: float64 (Q,), canonical keys to reach; -inf lets all pass.
        queries: Q operands.
        rows: N operands of the gallery.
        accumulation: From `accumulation_error`.

    Returns:
        float32 (Q,), rounded down.
    """
    # A canonical key is rounded to nearest, so the true one is above its neighbour.
    finite = keys.clamp(max=torch.finfo(torch.float64).max)  # inf is an ip that has overflowed
    low = torch.nextafter(finite, torch.full_like(keys, -torch.inf))
    slack = _slack(metric, queries, rows, accumulation)
    norms = queries.norms
    if metric == "cosine":
        unsure = queries.norm_error + rows.norm_error + 2.0**-40
        limit = low * norms - low.abs() * norms * (1.01 * unsure) - slack
    elif metric == "ip":
        exponents = queries.exponents + _common_exponent(rows)
        limit = times_power(low, exponents) - slack
    else:
        limit = _l2_limits(low, queries, rows) - slack
    limit = limit - limit.abs() * _COMPARE - _TINY
    # inf − inf: beyond float64; letting all pass is always right.
    return torch.nan_to_num(limit, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).float()


def largest_slack(metric: str, queries: HalfRows, rows: HalfRows, accumulation: float) -> float:
    """The largest slack of the queries, a unit of ‖q‖ times the largest ‖x‖: for reports."""
    slack = _slack(metric, queries, rows, accumulation) / queries.norms
    scale = 1.0 if metric == "cosine" else float(rows.norms.max())
    return float(slack.max()) / scale


def _slack(metric: str, queries: HalfRows, rows: HalfRows, accumulation: float) -> Tensor:
    """|guess − true dot product| at most, (Q,): a unit of ‖x‖ for cosine, else absolute."""
    ours = queries.norms * (1 + queries.norm_error)
    unit = rows.norms if metric == "cosine" else torch.ones_like(rows.norms)
    size = (rows.norms / unit).max() * (1 + 2 * rows.norm_error)
    residual = (rows.residuals / unit).max() * (1 + 2 * rows.norm_error)
    rounded = size + residual  # ‖x̂‖
    slack = accumulation * (ours + queries.residuals) * rounded
    slack = slack + ours * residual + queries.residuals * rounded
    return slack * (1 + 2.0**-20)  # more than all operations here can round


def _l2_limits(low: Tensor, queries: HalfRows, rows: HalfRows) -> Tensor:
    ours, theirs = _common_exponent(queries), _common_exponent(rows)
    half = (ours + theirs) // 2
    # Each factor times one half of the power: neither underflows where the product matters.
    distance = -low
    square = times_power(distance, torch.full_like(queries.exponents, half)) * times_power(
        distance, torch.full_like(queries.exponents, ours + theirs - half)
    )
    shrunk = _half_square(queries) * (1 - 3 * queries.norm_error)
    ours_half = times_power(shrunk, torch.full_like(queries.exponents, theirs - ours))
    return ours_half - square * (0.5 + (queries.half.shape[1] + 8) * 2.0**-51)


def _half_square(rows: HalfRows) -> Tensor:
    return rows.norms * rows.norms / 2


def _common_exponent(rows: HalfRows) -> int:
    return int(rows.exponents[0])
