"""Exact joint draws through one layered automaton, on a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.noise import draw
from core.guidance.constraints._layered import Layered

# fp64 cells of messages held at once; more rows are drawn in turns.
_CELLS = 4_000_000
# An acceptance probability above this loses nothing to underflow: whatever was flushed to zero is
# below 1e-308 a state, so less than 1e-100 of it.
_SAFE = 1e-200


@dataclass(frozen=True, eq=False)
class _Arcs:
    """One layer's steps, each distinct (class, state reached) once.

    `of[state, class]` names the arc, its last index standing for refusal.
    """

    of: Int[Tensor, "S C"]
    kind: Int[Tensor, " D"]
    reached: Int[Tensor, " D"]
    members: Int[Tensor, "C M"]

    @staticmethod
    def build(classes: np.ndarray, after: np.ndarray, device: torch.device) -> _Arcs:
        width = after.shape[1]
        codes = np.where(after < 0, -1, after.astype(np.int64) * width + np.arange(width))
        found = np.unique(codes[codes >= 0])
        of = np.where(codes < 0, len(found), np.searchsorted(found, codes))
        counts = np.bincount(classes, minlength=width)
        # Classes of fewer tokens are filled up with an id past the last, a row of no weight.
        members = np.full((width, counts.max()), len(classes))
        for kind in range(width):
            members[kind, : counts[kind]] = np.flatnonzero(classes == kind)
        tensors = (of, found % width, found // width, members)
        return _Arcs(*(torch.from_numpy(part).to(device) for part in tensors))


class Tables:
    """A layered automaton as tensors.

    States are numbered through all layers: the state also says the position. `after[state,
    class]` is -1 where refused, and has no step out of the last layer.
    """

    def __init__(self, layered: Layered, device: torch.device) -> None:
        self.length = layered.length
        widths = layered.widths
        self.offsets = np.cumsum([0, *widths]).tolist()
        columns = max((table.shape[1] for table in layered.after), default=1)
        after = np.full((layered.states, columns), -1, dtype=np.int64)
        for i, table in enumerate(layered.after):
            rows = slice(self.offsets[i], self.offsets[i + 1])
            after[rows, : table.shape[1]] = np.where(table < 0, -1, table + self.offsets[i + 1])
        size = len(layered.classes[0]) if layered.classes else 1
        classes = np.stack(layered.classes) if layered.classes else np.zeros((0, size), np.int64)
        # One row more: a finished sequence still asks for the classes of its next position.
        classes = np.append(classes, np.zeros((1, size), np.int64), 0)
        self.after = torch.from_numpy(after).to(device)
        self.classes = torch.from_numpy(classes).to(device)
        self._layers = [_Arcs.build(*pair, device=device) for pair in zip(layered.classes, layered.after, strict=True)]

    def follow(self, state: Int[Tensor, " N"], position: Int[Tensor, " N"]) -> Int[Tensor, "N V"]:
        """The state behind each token, -1 where refused or already dead."""
        kinds = self.classes[position.clamp(max=self.length)]
        reached = self.after[state.clamp(min=0)[:, None], kinds]
        return torch.where(state[:, None] < 0, -1, reached)

    def possible(self, log_probs: Float[Tensor, "R L V"]) -> Bool[Tensor, " R"]:
        """Whether anything is accepted within the support of the laws, however unlikely."""
        parts = [self._linear((part > -torch.inf).double())[0][0] > 0 for part in self._parts(log_probs)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool, device=log_probs.device)

    def log_mass(self, log_probs: Float[Tensor, "R L V"]) -> Float[Tensor, " R"]:
        """Log-probability that independent draws from normalised laws are accepted."""
        parts = [self._backward(part)[1] for part in self._parts(log_probs)]
        return torch.cat(parts) if parts else log_probs.new_zeros(0)

    def draw(
        self, log_probs: Float[Tensor, "R L V"], uniform: Float[Tensor, "R L"]
    ) -> tuple[Int[Tensor, "R L"], Float[Tensor, " R"]]:
        """Tokens from the law given acceptance, and the log-mass of acceptance.

        Rows of mass 0 hold arbitrary tokens.
        """
        tokens, masses, first = [], [], 0
        for part in self._parts(log_probs):
            messages, mass = self._backward(part)
            tokens.append(self._forward(part, messages, uniform[first : first + len(part)]))
            masses.append(mass)
            first += len(part)
        return torch.cat(tokens), torch.cat(masses)

    def _parts(self, log_probs: Float[Tensor, "R L V"]) -> tuple[Float[Tensor, "_r L V"], ...]:
        return log_probs.split(max(1, _CELLS // self.offsets[-1])) if len(log_probs) else ()

    def _backward(self, log_probs: Float[Tensor, "R L V"]) -> tuple[list[Float[Tensor, "_S R"]], Float[Tensor, " R"]]:
        """Log-probability of acceptance from each state of each layer, and from the start."""
        messages = self._linear(log_probs.exp())
        small = messages[0][0] < _SAFE
        if bool(small.any()):
            small &= self.possible(log_probs)
        for message in messages:
            message.log_()
        # Rows of which little is accepted: sums of logarithms are slower but never underflow.
        for row in small.nonzero()[:, 0].tolist():
            for message, exact in zip(messages, self._logarithmic(log_probs[row]), strict=True):
                message[:, row] = exact
        return messages, messages[0][0]

    def _linear(self, probs: Float[Tensor, "R L V"]) -> list[Float[Tensor, "_S R"]]:
        message = probs.new_ones(1, len(probs))
        messages = [message]
        for i in reversed(range(self.length)):
            arcs = self._layers[i]
            mass = _sum_rows(arcs.members, probs[:, i].T)
            # No probability is above 1, and of a mere support only whether anything is left counts.
            message = _sum_rows(arcs.of, mass[arcs.kind] * message[arcs.reached]).clamp(max=1.0)
            messages.append(message)
        return messages[::-1]

    def _logarithmic(self, log_probs: Float[Tensor, "L V"]) -> list[Float[Tensor, " _S"]]:
        message = log_probs.new_zeros(1)
        messages = [message]
        for i in reversed(range(self.length)):
            arcs = self._layers[i]
            mass = _with_nothing(log_probs[i])[arcs.members].logsumexp(1)
            message = _with_nothing(mass[arcs.kind] + message[arcs.reached])[arcs.of].logsumexp(1)
            messages.append(message)
        return messages[::-1]

    def _forward(
        self, log_probs: Float[Tensor, "R L V"], messages: list[Float[Tensor, "_S R"]], uniform: Float[Tensor, "R L"]
    ) -> Int[Tensor, "R L"]:
        rows = torch.arange(len(log_probs), device=log_probs.device)
        state = torch.zeros_like(rows)
        tokens = torch.zeros(log_probs.shape[:2], dtype=torch.long, device=log_probs.device)
        for i in range(self.length):
            reached = self.after[state[:, None], self.classes[i]]
            local = (reached - self.offsets[i + 1]).clamp(min=0)
            weights = log_probs[:, i] + messages[i + 1][local, rows[:, None]]
            weights = weights.masked_fill(reached < 0, -torch.inf)
            # A row of mass 0 has no law, and `draw` then answers with an id past the last.
            tokens[:, i] = draw(weights, uniform[:, i]).clamp(max=weights.shape[1] - 1)
            state = reached.gather(1, tokens[:, i : i + 1])[:, 0].clamp(min=self.offsets[i + 1])
        return tokens


def _sum_rows(index: Int[Tensor, "S C"], values: Float[Tensor, "D R"]) -> Float[Tensor, "S R"]:
    """Sums of the rows named, the index behind the last adding nothing.

    Each sum runs in the order written, so a column does not depend on its neighbours.
    """
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])])
    return torch.nn.functional.embedding_bag(index, padded, mode="sum")


def _with_nothing(values: Float[Tensor, " D"]) -> Float[Tensor, " D1"]:
    return torch.cat([values, values.new_full((1,), -torch.inf)])
