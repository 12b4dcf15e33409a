"""The search behind beams: the likeliest beginnings of each row, in groups that avoid each other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.noise import Noise, refuse_undefined
from core.data.sequence_batch import SequenceBatch
from core.decoding._reader import Asked, Reader
from core.decoding.base import Hypothesis, Sampler, Samples
from core.guidance.constraint_set import ConstraintSet
from core.processes.base import Network, Process
from core.processes.transitions.append import appended, caught_up


class Search(Sampler):
    """Beam search from every row of a batch at once; needs a network that decodes. Noise plays no part.

    Each of `groups` groups keeps up to width / groups unfinished beginnings of a row. At each step it
    takes that many extensions, the end being one: those of the largest log-probability less
    `diversity` times the number of times that the groups before it have taken the same token for the
    row in this step. An extension by the end is finished, and kept as long as it is among the best
    width / groups of its group by

        score = log p / (number of tokens behind the prompt, the end included) ** length_power.

    Log-probabilities are the model's own, of what stands behind the prompt; constraints only
    exclude, and do not renormalise. Ties go to the better beginning, then to the smaller id. What can
    no longer come among the best finished ones is dropped, so that nothing is lost by it.
    """

    searches = True
    widened_by = "width"

    def __init__(
        self,
        width: int,
        groups: int,
        diversity: float,
        length_power: float,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        if width < 1 or groups < 1 or width % groups:
            raise ValueError(f"width {width} and groups {groups}: the groups share the width evenly, each at least 1")
        if not 0 <= diversity < float("inf") or not 0 <= length_power < float("inf"):
            raise ValueError(f"diversity {diversity} and length_power {length_power}: both are finite, at least 0")
        self.size, self.groups, self.diversity = width // groups, groups, diversity
        self.length_power, self.progress = length_power, progress

    @abstractmethod
    def suits(self, process: Process) -> None: ...

    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
    ) -> Samples:
        """The likeliest sequence of each row, and all that were found; RuntimeError for a row that has none."""
        count, device = start.layout.count, start.tokens.device
        asked = Asked(network)
        reader = Reader(process, asked, start)
        # Cell c holds the beginnings of row c // groups in group c % groups.
        cell = torch.arange(count * self.groups, device=device)
        batch = start.select(cell // self.groups)
        reader.select(cell // self.groups)
        running = None
        if constraints is not None:
            running = caught_up(constraints.start(count, device), start, constraints).select(cell // self.groups)
        log_p = torch.zeros(len(cell), dtype=torch.double, device=device)
        found: list[list[Hypothesis]] = [[] for _ in cell]
        step = 0
        while len(cell):
            law = reader.next(batch).law(batch).double()
            refuse_undefined(law)
            if constraints is not None and running is not None:
                law = law.masked_fill(~constraints.allowed(running), -torch.inf)
            step += 1
            parent, tokens = self._chosen(cell, log_p[:, None] + law, count)
            cell, log_p = cell[parent], log_p[parent] + law[parent, tokens]
            ended = tokens == law.shape[1] - 1
            self._finish(found, cell[ended], batch.select(parent[ended]), log_p[ended], step)
            keep = ~ended & self._hopeful(found, cell, log_p, process.limit + 1)
            cell, log_p, parent, tokens = cell[keep], log_p[keep], parent[keep], tokens[keep]
            batch = appended(batch.select(parent), tokens, torch.ones_like(tokens, dtype=torch.bool))
            if constraints is not None and running is not None:
                running = constraints.advance(running.select(parent), tokens)
            if len(cell):
                reader.select(parent)
                reader.step(tokens)
            if self.progress is not None:
                self.progress(count - len((cell // self.groups).unique()), count)
        ranked = tuple(self._ranked(found, row) for row in range(count))
        return Samples(tuple(best[0].tokens for best in ranked), asked.calls, asked.rows, ranked=ranked)

    def _chosen(
        self, cell: Int[Tensor, " R"], totals: Float[Tensor, "R V1"], count: int
    ) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"]]:
        """The beginnings that go on and the tokens they go on with, by cell and within it best first."""
        width, size = totals.shape[1], self.size
        taken = totals.new_zeros(count, width)
        cells, parents, tokens = [], [], []
        for group in range(self.groups):
            here = (cell % self.groups == group).nonzero()[:, 0]
            row = cell[here] // self.groups
            place = torch.arange(len(here), device=cell.device) - torch.searchsorted(row, row)
            table = totals.new_full((count, size, width), -torch.inf)
            table[row, place] = totals[here]
            source = cell.new_zeros(count, size)
            source[row, place] = here
            sought = (table - self.diversity * taken[:, None]).flatten(1)
            # Stable, so that ties go to the first.
            best = torch.sort(sought, dim=1, descending=True, stable=True).indices[:, :size]
            owner, rank = (sought.gather(1, best) > -torch.inf).nonzero(as_tuple=True)
            chosen = best[owner, rank]
            taken.index_put_((owner, chosen % width), taken.new_ones(()), accumulate=True)
            cells.append(owner * self.groups + group)
            parents.append(source[owner, chosen // width])
            tokens.append(chosen % width)
        order = torch.cat(cells).argsort(stable=True)
        return torch.cat(parents)[order], torch.cat(tokens)[order]

    def _finish(
        self,
        found: list[list[Hypothesis]],
        cell: Int[Tensor, " E"],
        batch: SequenceBatch,
        log_p: Float[Tensor, " E"],
        step: int,
    ) -> None:
        """Sequences that end with their `step`th token join what their cells have found."""
        lengths = batch.layout.lengths.tolist()
        for index, (home, value) in enumerate(zip(cell.tolist(), log_p.tolist(), strict=True)):
            tokens = batch.tokens[index, : lengths[index]]
            found[home].append(Hypothesis(tokens, value, value / step**self.length_power))
            found[home] = sorted(found[home], key=_order)[: self.size]

    def _hopeful(
        self, found: list[list[Hypothesis]], cell: Int[Tensor, " K"], log_p: Float[Tensor, " K"], longest: int
    ) -> Bool[Tensor, " K"]:
        """Which may still come among the best of their cell: no score exceeds that of a sure rest of full length."""
        full = [kept[-1].score if len(kept) == self.size else -torch.inf for kept in found]
        worst = torch.tensor(full, dtype=torch.double, device=cell.device)
        return log_p / longest**self.length_power >= worst[cell]

    def _ranked(self, found: list[list[Hypothesis]], row: int) -> tuple[Hypothesis, ...]:
        """What all groups have found for a row; groups that met on a sequence count it once."""
        distinct = {
            tuple(hypothesis.tokens.tolist()): hypothesis
            for kept in found[row * self.groups : (row + 1) * self.groups]
            for hypothesis in kept
        }
        if not distinct:
            raise RuntimeError(f"row {row}: its law leaves no accepted sequence within reach")
        return tuple(sorted(distinct.values(), key=_order))


def _order(hypothesis: Hypothesis) -> tuple[float, list[int]]:
    return -hypothesis.score, hypothesis.tokens.tolist()
