"""Weighted particles: what they have gained, and which go on."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.noise import fixed_point, log_mean

Form = Literal["diff", "max", "sum"]


class Cloud:
    """K particles of each of N rows and their log-weights, kept from step to step.

    A weight is `base`, the particle's weight under the law without potentials, times the potentials that
    it has `gained` along its path. Forms of the potential at a step, v being the log-potential there:
    `diff` gains v less the v before, `max` the largest v of the path so far, `sum` the sum of all of them.
    Whatever was gained on the way, a finished particle has gained its own value and nothing else: so every
    form has the same target.
    """

    def __init__(self, count: int, size: int, form: Form, device: torch.device) -> None:
        self.size, self.form = size, form
        self.base = torch.zeros(count * size, dtype=torch.double, device=device)
        self.gained = torch.zeros_like(self.base)
        self._path = torch.full_like(self.base, -torch.inf if form == "max" else 0.0)
        self.settled = torch.zeros_like(self.base, dtype=torch.bool)

    @property
    def log_weights(self) -> Float[Tensor, "N K"]:
        """-inf where a finished particle has no value."""
        return (self.base + self.gained).reshape(-1, self.size)

    def settle(self, places: Int[Tensor, " E"], values: Float[Tensor, " E"]) -> None:
        """The particles at `places` are finished and have these values, -inf for none."""
        self.gained[places], self.settled[places] = values, True

    def weigh(self, places: Int[Tensor, " E"], values: Float[Tensor, " E"], least: float) -> None:
        """Potentials of unfinished particles, log-means of what they may become.

        One that has none (-inf) may still come to have a value, so that its weight must not be 0: it gets
        the row's worst and `least` on top, in nats. In a row without any value nothing is gained.
        """
        seen = torch.where(self.settled, self.gained, -torch.inf)
        seen[places] = values
        worst = torch.where(seen > -torch.inf, seen, torch.inf).reshape(-1, self.size).amin(1)
        row = places // self.size
        values = torch.where(values > -torch.inf, values, worst[row] + least)
        known = worst[row] < torch.inf
        places, values = places[known], values[known]
        if self.form == "diff":
            self.gained[places] = values
            return
        path = self._path[places]
        self._path[places] = torch.maximum(path, values) if self.form == "max" else path + values
        self.gained[places] += self._path[places]

    def resampled(self, threshold: float, uniform: Float[Tensor, " N"]) -> Int[Tensor, " M"] | None:
        """Which particle each place goes on with, by systematic resampling; None where all go on.

        Of rows whose effective sample size is below `threshold` K, and of which a particle is unfinished.
        The log-weights of such a row become the log of their mean; those of others are kept.
        """
        log_weights = self.log_weights
        weights = fixed_point(log_weights)
        total, shares = weights.sum(1), weights.double()
        effective = total.double().square() / shares.square().sum(1)
        open_ = ~self.settled.reshape(-1, self.size).all(1)
        short = open_ & (total > 0) & (effective < threshold * self.size)
        if not bool(short.any()):
            return None
        place = torch.arange(self.size, device=uniform.device)
        mark = ((place + uniform[:, None]) / self.size * total[:, None].double()).long()
        mark = torch.minimum(mark, total[:, None] - 1).clamp_min(0)
        chosen = torch.searchsorted(weights.cumsum(1), mark, right=True)
        chosen = torch.where(short[:, None], chosen, place)
        ancestors = (chosen + self.size * torch.arange(len(chosen), device=uniform.device)[:, None]).flatten()
        before = self.base[ancestors]
        self.gained, self._path = self.gained[ancestors], self._path[ancestors]
        self.settled = self.settled[ancestors]
        mean = log_mean(log_weights)[:, None].expand(-1, self.size).flatten()
        anew = short[:, None].expand(-1, self.size).flatten()
        self.base = torch.where(anew, mean - self.gained, before)
        return ancestors
