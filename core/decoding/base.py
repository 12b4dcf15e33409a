"""The contract of every sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise, log_mean
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes.base import Network, Process
from core.registry import Paper


@dataclass(frozen=True)
class Truncation:
    """How a next-token law is sharpened before a draw; each part is off at its default.

    top_p keeps every token whose probability reaches the threshold at which the kept mass first
    attains top_p (ties are kept); min_p keeps those above min_p times the largest.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not (0 < self.top_p <= 1 and 0 <= self.min_p < 1 and (self.top_k is None or self.top_k >= 1)):
            raise ValueError("top_p lies in (0, 1], min_p in [0, 1), top_k is at least 1")

    def log_weights(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """What to add to the log-probabilities: the tilt to the sharpened law."""
        scaled = (logits / self.temperature).log_softmax(-1)
        tilt = scaled - logits.log_softmax(-1)
        tilt = torch.where(logits == -torch.inf, torch.zeros_like(tilt), tilt)
        ordered = scaled.sort(-1, descending=True).values
        floor = torch.full_like(ordered[..., :1], -torch.inf)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            floor = torch.maximum(floor, ordered[..., self.top_k - 1 : self.top_k])
        if self.top_p < 1:
            before = ordered.exp().cumsum(-1) - ordered.exp()
            last = (before < self.top_p).sum(-1, keepdim=True) - 1
            floor = torch.maximum(floor, ordered.gather(-1, last))
        if self.min_p > 0:
            floor = torch.maximum(floor, ordered[..., :1] + torch.tensor(self.min_p).log())
        return tilt.masked_fill(scaled < floor, -torch.inf)


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A finished sequence that a search found, its log-probability in nats behind its prompt, end
    included (NaN where the search knows none), and the score by which it is ranked."""

    tokens: Tensor
    log_probability: float
    score: float


@dataclass(frozen=True, eq=False)
class Particles:
    """K weighted sequences for each row, with their log-weights; -inf is weight 0."""

    tokens: tuple[tuple[Tensor, ...], ...]
    log_weights: Float[Tensor, "N K"]

    @property
    def log_normalisers(self) -> Float[Tensor, " N"]:
        """The log of each row's mean weight, which is an unbiased estimate of its normaliser."""
        return log_mean(self.log_weights)


@dataclass(frozen=True, eq=False)
class Samples:
    """Finished sequences by row, `[L]`, `[L, F]` or `[L, C]` each, and what they cost.

    network_calls counts calls of the network, network_rows the rows it was asked for.
    trajectory holds the sequences that go on after each step, where it was asked for.
    ranked holds what a search found for each row, best first; the row's tokens are its first.
    particles holds the weighted sequences from which a row's was drawn, where it was.
    """

    tokens: tuple[Tensor, ...]
    network_calls: int
    network_rows: int
    trajectory: tuple[SequenceBatch, ...] = ()
    ranked: tuple[tuple[Hypothesis, ...], ...] = ()
    particles: Particles | None = None


class Sampler(ABC):
    """Draws sequences from a process by asking a network.

    Row n depends on the noise of row n alone. Under constraints nothing is drawn and
    discarded: as many sequences come out as were started. One that can be guided takes
    `guides` and the `context` they share. One that is `steered` asks the objectives of its
    `context`, and cannot do without. One that `searches` lists in `Samples.ranked` what it has found
    for each row, the more the larger the setting `widened_by`, and a run gives out the best of `starts`
    such lists; it uses no noise unless it is steered, so that rows that start alike come out alike.
    """

    paper: ClassVar[Paper]
    searches: ClassVar[bool] = False
    steered: ClassVar[bool] = False
    widened_by: ClassVar[str] = ""
    starts: int = 1

    def suits(self, process: Process) -> None:  # noqa: B027, most draw from every process
        """`UserError` where this sampler cannot draw from `process`."""

    @abstractmethod
    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
    ) -> Samples:
        """Finish the sequences of `start`, which stand at t = 0."""
