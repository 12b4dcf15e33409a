"""Insertion of one token at a time, with the policy that brings a small law about exactly."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes.base import Network
from core.processes.transitions.insert import Insert
from core.registry import Paper
from tests.laws.toys import ToyProcess

# Strings of four lengths, whose substrings overlap.
LAW = {(0,): 0.5, (0, 1): 0.1, (1, 0, 1): 0.1, (0, 1, 0, 1): 0.3}


class ToyInsert(ToyProcess):
    """The network reads a start token and the sequence: behind token g come the logits of slot g,
    and the last column of the start is the logit of stopping."""

    paper = Paper("S052", "Insertion Language Models", "2505.05755")

    def prior(self, lengths: Tensor, noise: Noise) -> SequenceBatch:
        layout = Layout.padded(torch.zeros_like(lengths), 0)
        return SequenceBatch(torch.zeros(layout.shape, dtype=torch.long), layout)

    def grid(self, steps: int) -> list[tuple[float, float]]:
        return [(float(i), float(i + 1)) for i in range(self.limit + 1)]

    def transition(self, network: Network, batch: SequenceBatch, t: float, s: float) -> Insert:
        start = torch.full((batch.layout.count, 1), self.vocabulary.bos)
        tokens = torch.cat([start, batch.tokens], 1)
        layout = Layout.padded(batch.layout.lengths + 1, tokens.shape[1])
        logits = network(SequenceBatch(tokens, layout, condition=batch.condition), None)
        full = (batch.layout.lengths >= self.limit)[:, None, None]
        return Insert(logits[..., :-1].masked_fill(full, -torch.inf), logits[:, 0, -1])


def policy(batch: SequenceBatch, time: Tensor | None, weigh_lengths: bool = True) -> Tensor:
    """The reversal of dropping random tokens: what stands next, given what is left.

    A sequence of L tokens passes through L + 1 states; where each state counts as much as
    its sequence, training on one random state of each must weigh it by L + 1.
    """
    size = 1 + max(map(max, LAW))
    result = torch.full((*batch.tokens.shape, size + 1), -torch.inf, dtype=torch.float64)
    for row, length in enumerate(batch.layout.lengths.tolist()):
        held = tuple(batch.tokens[row, 1:length].tolist())
        mass = torch.zeros(batch.tokens.shape[1], size + 1, dtype=torch.float64)
        for sequence, q in LAW.items():
            ways = math.comb(len(sequence), len(held)) * (1 if weigh_lengths else len(sequence) + 1)
            for kept in itertools.combinations(range(len(sequence)), len(held)):
                if tuple(sequence[i] for i in kept) != held:
                    continue
                if len(kept) == len(sequence):
                    mass[0, -1] += q / ways
                for place in sorted(set(range(len(sequence))) - set(kept)):
                    slot = sum(i < place for i in kept)
                    mass[slot, sequence[place]] += q / ways / (len(sequence) - len(kept))
        result[row] = mass.log()
    return result
