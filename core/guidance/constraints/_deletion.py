"""Exact joint draws of replacements and deletions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.noise import draw
from core.guidance.constraints._layered import Layered

# fp64 cells of one message held at once; more rows are drawn in turns.
_CELLS = 4_000_000


class Deletion:
    """Automata of several lengths side by side, over the tokens and a symbol that deletes.

    Deleting leaves the state as it is, so what remains is accepted at whatever length it has.
    All states are numbered through; the one past the last is dead.
    """

    def __init__(self, automata: Sequence[Layered], size: int, device: torch.device) -> None:
        layers = [row for automaton in automata for row in automaton.classes] or [np.zeros(size, np.int64)]
        # Tokens that no layer tells apart share a column; deleting has the last one.
        _, examples, kinds = np.unique(np.stack(layers), axis=1, return_index=True, return_inverse=True)
        width = len(examples)
        dead = sum(automaton.states for automaton in automata)
        after = np.full((dead + 1, width + 1), dead, dtype=np.int64)
        after[:, width] = np.arange(dead + 1)
        starts, ends = [], []
        first = 0
        for automaton in automata:
            offsets = first + np.cumsum([0, *automaton.widths])
            for i, (classes, table) in enumerate(zip(automaton.classes, automaton.after, strict=True)):
                reached = table[:, classes[examples]]
                after[offsets[i] : offsets[i + 1], :width] = np.where(reached < 0, dead, reached + offsets[i + 1])
            starts.append(first)
            first += automaton.states
            ends.append(first - 1)
        self._after = torch.from_numpy(after).to(device)
        self._kinds = torch.from_numpy(np.append(kinds.reshape(-1), width)).to(device)
        self._starts = torch.tensor(starts, dtype=torch.long, device=device)
        self._ends = torch.tensor(ends, dtype=torch.long, device=device)

    def draw(
        self, log_probs: Float[Tensor, "R L V1"], uniform: Float[Tensor, "R L"]
    ) -> tuple[Int[Tensor, "R L"], Float[Tensor, " R"]]:
        """A symbol for every site given that what remains is accepted, and the log-mass of that.

        Rows of mass 0 hold arbitrary symbols.
        """
        rows = max(1, _CELLS // self._after.numel())
        parts = [self._draw(*part) for part in zip(log_probs.split(rows), uniform.split(rows), strict=True)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _draw(
        self, log_probs: Float[Tensor, "R L V1"], uniform: Float[Tensor, "R L"]
    ) -> tuple[Int[Tensor, "R L"], Float[Tensor, " R"]]:
        count, sites, symbols = log_probs.shape
        message = log_probs.new_full((count, len(self._after)), -torch.inf)
        message[:, self._ends] = 0
        messages = [message]
        masses = torch.stack(
            [log_probs[..., self._kinds == kind].logsumexp(-1) for kind in range(self._after.shape[1])], -1
        )
        # In logarithms, so that no acceptance is too unlikely to be met.
        for i in reversed(range(sites)):
            messages.append((messages[-1][:, self._after] + masses[:, i, None]).logsumexp(-1))
        messages.reverse()
        chosen = torch.zeros(count, sites, dtype=torch.long, device=log_probs.device)
        # One state for each length that may come out, all of them followed at once.
        state = self._starts.expand(count, -1)
        for i in range(sites):
            reached = self._after[state]
            left = messages[i + 1].gather(1, reached.flatten(1)).reshape(reached.shape).logsumexp(1)
            # A row of mass 0 has no law, and `draw` then answers with a symbol past the last.
            chosen[:, i] = draw(log_probs[:, i] + left[:, self._kinds], uniform[:, i]).clamp(max=symbols - 1)
            kind = self._kinds[chosen[:, i]]
            state = reached.gather(2, kind[:, None, None].expand(-1, reached.shape[1], 1))[..., 0]
        return chosen, messages[0][:, self._starts].logsumexp(1)
