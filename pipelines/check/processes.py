"""Laws of a process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import chisquare, kstest
from torch import Tensor
from torch.nn.functional import one_hot

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes.base import Process
from core.tokenizers.base import Vocabulary
from pipelines.check._law import LEAST_P, alike, near, require
from pipelines.check._toys import holding

_DRAWS = 4000


class _Neighbours:
    """A network that answers from a token and its neighbours, as far as the process lets it look."""

    def __init__(self, process: Process) -> None:
        source = torch.Generator().manual_seed(3)
        self.ahead, self.numbers = process.attends.mode == "full", process.writes == "numbers"
        self.width = process.outputs + 1 if self.numbers else process.vocabulary.total
        self.table = torch.randn(3, self.width, process.outputs, dtype=torch.float64, generator=source)

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Float[Tensor, "B S V"]:
        inside = batch.layout.valid[..., None]
        if self.numbers:
            known = torch.cat([batch.tokens, torch.ones_like(batch.tokens[..., :1])], -1)
        else:
            known = one_hot(torch.where(batch.layout.valid, batch.tokens, 0), self.width).double()
        known = torch.where(inside, known, 0.0)
        edge = torch.zeros_like(known[:, :1])
        before, after = torch.cat([edge, known], 1)[:, :-1], torch.cat([known, edge], 1)[:, 1:]
        said = known @ self.table[0] + before @ self.table[1]
        said = said + after @ self.table[2] if self.ahead else said
        return said.tanh() if self.numbers else said


def laws(member: type[Process]) -> Iterator[str]:
    process = member(Vocabulary(0 if member.writes == "numbers" else 2))
    lengths = range(1, 5)
    process.fit(torch.tensor([*lengths]))
    network = _Neighbours(process)
    every = _some_numbers(process) if network.numbers else _every_sequence(lengths)
    count = every.layout.count
    noise = Noise.start(0, torch.arange(count))
    loss = process.loss(network, every, noise)
    yield require(bool(torch.isfinite(loss.mean())), "the loss is finite")
    yield require(torch.equal(loss.values, process.loss(network, every, noise).values), "the same noise, the same loss")
    result = process.likelihood(network, every, noise, 64)
    some = torch.tensor([count - 1, 0])
    few = process.likelihood(network, every.select(some), noise.select(some), 64)
    yield require(near(few.nll, result.nll[some]), "a likelihood does not depend on the batch")
    noise = Noise.start(1, torch.arange(_DRAWS))
    start = process.prior(process.lengths(noise, (1, 2, 3, 4)), noise)
    samples = Stepwise(8).sample(process, network, start, noise).tokens
    yield from _single_draws(process, network, start, noise, samples)
    if network.numbers:
        yield from _density(process, network)
        return
    mass = (-result.nll).exp()
    slack = 5 * float((mass * result.error).square().sum().sqrt()) + 1e-6
    yield require(float(mass.sum()) <= 1 + slack, "likelihoods of all sequences sum to 1 at most")
    yield from _many_draws(process, samples, every, mass if result.kind == "exact" else None)


def _every_sequence(lengths: Sequence[int]) -> SequenceBatch:
    """All sequences of two letters."""
    rows = [list(row) for n in lengths for row in itertools.product(range(2), repeat=n)]
    tokens = torch.tensor([row + [0] * (lengths[-1] - len(row)) for row in rows])
    return SequenceBatch(tokens, Layout.padded(torch.tensor([len(row) for row in rows]), lengths[-1]))


def _some_numbers(process: Process) -> SequenceBatch:
    """Sequences of one to four places."""
    numbers = torch.randn(12, 4, process.outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return SequenceBatch(numbers, Layout.padded(torch.arange(12) % 4 + 1, 4))


def _single_draws(
    process: Process, network: _Neighbours, start: SequenceBatch, noise: Noise, samples: Sequence[Tensor]
) -> Iterator[str]:
    """Laws of single draws; `samples` came from `start` and `noise`."""
    few = torch.tensor([17, 3])
    alone = Stepwise(8).sample(process, network, start.select(few), noise.select(few)).tokens
    yield require(alike(alone, [samples[row] for row in few.tolist()]), "a draw ignores its batch")
    if start.tokens.shape[1]:
        some = torch.arange(200)
        held = holding(start.select(some), 1)
        rows = Stepwise(8).sample(process, network, held, noise.select(some)).tokens
        yield require(all(bool((row[0] == 1).all()) for row in rows), "fixed sites never move")


def _many_draws(
    process: Process, samples: Sequence[Tensor], every: SequenceBatch, mass: Float[Tensor, " N"] | None
) -> Iterator[str]:
    """Laws of many draws of tokens; `mass` are the probabilities of `every` sequence, where they are exact."""
    drawn = [row.tolist() for row in samples]
    inside = all(0 <= token < process.vocabulary.size for row in drawn for token in row)
    yield require(inside, "samples hold data tokens only")
    if mass is not None:
        lengths = every.layout.lengths.tolist()
        rows = [row[:length] for row, length in zip(every.tokens.tolist(), lengths, strict=True)]
        counts = np.array([drawn.count(row) for row in rows], dtype=float)
        expected = (mass / mass.sum()).numpy() * counts.sum()
        # Few draws of a sequence say little: rare ones count together.
        rare = expected < 10
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        known = expected > 0
        holds = not counts[~known].any() and float(chisquare(counts[known], expected[known]).pvalue) > LEAST_P
        yield require(holds, "sequences are drawn as often as their likelihood says")


def _density(process: Process, network: _Neighbours) -> Iterator[str]:
    """Laws of single numbers: their density over a grid that holds them all but for a mass of 1e-8."""
    if process.outputs > 1:
        return
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    single = SequenceBatch(grid[:, None, None], Layout.padded(torch.ones(len(grid), dtype=torch.long), 1))
    result = process.likelihood(network, single, Noise.start(2, torch.arange(len(grid))), 240)
    mass = (-result.nll).exp() * (grid[1] - grid[0])
    slack = float((mass * result.error).sum()) + 1e-3
    yield require(float(mass.sum()) <= 1 + slack, "the density of single numbers has a mass of 1 at most")
    noise = Noise.start(1, torch.arange(_DRAWS))
    start = process.prior(process.lengths(noise, (1,)), noise)
    drawn = torch.stack(Stepwise(32).sample(process, network, start, noise).tokens).flatten().numpy()
    below = ((mass.cumsum(0) - mass / 2) / mass.sum()).numpy()
    holds = float(kstest(drawn, lambda x: np.interp(x, grid.numpy(), below)).pvalue) > LEAST_P
    yield require(holds, "numbers are drawn as often as their density says")
