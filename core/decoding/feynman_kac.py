"""Particles that are weighed by what they may become."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.noise import Noise, Purpose, draw, log_mean
from core.data.sequence_batch import SequenceBatch
from core.decoding._cloud import Cloud, Form
from core.decoding._guiding import Context, Guiding
from core.decoding._walk import Road, Walk
from core.decoding._worth import ASIDE, aside, completed, refuse_certain_steps, utilities
from core.decoding.base import Particles, Sampler, Samples
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide, GuideContext
from core.processes.base import Network, Process
from core.registry import Paper


class FeynmanKac(Sampler):
    """Sequential Monte Carlo towards p(x) exp(strength u(x)), p being the law of the run from its start.

    The run's constraints and guides belong to p, and so does what is given at t = 0: the length, and where the
    source is drawn x0. u is the sum of weight times utility over the objectives; a sequence for which one
    of them has no finite value has weight 0. spread: each row has weights of its own, those of the objectives
    times a point drawn evenly from the simplex of mean 1, so that rows lie along the front.

    Each row has K `particles` in slots of their own. After every `every`th step an unfinished particle's
    potential is the mean of exp(strength u) over `draws` completions of it, which is unbiased; with draws=0
    only finished sequences count. Completions come from the posterior in one step, whatever the guides. A
    process that writes one token after the other has none, and is drawn to its end: the dearest part, so
    that a larger `every` or no draws may serve it better. `form` says how potentials add up (`diff`, `max`,
    `sum`); the last one makes up for the others, so that all forms have one target.

    Log-weights are kept until a row's effective sample size is below `threshold` K; then it is resampled
    systematically and all of its weights become their mean. So the mean of the last weights is an unbiased
    estimate of the row's normaliser, E[exp(strength u)], and `Samples.particles` holds it with the weighted
    sequences. A row's sequence is one of these, drawn by its weight; as K grows its law becomes the target,
    with one particle it is what `Stepwise` draws. A row none of whose sequences has a value has the
    normaliser 0, and is drawn again as `Stepwise` draws it, unsteered.
    """

    paper = Paper(
        "ours",
        "A General Framework for Inference-time Scaling and Steering of Diffusion Models",
        "2501.06848",
        "weights are kept where nothing is resampled and the last potential always counts; potentials are means "
        "of exponentials; systematic resampling by effective sample size; the normaliser is reported",
    )
    steered = True

    def __init__(
        self,
        particles: int = 8,
        strength: float = 1.0,
        steps: int = 64,
        every: int = 8,
        draws: int = 2,
        form: Form = "diff",
        threshold: float = 0.5,
        spread: bool = False,
        guides: Sequence[Guide] = (),
        context: Context | None = None,
    ) -> None:
        for name, value, least in (
            ("particles", particles, 1),
            ("steps", steps, 1),
            ("every", every, 1),
            ("draws", draws, 0),
        ):
            if value < least:
                raise ValueError(f"{name} {value}: at least {least}")
        if particles * max(1, draws) > ASIDE:
            raise ValueError(f"{particles} particles with {draws} draws each: at most {ASIDE} together")
        if not math.isfinite(strength) or not 0 <= threshold <= 1:
            raise ValueError(f"strength {strength} and threshold {threshold}: a finite number, and a share in [0, 1]")
        if form not in get_args(Form):
            raise ValueError(f"{form!r} is none of {', '.join(get_args(Form))}")
        self.particles, self.strength, self.steps, self.every, self.draws = particles, strength, steps, every, draws
        self.form: Form = form
        self.threshold, self.spread, self.guiding = threshold, spread, Guiding(guides, context)

    def suits(self, process: Process) -> None:
        refuse_certain_steps("feynman_kac", process)

    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
    ) -> Samples:
        self.suits(process)
        count, size, device = start.layout.count, self.particles, start.tokens.device
        road = Road(process, network, self.steps, constraints)
        context = self.guiding.asked(lambda _: road.transition(start, *road.grid[0]), noise)
        aim = _Aim(context, self.strength, self._weights(context, noise), size)
        walk = Walk(road, start.fork(size), noise.fork(size), self.guiding)
        cloud = Cloud(count, size, self.form, device)
        for index in range(len(road.grid)):
            if not len(walk.rows):
                break
            ended = walk.step(index)
            if len(ended):
                cloud.settle(ended, aim.value(walk.outcome(ended), ended))
            if self.draws and len(walk.rows) and (index + 1) % self.every == 0:
                cloud.weigh(walk.rows, self._ahead(walk, index + 1, aim), -math.log(self.draws + 1))
            ancestors = cloud.resampled(self.threshold, noise.at(index).uniform(1, Purpose.SELECT)[:, 0])
            if ancestors is not None:
                walk.take(ancestors)
        tokens = self._drawn(walk, cloud.log_weights, start, noise)
        every = tuple(tuple(walk.finished[row * size + place] for place in range(size)) for row in range(count))
        particles = Particles(every, cloud.log_weights)
        return Samples(tuple(tokens), road.asked.calls, road.asked.rows, particles=particles)

    def _weights(self, context: GuideContext, noise: Noise) -> Float[Tensor, "N M"]:
        """How much each objective counts in each row."""
        given = torch.tensor([target.weight for target in context.scoreboard.targets], dtype=torch.double)
        given = given.to(noise.sequences.device).expand(len(noise.sequences), -1)
        if not self.spread:
            return given
        # Exponential numbers, normalised, are even on the simplex.
        drawn = -torch.log1p(-noise.at(0).uniform(given.shape[1], Purpose.SELECT, lane=2))
        return given * drawn * given.shape[1] / drawn.sum(1, keepdim=True)

    def _ahead(self, walk: Walk, index: int, aim: _Aim) -> Float[Tensor, " R"]:
        """Log-potentials of the unfinished particles before step `index`."""
        turn = index // self.every * self.particles * self.draws
        noise = aside(walk.noise.select(walk.rows), self.draws, turn)
        values = aim.value(completed(walk, index, noise, self.draws), walk.rows.repeat_interleave(self.draws))
        return log_mean(values.reshape(-1, self.draws))

    def _drawn(self, walk: Walk, log_weights: Float[Tensor, "N K"], start: SequenceBatch, noise: Noise) -> list[Tensor]:
        """One particle of each row by its weight; a sequence of its own for a row in which all weigh nothing."""
        road, size = walk.road, self.particles
        lost = (log_weights == -torch.inf).all(1)
        ending = noise.at(len(road.grid)).uniform(1, Purpose.SELECT, lane=1)[:, 0]
        chosen = draw(log_weights.masked_fill(lost[:, None], 0.0), ending).tolist()
        tokens = [walk.finished[row * size + place] for row, place in enumerate(chosen)]
        rows = lost.nonzero()[:, 0]
        if len(rows):
            plain = Walk(road, start.select(rows), noise.select(rows), self.guiding)
            plain.run(0, len(road.grid))
            for place, row in enumerate(rows.tolist()):
                tokens[row] = plain.finished[place]
        return tokens


@dataclass(frozen=True, eq=False)
class _Aim:
    """strength u of finished sequences, `weights` being those of the objectives in each row of K places."""

    context: GuideContext
    strength: float
    weights: Float[Tensor, "N M"]
    size: int

    def value(self, finished: SequenceBatch, places: Int[Tensor, " R"]) -> Float[Tensor, " R"]:
        """-inf for a sequence without a finite value."""
        table = utilities(finished, self.context)
        value = self.strength * (self.weights[places // self.size] * table).sum(1)
        return torch.where(table.isfinite().all(1), value, -torch.inf)
