"""Laws of predictor guidance (4.11): strength 1 is the law given what is asked for; each with planted faults."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.first_hitting import FirstHitting
from core.errors import UserError
from core.guidance.guides import _likelihood, predictor, taylor
from core.guidance.guides._sites import CAP, Sites
from core.guidance.guides.base import Guide
from core.guidance.guides.predictor import Predictor
from core.guidance.guides.taylor import Taylor
from core.guidance.objectives.base import Objective, Scoreboard, Target
from core.processes.transitions.substitute import Substitute
from tests.laws.toy_chains import SIZE, VOCABULARY, ChainToy
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_kinds import fit
from tests.laws.toy_objectives import Share, Table, board, context_on
from tests.laws.toys import batch_of, site_kernel

LEAST_P = 1e-5  # frozen
DRAWS = 4000
TEXTS = ["".join(letters) for letters in itertools.product("ABC", repeat=2)]
# p(c | x1) of every sequence: its letters hang together.
CHANCE = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) ** 2 + 0.02


def independent() -> ChainToy:
    """A masked flow whose data letters are independent, so that posteriors of single sites say everything."""
    toy = ChainToy("mixture_flow", "mask")
    source = torch.Generator().manual_seed(3)
    first, second = (torch.rand(SIZE, dtype=torch.float64, generator=source) + 0.1 for _ in range(2))
    toy.q = torch.outer(first / first.sum(), second / second.sum()).flatten()
    return toy


def conditional(toy: ChainToy, chance: Tensor = CHANCE) -> Tensor:
    """q(x | c)."""
    return toy.q * chance / (toy.q @ chance)


def looked_up(chance: Tensor) -> Table:
    return Table(dict(zip(TEXTS, chance.log().tolist(), strict=True)))


def distance(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return float((one - other).abs().sum()) / 2


def guided(guide: Guide, step: Substitute, batch: SequenceBatch, scores: Scoreboard, seed: int = 0) -> Substitute:
    noise = Noise.start(seed, torch.arange(batch.layout.count))
    context = context_on(scores)(lambda condition: step, noise)
    tilted = guide.reweight(step, batch, 0.3, 0.4, context)
    assert isinstance(tilted, Substitute)
    return tilted


# --- 4.11, under a mask -----------------------------------------------------------------


def where_sites_go(guide: Guide, toy: ChainToy, state: list[int], rows: int = 16) -> Tensor:
    """The guided law of where each site goes from a state, `[L, V]`, averaged over the completions of some rows."""
    batch = batch_of(torch.tensor([state]).expand(rows, -1).clone())
    step = toy.process.transition(toy.exact, batch, 0.3, 0.4)
    # Every masked site moves: what is looked at are those that do.
    step = replace(step, jump=(step.jump > 0).double())
    tilted = guided(guide, step, batch, board(looked_up(CHANCE)))
    return tilted.law(batch, torch.arange(rows))[1].exp().mean(0)


def guided_law(guide: Guide, toy: ChainToy) -> Tensor:
    """Of whole sequences, sites moving one after the other in either order: the limit of short steps."""
    mask = VOCABULARY.mask
    total = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    first = where_sites_go(guide, toy, [mask, mask])
    for token in range(SIZE):
        total[token] += 0.5 * first[0, token] * where_sites_go(guide, toy, [token, mask])[1]
        total[:, token] += 0.5 * first[1, token] * where_sites_go(guide, toy, [mask, token])[0]
    return total.flatten()


def short_steps_under_a_mask_give_the_conditional_law(strength: float = 1.0) -> None:
    toy = independent()
    wanted = conditional(toy, CHANCE**strength)
    assert distance(toy.q, wanted) > 0.1
    assert distance(guided_law(Predictor(strength, draws=512), toy), wanted) < 0.01


def runs_under_a_mask_give_the_conditional_law() -> None:
    toy, ids = independent(), torch.arange(DRAWS)
    noise = Noise.start(7, ids)
    sampler = FirstHitting(guides=[Predictor(draws=32)], context=context_on(board(looked_up(CHANCE))))
    rows = sampler.sample(toy.process, toy.exact, toy.start(DRAWS, noise), noise).tokens
    wanted = dict(zip(map(tuple, toy.sequences.tolist()), conditional(toy).tolist(), strict=True))
    found = [tuple(row.tolist()) for row in rows]
    assert fit(wanted, found) > LEAST_P
    plain = dict(zip(wanted, toy.q.tolist(), strict=True))
    assert fit(plain, found) < LEAST_P


def masked_sites_keep_their_times() -> None:
    """A site without a token jumps as often as before, whatever the weights."""
    toy = independent()
    batch = batch_of(torch.full((50, 2), VOCABULARY.mask))
    step = toy.process.transition(toy.exact, batch, 0.3, 0.4)
    tilted = guided(Predictor(3.0), step, batch, board(looked_up(CHANCE)))
    rows = torch.arange(50)
    jump, log_law = tilted.law(batch, rows)
    assert torch.allclose(jump, step.jump, rtol=0, atol=1e-12)
    assert not torch.allclose(log_law, step.law(batch, rows)[1])


# --- 4.11, where every site shows a token -----------------------------------------------


class Noisy(Objective):
    """log p(c | x_t), exact: a predictor that was trained on noisy sequences."""

    paper = Table.paper
    direction, unit, source = "max", "nats", "enumeration"

    def __init__(self, toy: ChainToy) -> None:
        self.toy, self.kappa = toy, 0.0

    def score(self, sequences: Any) -> NDArray[np.float64]:
        seen = self.toy.forward(self.kappa, to=self.toy.sequences) * self.toy.q[:, None]
        chance = (CHANCE @ seen / seen.sum(0)).log().tolist()
        return np.array([chance[TEXTS.index(text)] for text in sequences])


def chain_law(steps: int, strength: float = 1.0) -> Tensor:
    """Of guided uniform diffusion whose letters hang together, by its kernels over all states."""
    toy = ChainToy("udlm")
    noisy = Noisy(toy)

    def kernel(t: float, s: float) -> Tensor:
        noisy.kappa = toy.kappa(t)
        batch = batch_of(toy.states)
        step = toy.process.transition(toy.exact, batch, t, s)
        jump, log_law = guided(Predictor(strength), step, batch, board(noisy)).law(
            batch, torch.arange(len(batch.tokens))
        )
        return toy.joined(site_kernel(toy.states, jump, log_law.exp(), VOCABULARY.total))

    return toy.propagated(steps, kernel)


def short_steps_give_the_conditional_law() -> None:
    """At the rate of the steps: half as long, half as far."""
    toy = ChainToy("udlm")
    wanted = conditional(toy)
    assert distance(toy.q, wanted) > 0.1
    coarse, fine = (distance(chain_law(steps), wanted) for steps in (40, 80))
    assert fine < 0.02 and 1.6 < coarse / fine < 2.4


# --- by the gradient --------------------------------------------------------------------


class Bent(Share):
    """The square of a share, and its gradient."""

    def score(self, sequences: Any) -> NDArray[np.float64]:
        return super().score(sequences) ** 2

    def gradient(self, sequences: Any) -> NDArray[np.float64]:
        return 2 * super().score(sequences)[:, None, None] * super().gradient(sequences)


class Odds(Share):
    """exp(share - 1.4), a probability whose logarithm is linear."""

    def score(self, sequences: Any) -> NDArray[np.float64]:
        return np.exp(super().score(sequences) - 1.4)

    def gradient(self, sequences: Any) -> NDArray[np.float64]:
        return self.score(sequences)[:, None, None] * super().gradient(sequences)


def error_of_the_gradient(objectives: Scoreboard, source: str, **options: Any) -> float:
    """The largest difference that it makes to a log-probability of where a site goes."""
    toy = ChainToy("mixture_flow", source)
    states = toy.states.repeat(4, 1)
    batch = batch_of(states)
    step = toy.process.transition(toy.exact, batch, 0.3, 0.5)
    laws = []
    for member in (Predictor, Taylor):
        tilted = guided(member(1.7, draws=3, **options), step, batch, objectives)
        laws.append(tilted.law(batch, torch.arange(len(states)))[1])
    return float((laws[0] - laws[1]).abs().max())


def the_gradient_of_a_linear_predictor_is_exact() -> None:
    linear = board(Share("A", tilt=0.5), Share("C"), weights=[1.0, 2.0])
    lowered = Scoreboard([Target("a", Share("A"), "min"), Target("c", Odds("C", tilt=0.3), "max")])
    for source in ("mask", "uniform"):
        assert error_of_the_gradient(linear, source) < 1e-12
        assert error_of_the_gradient(board(Odds("A", tilt=0.5)), source, reads="probability") < 1e-12
    # Elsewhere it is an approximation, and how good it is can be told.
    assert 1e-3 < error_of_the_gradient(board(Bent("A", tilt=0.5)), "uniform") < 1.0
    assert error_of_the_gradient(lowered, "uniform") > 1e-3


LAWS: dict[str, Callable[[], None]] = {
    law.__name__: law
    for law in (
        short_steps_under_a_mask_give_the_conditional_law,
        runs_under_a_mask_give_the_conditional_law,
        masked_sites_keep_their_times,
        short_steps_give_the_conditional_law,
        the_gradient_of_a_linear_predictor_is_exact,
    )
}


@pytest.mark.parametrize("law", LAWS)
def test_laws(law: str) -> None:
    LAWS[law]()


def test_half_the_strength_gives_the_root_of_the_predictor() -> None:
    """Where one site is left, whose law is exact."""
    toy = independent()
    left = where_sites_go(Predictor(0.5), toy, [1, VOCABULARY.mask])[1]
    wanted = (toy.q * CHANCE**0.5).reshape(SIZE, SIZE)[1]
    assert torch.allclose(left, wanted / wanted.sum(), rtol=0, atol=1e-12)


# --- what it costs, and what is refused --------------------------------------------------


def test_every_distinct_sequence_is_one_call() -> None:
    toy = ChainToy("mixture_flow", "uniform", length=3)
    batch = batch_of(torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 1]]))
    step = toy.process.transition(toy.exact, batch, 0.3, 0.5)
    scores = board(Share("A"))
    guided(Predictor(), step, batch, scores)
    # Two rows of one sequence and its six neighbours, and of the third row's seven two more are known.
    assert scores.calls == 7 + 4
    scores = board(Share("A"))
    guided(Taylor(), step, batch, scores)
    assert scores.calls == 2


def test_ratios_are_capped() -> None:
    far = Table({text: 1e6 * (text == "AA") for text in TEXTS})
    batch = batch_of(torch.tensor([[0, 1], [0, 0]]))
    toy = ChainToy("mixture_flow", "uniform")
    step = toy.process.transition(toy.exact, batch, 0.3, 0.5)
    tilted = guided(Predictor(), step, batch, board(far))
    assert tilted.log_weights is not None and float(tilted.log_weights.abs().max()) == CAP
    assert bool(tilted.law(batch, torch.arange(2))[0].isfinite().all())


def test_what_is_no_probability_is_refused() -> None:
    toy = ChainToy("mixture_flow", "uniform")
    batch = batch_of(torch.tensor([[0, 1]]))
    step = toy.process.transition(toy.exact, batch, 0.3, 0.5)
    near = Scoreboard([Target("share", Share("A"), "near", near=0.5)])
    for scores, member in itertools.product((near, board(looked_up(CHANCE))), (Predictor, Taylor)):
        with pytest.raises(UserError, match="is no probability|has no gradient"):
            member(reads="probability").suits(scores.targets)
            guided(member(reads="probability"), step, batch, scores)
    with pytest.raises(UserError, match="objective o0 has no gradient: use guide=predictor"):
        Taylor().suits(board(looked_up(CHANCE)).targets)
    with pytest.raises(UserError, match="no column for the letter 'C'"):
        guided(Taylor(), step, batch, board(Share("A", letters="AB")))
    with pytest.raises(ValueError, match="'odds' is none of log_probability, probability"):
        _likelihood.refuse_reading("odds")


# --- planted faults ---------------------------------------------------------------------


def _one_completion_for_all(patch: pytest.MonkeyPatch) -> None:
    """Every draw is the first one."""
    true = Noise.fork
    patch.setattr(Noise, "fork", lambda self, k: replace(true(self, k), slots=self.slots.repeat_interleave(k)))


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "twice": (patched(predictor, "log_ratio", lambda found, *_: 2 * found), short_steps_give_the_conditional_law),
    "one_completion": (_one_completion_for_all, short_steps_under_a_mask_give_the_conditional_law),
    "mean_of_logarithms": (
        replaced(_likelihood, "_log_mean", lambda values: values.mean(1)),
        short_steps_under_a_mask_give_the_conditional_law,
    ),
    "half": (patched(predictor, "log_ratio", lambda found, *_: found / 2), runs_under_a_mask_give_the_conditional_law),
    "times_move": (
        patched(Sites, "tilted", lambda found, self, weights: self.step.tilted(_scattered(self, weights))),
        masked_sites_keep_their_times,
    ),
    "gradient_from_elsewhere": (
        patched(taylor, "_turn", lambda found, *_: 0.9 * found),
        the_gradient_of_a_linear_predictor_is_exact,
    ),
}


def _scattered(sites: Sites, weights: Tensor) -> Tensor:
    """The weights as they are, at the sites they are of."""
    every = torch.zeros(*sites.step.jump.shape, weights.shape[-1], dtype=torch.float64)
    row, place = sites.chosen.nonzero(as_tuple=True)
    every[sites.rows[row], sites.places[row, place]] = weights[row, place]
    return every


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()
