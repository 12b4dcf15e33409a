"""Counter-based noise: every random number is a pure function of who asks for it.

A draw depends on (seed, sequence id, slot, position, the row's own step, purpose, lane) and on
nothing else, so a sequence comes out the same alone or in a batch, padded or packed, resumed
or not. The generator is Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"), the one Triton provides too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF


class Purpose(IntEnum):
    """What a random number decides; different purposes never share one."""

    PRIOR = 0
    LENGTH = 1
    JUMP = 2
    TOKEN = 3
    TIME = 4
    CORRUPT = 5
    GUIDE = 6
    STOP = 7
    CONDITION = 8
    SELECT = 9
    COMPLETE = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox 4x32 on int64 tensors that hold unsigned 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The 64-bit product wraps in int64; its low word is right, its high word needs the
        # arithmetic shift masked.
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _LOW) ^ c1 ^ k0,
            p1 & _LOW,
            ((p0 >> 32) & _LOW) ^ c3 ^ k1,
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@dataclass(frozen=True, eq=False)
class Noise:
    """The random numbers of N sequences at one step each.

    sequences: ids that name the sequences across batches. steps: each row's own step. slots:
    beam, particle or rollout, renewed by a fork.
    """

    seed: int
    sequences: Int[Tensor, " N"]
    steps: Int[Tensor, " N"]
    slots: Int[Tensor, " N"]

    @staticmethod
    def start(seed: int, sequences: Int[Tensor, " N"]) -> Noise:
        """Step 0, slot 0 of the given sequences."""
        zero = torch.zeros_like(sequences)
        return Noise(seed, sequences, zero, zero)

    def at(self, steps: int | Int[Tensor, " N"]) -> Noise:
        """The same sequences at the given step."""
        steps = torch.full_like(self.steps, steps) if isinstance(steps, int) else steps
        return replace(self, steps=steps)

    def select(self, index: Tensor) -> Noise:
        """Rows `index`."""
        return replace(self, sequences=self.sequences[index], steps=self.steps[index], slots=self.slots[index])

    def fork(self, k: int) -> Noise:
        """Each row k times in a row, every copy in a slot of its own."""
        slots = self.slots.repeat_interleave(k) * k + torch.arange(k, device=self.slots.device).repeat(len(self.slots))
        return Noise(self.seed, self.sequences.repeat_interleave(k), self.steps.repeat_interleave(k), slots)

    def bits(self, sites: int, purpose: Purpose, lane: int = 0) -> tuple[Int[Tensor, "N S"], Int[Tensor, "N S"]]:
        """Two unsigned 32-bit words for each of `sites` positions of each row."""
        place = torch.arange(sites, device=self.sequences.device)[None]
        # word 3 holds slot (16 bits), purpose (4 bits) and lane (12 bits)
        last = (self.slots[:, None] << 16) | (int(purpose) << 12) | lane
        shape = (len(self.sequences), sites)
        words = philox(
            (
                place.expand(shape),
                self.steps[:, None].expand(shape),
                self.sequences[:, None].expand(shape) & _LOW,
                last.expand(shape),
            ),
            (self.seed & _LOW, (self.seed >> 32) & _LOW),
        )
        return words[0], words[1]

    def uniform(self, sites: int, purpose: Purpose, lane: int = 0) -> Float[Tensor, "N S"]:
        """Uniform numbers in [0, 1) with 53 random bits, fp64."""
        high, low = self.bits(sites, purpose, lane)
        return ((high << 21) | (low >> 11)).double() * 2.0**-53


def draw(log_weights: Float[Tensor, "*#S V"], uniform: Float[Tensor, "*#S"]) -> Int[Tensor, "*#S"]:
    """A categorical draw from unnormalised log-weights by the inverse of its CDF.

    One law `[V]` serves any number of uniforms; else each uniform has its own.

    Weights become fixed-point integers (40 bits under the largest), so their sum does not
    depend on the order of summation: any tiling, batch or device gives the same token for the
    same weights, and a tail of relative mass 1e-12 is still drawn. -inf is never drawn. A row
    that is -inf everywhere has no law; it returns V. RuntimeError for NaN and +inf.
    """
    refuse_undefined(log_weights)
    weights = fixed_point(log_weights)
    cumulative = weights.cumsum(-1)
    total = cumulative[..., -1]
    # uniform < 1, and the product may round up to total: the clamp keeps it a legal index.
    threshold = torch.minimum((uniform * total.double()).long(), total - 1).clamp_min(0)
    return torch.searchsorted(cumulative, threshold[..., None], right=True)[..., 0]


def refuse_undefined(log_weights: Float[Tensor, "*S V"]) -> None:
    """RuntimeError where a log-weight is NaN or +inf: no law has such, a network that fails says so."""
    if not bool((log_weights < torch.inf).all()):
        raise RuntimeError("a law holds NaN or +inf: the logits behind it are not finite")


def normal(uniform: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Standard normal numbers by the inverse of their CDF, from the uniform numbers of a `Noise`."""
    # The middle of each cell of the 53-bit grid, kept below 1: the borders are infinitely far out.
    return torch.special.ndtri((uniform + 2.0**-54).clamp_max(1 - 2.0**-53))


def fixed_point(log_weights: Float[Tensor, "*S V"]) -> Int[Tensor, "*S V"]:
    """exp(log_weights) relative to the row's largest, as integers of 40 fractional bits."""
    peak = log_weights.amax(-1, keepdim=True)
    peak = torch.where(peak.isfinite(), peak, torch.zeros_like(peak))
    return ((log_weights - peak).double().exp() * 2.0**40).long()


def log_total(log_weights: Float[Tensor, "*S V"]) -> Float[Tensor, "*S"]:
    """The log of a row's summed weights, fp64, bit-equal however many -inf stand among them."""
    peak = log_weights.amax(-1).double()
    peak = torch.where(peak.isfinite(), peak, torch.zeros_like(peak))
    return peak + (fixed_point(log_weights).sum(-1).double() * 2.0**-40).log()


def log_mean(log_weights: Float[Tensor, "*S V"]) -> Float[Tensor, "*S"]:
    """The log of a row's mean weight, as exact as `log_total`."""
    return log_total(log_weights) - math.log(log_weights.shape[-1])
