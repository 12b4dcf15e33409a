"""Left to right, one token at a time."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.processes._sites import per_sequence, site_uniform
from core.processes.base import Likelihood, Network, Process, TokenLoss
from core.processes.transitions.append import Append
from core.registry import Paper
from core.tokenizers.base import Vocabulary


class Autoregressive(Process):
    """p(x) = prod p(x_i | x_<i) p(end | x), trained by cross-entropy.

    The network reads a start token, then the sequence; its last output column is the end.
    limit: tokens after which sampling stops at the latest, by allowing only the end.
    context_dropout: share of the tokens that training hides from the network's input (Bowman et
    al., 2016), which keeps it from learning a small corpus by heart. Likelihood and sampling hide
    nothing.
    """

    paper = Paper("ours", "Autoregressive factorisation", "1511.06349", "its word dropout, off by default")
    likelihood_kind = "exact"
    attends = MaskSpec("causal")
    sampler = "ancestral"

    def __init__(self, vocabulary: Vocabulary, limit: int = 100, context_dropout: float = 0.0) -> None:
        super().__init__(vocabulary, limit)
        if not 0 <= context_dropout < 1:
            raise ValueError(f"context_dropout {context_dropout}: a share lies in [0, 1)")
        self.context_dropout = context_dropout

    @property
    def outputs(self) -> int:
        return self.vocabulary.size + 1

    def fit(self, lengths: Int[Tensor, " N"], condition: Float[Tensor, "N C"] | None = None) -> None:
        """Nothing to learn: the end token carries the length. `UserError` for one above the limit."""
        self.refuse_long(lengths)

    def lengths(
        self, noise: Noise, allowed: tuple[int, ...], condition: Float[Tensor, "N C"] | None = None
    ) -> Int[Tensor, " N"]:
        return torch.zeros_like(noise.sequences)

    def corrupt(self, batch: SequenceBatch, time: Float[Tensor, "B S"], noise: Noise) -> SequenceBatch:
        """`shifted`: time and noise play no part."""
        return self.shifted(batch)

    def shifted(self, batch: SequenceBatch) -> SequenceBatch:
        """Inputs behind the start token; targets closed by the end."""
        layout = batch.layout
        make = Layout.packed if layout.is_packed else Layout.padded
        slack = layout.count if layout.is_packed else 1
        longer = make(layout.lengths + 1, layout.shape[1] + slack, self.attends)
        inputs = torch.full(longer.shape, self.vocabulary.pad, device=batch.tokens.device)
        targets = torch.full_like(inputs, self.vocabulary.pad)
        row, column = layout.valid.nonzero(as_tuple=True)
        # In a packed row every earlier sequence has grown by one token.
        moved = column + (layout.owners[row, column] if layout.is_packed else 0)
        inputs[row, moved + 1] = batch.tokens[row, column]
        targets[row, moved] = batch.tokens[row, column]
        last_row, last_column = longer.last()
        inputs[last_row, last_column - layout.lengths] = self.vocabulary.bos
        targets[last_row, last_column] = self.vocabulary.eos
        return replace(batch, tokens=inputs, targets=targets, layout=longer, fixed=None)

    def _cross_entropy(self, network: Network, shifted: SequenceBatch) -> Float[Tensor, "B S"]:
        assert shifted.targets is not None
        valid = shifted.layout.valid
        log_probs = network(shifted, None).log_softmax(-1)
        values = -log_probs.gather(-1, torch.where(valid, shifted.targets, 0)[..., None])[..., 0]
        return torch.where(valid, values, 0.0)

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        shifted = self.shifted(batch)
        valid = shifted.layout.valid
        if self.context_dropout:
            hidden = site_uniform(shifted, noise, Purpose.CORRUPT) < self.context_dropout
            hidden = hidden & valid & (shifted.tokens != self.vocabulary.bos)
            shifted = replace(shifted, tokens=shifted.tokens.masked_fill(hidden, self.vocabulary.mask))
        values = self._cross_entropy(network, shifted)
        return TokenLoss(values, valid.to(values), valid.sum().clamp_min(1))

    def likelihood(self, network: Network, batch: SequenceBatch, noise: Noise, points: int) -> Likelihood:
        shifted = self.shifted(batch)
        values = self._cross_entropy(network, shifted)
        nll = per_sequence(shifted, values)
        return Likelihood(nll, "exact", torch.zeros_like(nll), batch.layout.lengths + 1)

    def prior(self, lengths: Int[Tensor, " N"], noise: Noise) -> SequenceBatch:
        layout = Layout.padded(torch.zeros_like(lengths), 0, self.attends)
        return SequenceBatch(torch.zeros(len(lengths), 0, dtype=torch.long, device=lengths.device), layout)

    def grid(self, steps: int) -> list[tuple[float, float]]:
        """One step a token and one for the end; `steps` plays no part."""
        return [(float(i), float(i + 1)) for i in range(self.limit + 1)]

    def transition(self, network: Network, batch: SequenceBatch, t: float, s: float) -> Append:
        shifted = self.shifted(batch)
        row, column = shifted.layout.last()
        return self.append(network(shifted, None)[row, column], batch.layout.lengths)

    def append(self, logits: Float[Tensor, "N V1"], position: int | Int[Tensor, " N"]) -> Append:
        """The law of the token at `position`; beyond the limit only the end remains.

        Where the network also points into a memory, the end moves behind the pointers.
        """
        full = torch.as_tensor(position >= self.limit, device=logits.device).reshape(-1, 1)
        end = logits[:, self.vocabulary.eos, None]
        tokens = logits[:, :-1]
        if logits.shape[-1] > self.outputs:
            tokens = logits.clone()
            tokens[:, self.vocabulary.eos] = -torch.inf
        return Append(torch.cat([tokens.masked_fill(full, -torch.inf), end], 1))
