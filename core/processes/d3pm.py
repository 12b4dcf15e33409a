"""Structured denoising diffusion in discrete time."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes._resampling_path import Parametrisation, ResamplingPath
from core.processes.base import Network, TokenLoss
from core.processes.schedules.base import Schedule
from core.registry import Paper
from core.tokenizers.base import Vocabulary


class D3pm(ResamplingPath):
    """A chain of T steps, each of which draws some sites anew: from the mask, uniformly or by the unigram.

    In the paper's letters its matrices are Q_n = a_n I + (1 - a_n) 1 pi^T with a_n = kappa_n / kappa_(n-1),
    kappa_n being kappa at t = 1 - n / T. The bound is the variational one of the T steps, the last of which
    is the likelihood of the data; what it starts from costs nothing, as nothing of the data is left there. At
    the exact posterior it is the entropy of the data for sequences of one token. For longer ones it lies
    above, by what the sites of a step have in common given the last, which goes as 1 / T.

    A sampler of fewer steps takes several of the chain's at once, one of more takes its T. timesteps: T.
    auxiliary: weight of the cross-entropy of P(x1_i | x_t) that the loss adds to the bound. source: `mask`
    (the paper's absorbing state), `uniform`, or `marginal` (the training unigram).
    """

    paper = Paper(
        "ours",
        "Structured Denoising Diffusion Models in Discrete State-Spaces",
        "2107.03006",
        "any schedule, and kappa as the network's time; the auxiliary cross-entropy is that of P(x1_i | x_t) "
        "by Bayes' rule, whose optimum is the bound's, not that of the answer itself; the marginal matrix of "
        "2209.14734; no matrices by distance of tokens",
    )
    _latest = 1.0

    def __init__(
        self,
        vocabulary: Vocabulary,
        source: Literal["mask", "uniform", "marginal"] = "mask",
        schedule: Schedule | None = None,
        timesteps: int = 1000,
        auxiliary: float = 0.0,
        parametrisation: Parametrisation = "leave_one_out",
        limit: int = 100,
        support: Bool[Tensor, "F V"] | None = None,
    ) -> None:
        if source not in ("mask", "uniform", "marginal"):
            raise ValueError(f"{source!r} is none of mask, uniform, marginal")
        if timesteps < 1:
            raise ValueError(f"timesteps {timesteps}: the chain takes at least one step")
        if not 0 <= auxiliary < float("inf"):
            raise ValueError(f"auxiliary {auxiliary}: a finite weight that is not negative")
        super().__init__(vocabulary, source, schedule, parametrisation, limit, support)
        self.timesteps, self.auxiliary = timesteps, auxiliary

    def _number(self, place: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """Which of the T steps, counted from noise."""
        return (self._share(place) * self.timesteps).floor().clamp(0, self.timesteps - 1)

    def _time(self, place: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        return self._number(place) / self.timesteps

    def integrand(
        self, network: Network, clean: SequenceBatch, noisy: SequenceBatch, place: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """The relative entropy of the step at each place, over the length that its places have."""
        number = self._number(place)
        t, s = number / self.timesteps, (number + 1) / self.timesteps
        now, after = self._shares(t, s)
        kept, density = now / after, self.timesteps * ((1 - t).sqrt() + (1 - s).sqrt())
        return self._cost(network, clean, noisy, now, after, density * (1 - kept), density * kept)

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        noisy, place = self._training_draw(batch, noise)
        value, cross_entropy, _ = self.integrand(network, batch, noisy, place)
        return self._per_token(batch, value + self.auxiliary * cross_entropy)

    def grid(self, steps: int) -> list[tuple[float, float]]:
        """Times of the chain, at most its T steps and about as many of them in each."""
        count = min(steps, self.timesteps)
        marks = [step * self.timesteps // count / self.timesteps for step in range(count + 1)]
        return list(zip(marks[:-1], marks[1:], strict=True))
