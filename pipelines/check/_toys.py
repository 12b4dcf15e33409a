"""Small models of every registered process, on which samplers and guides are tried."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding._guiding import Context
from core.decoding.base import Sampler, Samples
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import GuideContext
from core.guidance.items import rules
from core.guidance.known import Known
from core.guidance.objectives.base import Objective, Scoreboard, Target
from core.processes import registry as processes
from core.processes.transitions.base import Transition
from core.registry import Paper
from core.tokenizers.base import Tokenizer, Vocabulary
from core.training.model import GenerativeModel, build_model
from domains.tasks import default_task

_LONGEST = 4
_HELD = 1


@dataclass(frozen=True, eq=False)
class Toy:
    """A process, and a small network that decodes and reads a condition.

    rules: constraints that free runs often break; None for a process that writes numbers.
    """

    key: str
    model: GenerativeModel
    tokenizer: Tokenizer[str]
    rules: ConstraintSet | None

    def start(self, noise: Noise, allowed: Sequence[int] = range(1, _LONGEST + 1)) -> SequenceBatch:
        """Sequences at t = 0, their lengths and conditions by their ids."""
        process = self.model.process
        batch = process.prior(process.lengths(noise, tuple(allowed)), noise)
        asked = noise.sequences % 3 - 1.0
        return replace(batch, condition=torch.stack([asked, torch.ones_like(asked)], 1).double())

    @property
    def kind(self) -> type[Transition]:
        """Of the steps that its process takes."""
        process = self.model.process
        (t, s), *_ = process.grid(2)
        return type(process.transition(self.model.network, self.start(Noise.start(0, torch.arange(2))), t, s))

    def drawn(
        self, sampler: Sampler, ids: Int[Tensor, " N"], seed: int = 4, ruled: bool = False, held: bool = False
    ) -> Samples:
        """The sequences of some ids, `ruled` by the constraints, or with the first place `held`."""
        noise, given = Noise.start(seed, ids), self.rules if ruled else None
        start = self.start(noise) if given is None else self.start(noise, given.feasible_lengths)
        start = holding(start, _HELD) if held else start
        with torch.no_grad():
            return sampler.sample(self.model.process, self.model.network, start, noise, given)

    def context(self) -> Context:
        """What a run is steered by: two objectives, and what is known of them from unguided sequences."""
        letters = () if self.rules is None else self.tokenizer.letters
        board = Scoreboard([Target("first", _Place(0, letters), "max"), Target("last", _Place(-1, letters), "min")])
        plain = self._decoded(self.drawn(Stepwise(steps=2), torch.arange(8)).tokens)
        known = Known.of(board.utility(board.score(plain)))

        def decode(batch: SequenceBatch) -> list[Any]:
            lengths = batch.layout.lengths.tolist()
            return self._decoded([row[:length] for row, length in zip(batch.tokens, lengths, strict=True)])

        return lambda model, noise: GuideContext(model, decode, noise, board, letters, known)

    def _decoded(self, rows: Sequence[Tensor]) -> list[Any]:
        """The object of each row; of numbers, themselves."""
        numbers = self.model.process.writes == "numbers"
        return [tuple(row.flatten().tolist()) if numbers else self.tokenizer.decode(row.tolist()) for row in rows]

    def obeyed(self, samples: Samples) -> bool:
        """Whether every sequence keeps the rules."""
        assert self.rules is not None
        return all(rule.check(value) for value in self._decoded(samples.tokens) for rule in self.rules.constraints)

    def kept(self, samples: Samples) -> bool:
        """Whether what was held is still there; tokens may have been inserted before it."""
        first = 1 if not self.model.process.fills_gaps else None
        return all(bool((row[:first] == _HELD).any()) for row in samples.tokens)


class _Place(Objective):
    """The number at a place, that of a letter being its code."""

    paper = Paper("ours", "One place of a sequence")
    direction, unit, source = "max", "1", "counting"

    def __init__(self, place: int, letters: Sequence[str]) -> None:
        self.place, self.letters = place, letters

    def score(self, sequences: Sequence[Any]) -> NDArray[np.float64]:
        found = [sequence[self.place] if len(sequence) else np.nan for sequence in sequences]
        return np.array([ord(value) if isinstance(value, str) else value for value in found], dtype=float)

    def gradient(self, sequences: Sequence[Any]) -> Float[np.ndarray, "N L V"]:
        """As of `Differentiable`."""
        found = np.zeros((len(sequences), max(map(len, sequences), default=0), len(self.letters)))
        for row, sequence in enumerate(sequences):
            found[row, self.place % max(1, len(sequence))] = [ord(letter) for letter in self.letters]
        return found


def toys() -> list[Toy]:
    """One of each process of ours."""
    tokenizer = default_task("bio").make_tokenizer()
    one, two, three = tokenizer.letters[:3]
    asked = rules([f"contains:{one}", f"forbid:{two}{three}"], default_task("bio").constraints, tokenizer)
    network = {"width": 8, "depth": 1, "pattern": [{"name": "attention", "heads": 2}]}
    found = []
    for key, member in processes.members().items():
        if member.__module__.partition(".")[0] != "core":
            continue
        numbers = member.writes == "numbers"
        config = {"process": {"name": key, "limit": _LONGEST}, "model": network, "condition": [{"name": "asked"}]}
        model = build_model(config, Vocabulary(0) if numbers else tokenizer.vocabulary).double().eval()
        randomise(model.network)
        model.process.fit(torch.arange(_LONGEST) + 1)
        ruled = None if numbers else ConstraintSet(asked, tokenizer, range(1, _LONGEST + 1))
        found.append(Toy(key, model, tokenizer, ruled))
    return found


def one_of_each_kind(found: Sequence[Toy]) -> list[Toy]:
    """The first of each kind of transition: on these alone samplers and guides act."""
    return list({toy.kind: toy for toy in reversed(found)}.values())[::-1]


def randomise(module: nn.Module) -> None:
    """Every parameter random, by its name: modules have the numbers of what they share in common."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            source = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            parameter.copy_(0.5 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=source))


def holding(batch: SequenceBatch, value: int) -> SequenceBatch:
    """`batch` with `value` fixed at the first place; sequences that start empty get it."""
    if not batch.layout.shape[1]:
        layout = Layout.padded(batch.layout.lengths + 1, 1, batch.layout.mask)
        batch = replace(batch, tokens=torch.zeros(layout.shape, dtype=torch.long), layout=layout)
    tokens, fixed = batch.tokens.clone(), torch.zeros_like(batch.tokens, dtype=torch.bool)
    tokens[:, 0], fixed[:, 0] = value, True
    return replace(batch, tokens=tokens, fixed=fixed)
