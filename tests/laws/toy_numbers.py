"""Laws of numbers whose flow along straight paths has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.sequence_batch import SequenceBatch
from core.processes.continuous_flow import ContinuousFlow
from core.tokenizers.base import Vocabulary

# Not the moments of any toy, so that units are not 1 anywhere.
LOCATION, UNIT = torch.tensor([10.0, -3.0]).double(), torch.tensor([2.0, 0.5]).double()
LENGTHS = (1, 2, 3)
CORRELATION, DEVIATION = 0.8, 0.6


def process_of(channels: int = 2, limit: int = 3, **options) -> ContinuousFlow:
    process = ContinuousFlow(Vocabulary(0), channels, limit=limit, **options).double()
    process.fit(torch.tensor([1, 2, 2, 3]))
    process.location.copy_(LOCATION[:channels])
    process.unit.copy_(UNIT[:channels])
    return process


def numbers_of(standard: Tensor, lengths: Tensor, fixed: Tensor | None = None) -> SequenceBatch:
    """Standardised numbers as data; padding holds 99."""
    channels = standard.shape[-1]
    layout = Layout.padded(lengths, standard.shape[1])
    data = torch.where(layout.valid[..., None], LOCATION[:channels] + UNIT[:channels] * standard, 99.0)
    return SequenceBatch(data, layout, fixed=fixed)


class Chain:
    """Normal numbers of mean 0.5 and deviation 0.6 that stand beside each other in a chain of correlation
    0.8, place by place and channel by channel: the velocity is linear and couples all of them."""

    def __init__(self, channels: int = 2) -> None:
        self.channels = channels

    def covariance(self, length: int) -> Tensor:
        place = torch.arange(length * self.channels)
        return DEVIATION**2 * CORRELATION ** (place[:, None] - place).abs().double()

    def draw(self, count: int, length: int, seed: int = 0) -> Tensor:
        """Standardised data."""
        normal = torch.randn(count, length * self.channels, generator=torch.Generator().manual_seed(seed)).double()
        factor = torch.linalg.cholesky(self.covariance(length))
        return (0.5 + normal @ factor.T).reshape(count, length, self.channels)

    def nll(self, standard: Tensor, length: int) -> Tensor:
        """Of rows of one length, standardised, without the length's own part, in data units."""
        law = torch.distributions.MultivariateNormal(
            torch.full((length * self.channels,), 0.5).double(), self.covariance(length)
        )
        return -law.log_prob(standard[:, :length].flatten(1)) + length * float(UNIT[: self.channels].log().sum())

    def flow(self, begin: Tensor, length: int) -> Tensor:
        """Where the exact flow carries standardised noise: along the principal axes."""
        values, axes = torch.linalg.eigh(self.covariance(length))
        return (0.5 + begin[:, :length].flatten(1) @ axes * values.sqrt() @ axes.T).reshape(-1, length, self.channels)

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        """E[x1 - x0 | x_t]; every place has the time of its row's first."""
        assert time is not None
        found = torch.zeros_like(batch.tokens)
        for length in set(batch.layout.lengths.tolist()):
            rows = (batch.layout.lengths == length).nonzero()[:, 0]
            t = time[rows, 0, None]
            values, axes = torch.linalg.eigh(self.covariance(length))
            here = (batch.tokens[rows, :length].flatten(1) - 0.5 * t) @ axes
            slope = (t * values - (1 - t)) / (t**2 * values + (1 - t) ** 2)
            answer = 0.5 + (slope * here) @ axes.T
            found[rows, :length] = answer.reshape(len(rows), length, self.channels).to(found)
        return found


class TwoPeaks:
    """One number, near -1 or, twice as often, near 1: the velocity is not linear."""

    means, weights, deviation = torch.tensor([-1.0, 1.0]).double(), torch.tensor([1 / 3, 2 / 3]).double(), 0.4

    def _law(self, numbers: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights of the peaks given x_t, and the variance of x_t in each."""
        variance = (t * self.deviation) ** 2 + (1 - t) ** 2
        away = numbers[..., None] - t[..., None] * self.means
        return self.weights.log() - away.square() / (2 * variance[..., None]), variance

    def nll(self, standard: Tensor) -> Tensor:
        peaks = torch.distributions.Normal(self.means, self.deviation)
        return -(self.weights.log() + peaks.log_prob(standard[..., None])).logsumexp(-1) + float(UNIT[0].log())

    def cdf(self, numbers: Tensor) -> Tensor:
        standard = (numbers - LOCATION[0]) / UNIT[0]
        return torch.distributions.Normal(self.means, self.deviation).cdf(standard[..., None]) @ self.weights

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        assert time is not None
        numbers, t = batch.tokens[..., 0].double(), time.double()
        logits, variance = self._law(numbers, t)
        slope = (t * self.deviation**2 - (1 - t)) / variance
        each = self.means + slope[..., None] * (numbers[..., None] - t[..., None] * self.means)
        return (logits.softmax(-1) * each).sum(-1, keepdim=True)
