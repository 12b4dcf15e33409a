"""All the constraints of a run at once: checked for conflicts, then drawn under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.noise import draw
from core.errors import UserError
from core.guidance.constraint_state import ConstraintState
from core.guidance.constraints._completion import Completion
from core.guidance.constraints._deletion import Deletion
from core.guidance.constraints._layered import Layered, TooManyStates
from core.guidance.constraints._nearest import Step, nearest
from core.guidance.constraints._tables import Tables
from core.guidance.constraints.base import Automaton, Constraint, Projection
from core.tokenizers.base import Tokenizer

_MAX_STATES = 200_000


class ConstraintSet:
    """What every sequence of a run must obey, for the lengths the model can write.

    `constraints` are bound to the alphabet: hand these to `violations`. Lengths at which nothing
    obeys all of them are dropped; what is left is `feasible_lengths`, and an empty rest is the
    user's error, told with a smallest subset that already conflicts.

    Two ways to draw tokens. `draw` and `edit` are exact: all free sites at once, from the law of
    independent sites given acceptance. `start`, `allowed` and `advance` follow sequences that grow
    token by token, `insertable` those that grow anywhere; neither leads into a dead end, and
    masking renormalises locally, another law than the first. Sequences of numbers have no
    tokenizer: every constraint is then a `Projection`, and `project` moves points.
    """

    def __init__(
        self, constraints: Sequence[Constraint], tokenizer: Tokenizer[Any] | None, lengths: Sequence[int]
    ) -> None:
        self.size = 0 if tokenizer is None else tokenizer.vocabulary.size
        self._tables: dict[tuple[int, torch.device], Tables] = {}
        self._completions: dict[tuple[int, torch.device], Completion] = {}
        self._deletions: dict[tuple[int, torch.device], Deletion] = {}
        wanted = sorted(set(lengths))
        if not wanted:
            raise ValueError("a set of constraints needs at least one length")
        if tokenizer is None:
            self.constraints = tuple(constraints)
            for constraint in constraints:
                if not isinstance(constraint, Projection):
                    raise UserError(f"constraint {constraint.name} reads tokens, but this task writes numbers; drop it")
            self._layered = {n: Layered.anything(n, 0) for n in wanted}
            return
        self.constraints = tuple(constraint.bind(tokenizer) for constraint in constraints)
        automata = {n: self._automata(tokenizer, n) for n in wanted}
        everything = range(len(self.constraints))
        # A length that one rule refuses outright needs no tables of the others, which may be large.
        parts = {n: self._parts(automata[n], n) for n in wanted if None not in automata[n]}
        layered = {n: self._joined(parts[n], everything, n) for n in parts}
        self._layered = {n: automaton for n, automaton in layered.items() if automaton is not None}
        if not self._layered:
            raise UserError(self._conflict({n: self._parts(automata[n], n) for n in wanted}))

    @property
    def feasible_lengths(self) -> tuple[int, ...]:
        """The lengths at which some sequence obeys everything, ascending."""
        return tuple(self._layered)

    def draw(
        self,
        log_probs: Float[Tensor, "B L V"],
        lengths: Int[Tensor, " B"],
        uniform: Float[Tensor, "B L"],
        settled: Int[Tensor, "B L"],
    ) -> Int[Tensor, "B L"]:
        """All free sites of each row, jointly from the product of its site laws given acceptance.

        `settled` holds the token of sites that stay, -1 elsewhere; sites beyond the length come
        back as 0. `log_probs` need not be normalised. A row that no completion can satisfy raises
        RuntimeError.
        """
        tokens = torch.zeros_like(settled)
        for length, rows in self._groups(lengths):
            law = _forced(log_probs[rows, :length], settled[rows, :length])
            layered = self._layered.get(length)
            if layered is None:
                raise RuntimeError(f"row {int(rows[0])}: no sequence of length {length} is accepted")
            if layered.free:
                drawn = draw(law, uniform[rows, :length])
                lost = (drawn == law.shape[-1]).any(1)
            else:
                drawn, mass = self._table(length, law.device).draw(law, uniform[rows, :length])
                lost = ~mass.isfinite()
            if bool(lost.any()):
                row = int(rows[lost.nonzero()[0, 0]])
                raise RuntimeError(
                    f"row {row}: its settled sites and laws leave no accepted sequence of length {length}"
                )
            tokens[rows, :length] = drawn.to(tokens.dtype)
        return tokens

    def log_mass(
        self,
        log_probs: Float[Tensor, "B L V"],
        lengths: Int[Tensor, " B"],
        settled: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, " B"]:
        """Log-probability that independent draws from the site laws would be accepted, fp64."""
        if settled is None:
            settled = torch.full(log_probs.shape[:2], -1, device=log_probs.device)
        mass = torch.full((len(lengths),), -torch.inf, dtype=torch.double, device=log_probs.device)
        for length, rows in self._groups(lengths):
            if length in self._layered:
                law = _forced(log_probs[rows, :length], settled[rows, :length])
                mass[rows] = self._table(length, law.device).log_mass(law)
        return mass

    def feasible(self, settled: Int[Tensor, "B L"], lengths: Int[Tensor, " B"]) -> Bool[Tensor, " B"]:
        """Which rows have an accepted completion of their settled sites, whatever the law."""
        possible = torch.zeros(len(lengths), dtype=torch.bool, device=settled.device)
        for length, rows in self._groups(lengths):
            layered = self._layered.get(length)
            if layered is not None and layered.free:
                possible[rows] = True
            elif layered is not None:
                held = settled[rows, :length]
                even = torch.zeros(*held.shape, self.size, dtype=torch.double, device=held.device)
                possible[rows] = self._table(length, held.device).possible(_forced(even, held))
        return possible

    def insertable(
        self, tokens: Int[Tensor, "B L"], lengths: Int[Tensor, " B"], closed: Bool[Tensor, "B G"] | None = None
    ) -> Bool[Tensor, "B G V"]:
        """Which token may enter which slot: further insertions lead to something accepted.

        Slot g lies before token g; `closed` slots and those behind a row's length take nothing, now and later.
        """
        allowed = torch.zeros(len(tokens), tokens.shape[1] + 1, self.size, dtype=torch.bool, device=tokens.device)
        for held, rows in self._groups(lengths):
            open_ = torch.ones_like(allowed[:, : held + 1, 0]) if closed is None else ~closed[:, : held + 1]
            # The longest leave the most room: most rows need not ask the others.
            for length in reversed(self.feasible_lengths):
                if length > held and len(rows):
                    found = self._completion(length, tokens.device).insertable(tokens[rows, :held], open_[rows])
                    allowed[rows, : held + 1] |= found
                    left = (open_[rows, :, None] & ~allowed[rows, : held + 1]).flatten(1).any(1)
                    rows = rows[left]
        return allowed

    def edit(self, log_probs: Float[Tensor, "B L V1"], uniform: Float[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """A token for every site, or V to delete it, jointly from the site laws given acceptance of what remains.

        Sites beyond a row's length must be certain to be deleted. A row that no edit can satisfy
        raises RuntimeError.
        """
        if not log_probs.numel():
            drawn = torch.zeros(log_probs.shape[:2], dtype=torch.long, device=log_probs.device)
            lost = torch.full((len(drawn),), 0 not in self._layered, device=log_probs.device)
        else:
            law = log_probs.double().log_softmax(-1)
            drawn, mass = self._deletion(log_probs.shape[1], law.device).draw(law, uniform)
            lost = ~mass.isfinite()
        if bool(lost.any()):
            raise RuntimeError(f"row {int(lost.nonzero()[0, 0])}: its law leaves no accepted sequence to edit to")
        return drawn

    def project(
        self,
        clean: Float[Tensor, "B L C"],
        lengths: Int[Tensor, " B"],
        fixed: Bool[Tensor, "B L C"] | None = None,
    ) -> Float[Tensor, "B L C"]:
        """The nearest points that obey everything, in fp64; `fixed` numbers stay as they are."""
        result = clean.double()
        for length, rows in self._groups(lengths):
            point = result[rows, :length]
            if not point.numel():
                continue
            steps: list[Step] = [lambda part, _, rule=rule: rule.project(part) for rule in self._projections()]
            if fixed is not None:
                # Last, so that what is fixed is kept exactly.
                held = fixed[rows, :length]
                steps.append(
                    lambda part, chosen, held=held, point=point: torch.where(held[chosen], point[chosen], part)
                )
            if steps:
                result[rows, :length], lost = nearest(steps, point)
                if len(lost):
                    names = " and ".join(rule.name for rule in self.constraints)
                    held = "" if fixed is None else " beside what is fixed"
                    raise UserError(f"constraints {names}: no numbers obey them together{held}; loosen or drop one")
        return result

    def start(self, n: int, device: torch.device | str = "cpu") -> ConstraintState:
        """The state of n sequences that hold nothing yet."""
        shape = (n, max(self.feasible_lengths) + 1, len(self.feasible_lengths))
        position = torch.zeros(n, dtype=torch.long, device=device)
        # Every automaton's start is its state 0.
        return ConstraintState(position, torch.zeros(shape, dtype=torch.long, device=device))

    def allowed(self, state: ConstraintState) -> Bool[Tensor, "N V1"]:
        """Which tokens leave some accepted sequence within reach; the last column is the end."""
        position, value = state.position, state.value
        allowed = torch.zeros(len(position), self.size + 1, dtype=torch.bool, device=position.device)
        for k, length in enumerate(self.feasible_lengths):
            table = self._table(length, position.device)
            allowed[:, :-1] |= table.follow(value[:, k], position) >= 0
            allowed[:, -1] |= (position == length) & (value[:, k] >= 0)
        return allowed

    def advance(self, state: ConstraintState, tokens: Int[Tensor, " N"]) -> ConstraintState:
        """The state behind one more token of each row; an end token leaves its row as it is."""
        grows = tokens < self.size
        token = torch.where(grows, tokens, 0)[:, None]
        position, value = state.position, state.value
        reached = [
            self._table(length, position.device).follow(value[:, k], position).gather(1, token)
            for k, length in enumerate(self.feasible_lengths)
        ]
        rows = grows.nonzero()[:, 0]
        after = position + grows
        history = state.history.clone()
        history[rows, after[rows]] = torch.cat(reached, 1)[rows]
        return replace(state, position=after, history=history)

    def _groups(self, lengths: Int[Tensor, " B"]) -> list[tuple[int, Int[Tensor, " R"]]]:
        return [(int(length), (lengths == length).nonzero()[:, 0]) for length in lengths.unique().tolist()]

    def _table(self, length: int, device: torch.device) -> Tables:
        key = (length, device)
        if key not in self._tables:
            self._tables[key] = Tables(self._layered[length], device)
        return self._tables[key]

    def _completion(self, length: int, device: torch.device) -> Completion:
        key = (length, device)
        if key not in self._completions:
            self._completions[key] = Completion(self._layered[length], device)
        return self._completions[key]

    def _deletion(self, longest: int, device: torch.device) -> Deletion:
        key = (longest, device)
        if key not in self._deletions:
            fitting = [automaton for length, automaton in self._layered.items() if length <= longest]
            self._deletions[key] = Deletion(fitting, self.size, device)
        return self._deletions[key]

    def _projections(self) -> list[Projection]:
        rules = [rule for rule in self.constraints if isinstance(rule, Projection)]
        if len(rules) < len(self.constraints):
            raise ValueError("numbers need a set of constraints without a tokenizer")
        return rules

    def _automata(self, tokenizer: Tokenizer[Any], length: int) -> list[Automaton | UserError | None]:
        """What each rule compiles to, or why it is too large, which only matters where no other refuses the length."""
        found: list[Automaton | UserError | None] = []
        for constraint in self.constraints:
            try:
                found.append(constraint.compile(tokenizer, length))
            except UserError as error:
                found.append(error)
        large = next((entry for entry in found if isinstance(entry, UserError)), None)
        if large is not None and None not in found:
            raise large
        return found

    def _parts(self, automata: Sequence[Automaton | UserError | None], length: int) -> list[Layered | None]:
        """Each automaton laid out; None for one that accepts nothing, and what is too large is not blamed."""
        parts: list[Layered | None] = []
        for constraint, automaton in zip(self.constraints, automata, strict=True):
            try:
                if isinstance(automaton, UserError):
                    parts.append(Layered.anything(length, self.size))
                else:
                    parts.append(automaton and Layered.of(automaton, length, self.size, _MAX_STATES))
            except TooManyStates:
                raise _too_large(constraint, length) from None
        return parts

    def _joined(self, parts: Sequence[Layered | None], chosen: Sequence[int], length: int) -> Layered | None:
        """The intersection of some constraints, the smallest first so that it stays small."""
        found: list[tuple[int, int, Layered]] = []
        for index in chosen:
            part = parts[index]
            if part is None:
                return None
            found.append((part.states, index, part))
        found.sort(key=lambda entry: entry[:2])
        joined: Layered | None = Layered.anything(length, self.size)
        for _, _, part in found:
            if joined is None:
                return None
            try:
                joined = joined.intersect(part, _MAX_STATES)
            except TooManyStates:
                raise _too_large(self.constraints[found[-1][1]], length) from None
        return joined

    def _conflict(self, parts: dict[int, list[Layered | None]]) -> str:
        span = f"{min(parts)} to {max(parts)}"
        for count in range(1, len(self.constraints)):
            for chosen in combinations(range(len(self.constraints)), count):
                if all(self._refuses(parts[length], chosen, length) for length in parts):
                    return self._told(chosen, span)
        return self._told(tuple(range(len(self.constraints))), span)

    def _refuses(self, parts: Sequence[Layered | None], chosen: Sequence[int], length: int) -> bool:
        try:
            return self._joined(parts, chosen, length) is None
        except UserError:
            # Too large to tell on its own: not blamed, a larger subset will be.
            return False

    def _told(self, chosen: tuple[int, ...], span: str) -> str:
        names = " and ".join(self.constraints[index].name for index in chosen)
        if len(chosen) == 1:
            return f"constraint {names}: no sequence of length {span} obeys it; loosen it"
        return f"constraints {names}: no sequence of length {span} obeys them together; loosen or drop one"


def _too_large(constraint: Constraint, length: int) -> UserError:
    return UserError(
        f"constraint {constraint.name}: over {_MAX_STATES} automaton states at length {length}; "
        "loosen it, shorten its window or motif, or ask for shorter sequences"
    )


def _forced(log_probs: Float[Tensor, "R L V"], settled: Int[Tensor, "R L"]) -> Float[Tensor, "R L V"]:
    """Normalised fp64 site laws, all mass on the token of a settled site."""
    law = log_probs.double().log_softmax(-1)
    # A site without support has no law: nothing can be drawn there, and its row is refused.
    law = torch.where(law.isnan(), -torch.inf, law)
    certain = torch.full_like(law, -torch.inf).scatter(-1, settled.clamp(min=0)[..., None], 0.0)
    return torch.where((settled >= 0)[..., None], certain, law)
