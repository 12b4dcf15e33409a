"""What finished sequences are worth, and unfinished ones by finishing them."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding._reader import alike
from core.decoding._walk import Walk
from core.errors import UserError
from core.guidance.guides.base import GuideContext
from core.processes.base import Process
from core.processes.continuous_flow import ContinuousFlow

# Slots of the noise from here on, as many again, belong to sequences that are finished only to be looked at.
ASIDE = 1 << 14


def refuse_certain_steps(sampler: str, process: Process) -> None:
    """`UserError` for a process whose steps leave nothing to chance, so that copies of a sequence stay equal."""
    if isinstance(process, ContinuousFlow):
        raise UserError(f"sampler={sampler} needs steps that draw, a continuous_flow's do not: use sampler=stepwise")


def utilities(finished: SequenceBatch, context: GuideContext) -> Float[Tensor, "R M"]:
    """Of each sequence, NaN where an objective has no value; each distinct one is decoded and asked for once."""
    first, owner = alike(finished)
    board = context.scoreboard
    table = board.utility(board.score(context.decode(finished.select(first))))
    return torch.from_numpy(table).to(owner.device)[owner]


def completed(walk: Walk, index: int, noise: Noise, draws: int) -> SequenceBatch:
    """`draws` completions of each sequence of a walk, which stands before step `index` of the grid.

    One step to the end of time where there is one, so that every free site comes from its posterior, jointly
    under constraints. A kind that adds one token after the other is drawn to the end, step by step.
    noise: of R draws rows, the completions of a sequence following each other.
    """
    road, forked = walk.road, walk.batch.fork(draws)
    if not walk.grows:
        to_the_end = road.transition(forked, road.grid[index][0], 1.0)
        return to_the_end.draw(forked, noise.at(index), road.constraints, None).batch
    ahead = Walk(road, forked, noise)
    ahead.run(index, len(road.grid))
    return ahead.outcome(torch.arange(forked.layout.count, device=forked.tokens.device))


def aside(noise: Noise, draws: int, turn: int) -> Noise:
    """`draws` rows for each one, in slots where nothing else is drawn; those of another `turn` are other ones."""
    forked = noise.fork(draws)
    return replace(forked, slots=ASIDE + (forked.slots + turn) % ASIDE)
