"""Which insertions leave an accepted sequence within reach."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from core.guidance.constraints._layered import Layered

# Cells of one layer's comparison held at once; more rows are taken in turns.
_CELLS = 4_000_000


class Completion:
    """The layers of one automaton, read for sequences into which tokens are still inserted.

    A sequence can be completed if it is a subsequence of an accepted one. The places of its
    tokens are not known, so a set of states is kept for every layer and every number of tokens
    that stand before it.
    """

    def __init__(self, layered: Layered, device: torch.device) -> None:
        self.length = layered.length
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._cells = 1
        for classes, table, width in zip(layered.classes, layered.after, layered.widths[1:], strict=True):
            after = torch.from_numpy(table).long()
            # A refused step leads to a state past the last, from which nothing is reached.
            after = torch.where(after < 0, width, after)
            self._layers.append((torch.from_numpy(classes).to(device), after.to(device)))
            self._cells = max(self._cells, after.numel())

    def insertable(self, tokens: Int[Tensor, "R L"], open_: Bool[Tensor, "R G"]) -> Bool[Tensor, "R G V"]:
        """Which token may enter which slot of each sequence; slot g lies before token g, and only
        those that are open are ever filled."""
        if all(table.shape == (1, 1) for _, table in self._layers):
            return open_[..., None].expand(*open_.shape, len(self._layers[0][0]))
        rows = max(1, _CELLS // (self._cells * (tokens.shape[1] + 1)))
        parts = zip(tokens.split(rows), open_.split(rows), strict=True)
        return torch.cat([self._allowed(*part) for part in parts])

    def _allowed(self, tokens: Int[Tensor, "R L"], open_: Bool[Tensor, "R G"]) -> Bool[Tensor, "R G V"]:
        count, held = tokens.shape
        behind = self._behind(tokens, open_)
        ahead = torch.zeros(count, held + 1, 1, dtype=torch.bool, device=tokens.device)
        ahead[:, 0] = True
        allowed = torch.zeros(count, held + 1, len(self._layers[0][0]), dtype=torch.bool, device=tokens.device)
        for (classes, after), left in zip(self._layers, behind[1:], strict=True):
            left = pad(left, (0, 1))
            filling = ahead & open_[..., None]
            allowed |= (filling[..., None] & left[:, :, after]).any(2)[:, :, classes]
            # Forward: one more inserted token of any kind, or the next of the sequence.
            spread = filling[..., None].expand(*ahead.shape, after.shape[1]).flatten(2).float()
            reached = torch.zeros(left.shape, device=tokens.device).index_add_(2, after.flatten(), spread)
            reached[:, 1:].scatter_add_(2, after.T[classes[tokens]], ahead[:, :-1].float())
            ahead = reached[..., :-1] > 0
        return allowed

    def _behind(self, tokens: Int[Tensor, "R L"], open_: Bool[Tensor, "R G"]) -> list[Bool[Tensor, "R G _S"]]:
        """For each layer: whether the tokens from the k-th on can still be placed from a state."""
        last = torch.zeros(len(tokens), tokens.shape[1] + 1, 1, dtype=torch.bool, device=tokens.device)
        last[:, -1] = True
        behind = [last]
        for classes, after in reversed(self._layers):
            left = pad(behind[-1], (0, 1))
            possible = left[:, :, after].any(-1) & open_[..., None]
            possible[:, :-1] |= left[:, 1:].gather(2, after.T[classes[tokens]])
            behind.append(possible)
        return behind[::-1]
