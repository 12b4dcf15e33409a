"""The contract of every constraint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from core.errors import UserError
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Automaton(ABC):
    """A deterministic automaton over data ids for sequences of one known length.

    States are hashable values. The same automaton must reject early where it can: `advance`
    returns None once no completion can be accepted, though returning a hopeless state is
    merely slow, not wrong, since hopeless states are pruned when the set is compiled.
    `kinds` may label each token: tokens of one label are never told apart, which saves work.
    """

    kinds: Sequence[Hashable] | None = None

    @abstractmethod
    def start(self) -> Hashable:
        """The state before the first token."""

    @abstractmethod
    def advance(self, state: Any, position: int, token: int) -> Hashable | None:
        """The state after `token` at `position`, or None if it is refused there."""

    @abstractmethod
    def accepts(self, state: Any) -> bool:
        """Whether a sequence may end in this state, at the known length."""


class Constraint(ABC):
    """A rule that no output ever breaks.

    It acts while drawing, never by discarding draws: `compile` turns it into an automaton for
    one length, and a set of constraints is intersected, pruned and followed by the samplers.
    `check` judges the written object on its own, by other code than the automaton. `compile`
    and `check` agree on every sequence once the constraint is bound to the alphabet. `kind` is the
    tokenizer's where only its sequences have such a rule.
    """

    paper: ClassVar[Paper]
    kind: ClassVar[str | None] = None

    @property
    @abstractmethod
    def name(self) -> str:
        """As written on the command line, arguments included."""

    def bind(self, tokenizer: Tokenizer[Any]) -> Constraint:
        """This rule as `check` must read it in the alphabet, whose codes may stand for several letters."""
        return self

    @abstractmethod
    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton | None:
        """The automaton for sequences of `length` tokens; None if none of that length is accepted.

        Raises `UserError` naming the constraint when its automaton would be too large.
        """

    @abstractmethod
    def check(self, value: Any) -> bool:
        """Whether a decoded object obeys the rule."""


class Projection(Constraint):
    """A rule on numbers, whose obeying points form a convex set.

    It acts by moving a predicted sequence to the nearest one that obeys. `check` allows for the
    rounding of the numbers' own type.
    """

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton | None:
        raise UserError(f"constraint {self.name} reads numbers, but this task writes tokens; drop it")

    @abstractmethod
    def project(self, clean: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        """The nearest obeying sequences, in data units; every sequence has all L places."""


@dataclass(frozen=True)
class Violation:
    """One broken rule in the output; there should be none."""

    index: int
    constraint: str


def violations(constraints: Sequence[Constraint], values: Sequence[Any]) -> list[Violation]:
    """Every rule that `values` break."""
    return [Violation(i, c.name) for i, value in enumerate(values) for c in constraints if not c.check(value)]
