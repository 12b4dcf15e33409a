"""Uniform diffusion in continuous time."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.data.sequence_batch import SequenceBatch
from core.processes._resampling_path import Parametrisation, ResamplingPath
from core.processes.base import Network
from core.processes.schedules.base import Schedule
from core.registry import Paper
from core.tokenizers.base import Vocabulary


class UDLM(ResamplingPath):
    """Sites are drawn anew from all tokens at the rate d log kappa, so that each may change many times.

    The bound is `D3pm`'s for ever shorter steps. In d kappa it is the sum over the tokens v that a site does
    not show of r_p - r_q + r_q log(r_q / r_p), r_p being the rate pi(z) u(v) / (kappa Z) at which the model
    comes to v, and r_q the same for the known x1. With the law of x1_i given the other sites it is the entropy
    of the data; with P(x1_i | x_t) taken for it, it is not (0.9 nats more on two tokens of three letters).
    """

    paper = Paper(
        "ours",
        "Simple Guidance Mechanisms for Discrete Diffusion Models",
        "2412.10193",
        "two parametrisations; any schedule, one in bound and corruption, with exact ends of time; kappa as the "
        "network's time; a field draws from its own tokens",
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        schedule: Schedule | None = None,
        parametrisation: Parametrisation = "leave_one_out",
        limit: int = 100,
        support: Bool[Tensor, "F V"] | None = None,
    ) -> None:
        super().__init__(vocabulary, "uniform", schedule, parametrisation, limit, support)

    def _time(self, place: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        return self.schedule.inverse(self._share(place))

    def integrand(
        self, network: Network, clean: SequenceBatch, noisy: SequenceBatch, place: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        # At either end rates have no bound, though what they cost on the path has.
        kappa = self._share(place).clamp(1e-9, 1 - 1e-12)
        return self._cost(network, clean, noisy, kappa, kappa, 2 * (1 - place) / kappa, torch.zeros_like(kappa))
