"""Where a mixture path starts: the law of x0, which the path mixes with the data x1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.data.noise import Noise, Purpose, draw
from core.data.packing import unpack
from core.data.sequence_batch import SOURCE, SequenceBatch
from core.errors import UserError
from core.processes._sites import site_uniform
from core.tokenizers.base import Vocabulary


class Source(nn.Module, ABC):
    """The law of x0 given the batch: its sites are independent of each other and of the data.

    A token that x0 never shows at a site can only be the data's: such a site is final. `timed`:
    whether P(x1 | x_t) depends on the time. `paired`: whether x0 tells the length.
    """

    timed: ClassVar[bool] = True
    paired: ClassVar[bool] = False

    @abstractmethod
    def draw(self, batch: SequenceBatch, noise: Noise) -> Int[Tensor, "B S"]:
        """x0 at every site; places of padding hold any token."""

    @abstractmethod
    def possible(self, batch: SequenceBatch) -> Bool[Tensor, "B S"]:
        """Where the present token of `batch` may be one of x0."""

    def fit(self, counts: Int[Tensor, " V"]) -> None:
        """Learn from how often each token occurs in training; nothing by default."""

    def require(self, batch: SequenceBatch) -> None:
        """`UserError` where `batch` lacks what x0 is made of."""


class SiteSource(Source):
    """x0 draws each site from the law of its field, whatever the batch."""

    @abstractmethod
    def laws(self) -> Float[Tensor, "F V"]:
        """Probabilities of the data tokens, for each field; what they lack of 1 goes to other ids."""

    @abstractmethod
    def chance(self, batch: SequenceBatch) -> Float[Tensor, "B S"]:
        """The probability of the present token of each site."""

    def possible(self, batch: SequenceBatch) -> Bool[Tensor, "B S"]:
        return self.chance(batch) > 0


class MaskSource(SiteSource):
    """x0 shows the mask token alone."""

    timed = False
    none: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.mask = vocabulary.mask
        self.register_buffer("none", torch.zeros(1, vocabulary.size, dtype=torch.float64), persistent=False)

    def draw(self, batch: SequenceBatch, noise: Noise) -> Int[Tensor, "B S"]:
        return torch.full_like(batch.tokens.flatten(1), self.mask)

    def laws(self) -> Float[Tensor, "F V"]:
        return self.none.double()

    def chance(self, batch: SequenceBatch) -> Float[Tensor, "B S"]:
        return (batch.tokens.flatten(1) == self.mask).double()


class TokenSource(SiteSource):
    """Each site draws a data token from one law `[V]`; a field, from that law on its own tokens.

    learnt: whether the law is the training unigram; it then belongs to the model's weights.
    """

    law: Tensor
    support: Tensor

    def __init__(self, law: Float[Tensor, " V"], support: Bool[Tensor, "F V"] | None, learnt: bool) -> None:
        super().__init__()
        self.learnt = learnt
        every = torch.ones(1, len(law), dtype=torch.bool) if support is None else support
        self.register_buffer("support", every, persistent=False)
        self.register_buffer("law", self._whole(law), persistent=learnt)

    def fit(self, counts: Int[Tensor, " V"]) -> None:
        if self.learnt:
            self.law.copy_(self._whole(counts))

    def _whole(self, weights: Tensor) -> Float[Tensor, " V"]:
        """Probabilities from weights of which every field has some."""
        if bool(((self.support * weights).sum(1) == 0).any()):
            raise UserError("the source's law leaves no token to start from: every field needs one")
        return weights.double() / weights.sum()

    def laws(self) -> Float[Tensor, "F V"]:
        inside = torch.where(self.support, self.law.double(), 0.0)
        return inside / inside.sum(1, keepdim=True)

    def draw(self, batch: SequenceBatch, noise: Noise) -> Int[Tensor, "B S"]:
        uniform = site_uniform(batch, noise, Purpose.PRIOR)
        laws = self.laws().log()
        each = uniform.unflatten(1, (uniform.shape[1] // len(laws), len(laws))).unbind(-1)
        return torch.stack([draw(law, numbers) for law, numbers in zip(laws, each, strict=True)], -1).flatten(1)

    def chance(self, batch: SequenceBatch) -> Float[Tensor, "B S"]:
        laws, tokens = self.laws(), batch.tokens.flatten(1)
        field = torch.arange(tokens.shape[1], device=tokens.device) % len(laws)
        inside = tokens < laws.shape[1]
        return torch.where(inside, laws[field, torch.where(inside, tokens, 0)], 0.0)


class PairedSource(Source):
    """x0 is the sequence that the memory `source` pairs with each one, of equal length."""

    paired = True

    def draw(self, batch: SequenceBatch, noise: Noise) -> Int[Tensor, "B S"]:
        return self._tokens(batch)

    def possible(self, batch: SequenceBatch) -> Bool[Tensor, "B S"]:
        return batch.tokens.flatten(1) == self._tokens(batch)

    def require(self, batch: SequenceBatch) -> None:
        memory = batch.memories.get(SOURCE)
        if memory is None or bool((memory.owner < 0).any()):
            raise UserError(f"a coupled source needs the memory {SOURCE!r} of every sequence: give pairs")
        lengths = memory.batch.layout.lengths[memory.owner]
        wrong = (lengths != batch.layout.lengths).nonzero()[:, 0]
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"sequence {row + 1} has {int(batch.layout.lengths[row])} tokens, its source {int(lengths[row])}: "
                "a coupled source needs pairs of equal length"
            )

    def _tokens(self, batch: SequenceBatch) -> Int[Tensor, "B S"]:
        memory, layout = batch.memories[SOURCE], batch.layout
        source = memory.batch
        rows = source.tokens
        if source.layout.is_packed:
            rows = unpack(rows, source.layout, source.layout.longest)
        if not rows.numel():
            return batch.tokens.flatten(1)
        return rows[memory.owner[layout.owners.clamp_min(0)], layout.offsets].flatten(1)


def build_source(source: str | Sequence[float], vocabulary: Vocabulary, support: Bool[Tensor, "F V"] | None) -> Source:
    """The source that `MixtureFlow` describes; ValueError for anything else."""
    if source == "mask":
        return MaskSource(vocabulary)
    if source == "coupled":
        return PairedSource()
    if source in ("uniform", "marginal"):
        return TokenSource(torch.ones(vocabulary.size), support, source == "marginal")
    if isinstance(source, str):
        raise ValueError(f"{source!r} is none of mask, uniform, marginal, coupled, nor a list of probabilities")
    law = torch.tensor([*source], dtype=torch.float64)
    if law.shape != (vocabulary.size,):
        raise ValueError(f"the source's law has {len(law)} probabilities, the alphabet {vocabulary.size} tokens")
    if not bool((law >= 0).all()) or abs(float(law.sum()) - 1) > 1e-3:
        raise ValueError(f"the source's law must be probabilities that sum to 1, not to {float(law.sum()):g}")
    return TokenSource(law, support, learnt=False)
