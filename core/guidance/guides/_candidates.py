"""What the objectives say of every sequence that differs in one site."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.guidance.guides._sites import Sites
from core.guidance.guides.base import GuideContext


@dataclass(frozen=True, eq=False)
class Candidates:
    """Utilities of the completed sequences and of all that have another token at one of the sites.

    now, utility: NaN under every objective where one of them has no value, and where there is no candidate.
    """

    sites: Sites
    now: Float[Tensor, "R D M"]
    utility: Float[Tensor, "R D P V M"]

    @staticmethod
    def of(sites: Sites, context: GuideContext) -> Candidates:
        """Every distinct sequence is decoded once and scored once."""
        completed = sites.completed
        count, draws = completed.shape[:2]
        row, draw, place, token = sites.open[:, None].expand(-1, draws, -1, -1).nonzero(as_tuple=True)
        changed = completed[row, draw]
        changed[torch.arange(len(row), device=row.device), sites.places[row, place]] = token
        owner = torch.cat([torch.arange(count, device=row.device).repeat_interleave(draws), row])
        scored = _utilities(torch.cat([completed.flatten(0, 1), changed]), owner, sites, context)
        utility = scored.new_full((count, draws, *sites.log_law.shape[1:], scored.shape[1]), torch.nan)
        utility[row, draw, place, token] = scored[count * draws :]
        return Candidates(sites, scored[: count * draws].unflatten(0, (count, draws)), utility)

    @cached_property
    def valid(self) -> Bool[Tensor, "R P V"]:
        """The candidates: tokens that do not stand at the site already, under which every objective has a value."""
        return self.sites.open & ~self.sites.still & ~self.utility[..., 0].isnan().all(1)

    @cached_property
    def undefined(self) -> Bool[Tensor, "R P V"]:
        """Tokens that the site may change to, under which an objective has no value."""
        stays = self.sites.still & ~self.sites.blank[..., None]
        return self.sites.open & ~stays & self.utility[..., 0].isnan().all(1)

    @cached_property
    def base(self) -> Float[Tensor, "R D M"]:
        """What gains are measured from: the sequence as it stands, else the row's worst candidate."""
        worst = torch.where(self.utility.isnan(), torch.inf, self.utility).flatten(1, 3).amin(1)
        return torch.where(self.now.isnan(), worst[:, None], self.now)

    @cached_property
    def gains(self) -> Float[Tensor, "R P V M"]:
        """By how much each candidate is better, over the completions under which it has a value; else 0."""
        gains = (self.utility - self.base[:, :, None, None]).nanmean(1)
        return torch.where(self.valid[..., None], gains, 0.0)


def _utilities(
    tokens: Int[Tensor, "Q S"], owner: Int[Tensor, " Q"], sites: Sites, context: GuideContext
) -> Float[Tensor, "Q M"]:
    """Of sequences of the rows `owner`; a row of NaN where an objective has no value."""
    lengths = sites.layout.lengths[owner]
    kinds, place = torch.unique(torch.cat([tokens, lengths[:, None]], 1), dim=0, return_inverse=True)
    first = torch.empty(len(kinds), dtype=torch.long, device=place.device).scatter_(
        0, place, torch.arange(len(place), device=place.device)
    )
    board = context.scoreboard
    table = torch.from_numpy(board.utility(board.score(context.decode(sites.batch(tokens[first], owner[first])))))
    table = torch.where(table.isfinite().all(1, keepdim=True), table, torch.nan)
    return table.to(tokens.device)[place]
