"""What single guides promise of one step, by enumeration; each law with planted faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.errors import UserError
from core.evaluation.hypervolume import hypervolume, nondominated
from core.guidance.guides import hypervolume as improving
from core.guidance.guides import projection, tchebycheff
from core.guidance.guides._gains import shares
from core.guidance.guides.base import Guide
from core.guidance.guides.hypervolume import Hypervolume
from core.guidance.guides.mog import Mog
from core.guidance.guides.projection import Projection
from core.guidance.guides.tchebycheff import Tchebycheff
from core.guidance.known import Known
from core.guidance.objectives.base import Scoreboard
from core.processes.transitions.substitute import Substitute
from core.tokenizers.base import Vocabulary
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_objectives import Table, board, context_on
from tests.laws.toys import batch_of

LETTERS = "ABCD"
SIZE = len(LETTERS)
MASK = Vocabulary(SIZE).mask


def values(objectives: int, seed: int) -> Tensor:
    """Of the sequences `A` and each letter, by the letter."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, objectives, dtype=torch.float64, generator=source)


def scores(table: Tensor) -> Scoreboard:
    return board(*(Table({f"A{LETTERS[n]}": float(v) for n, v in enumerate(column)}) for column in table.T))


def one_site(token: list[int], seed: int, chance: float) -> tuple[Any, Substitute, Tensor]:
    """Sequences of a fixed A and one site that shows a token each, where it goes, whatever it shows."""
    tokens = torch.tensor([[0, shown] for shown in token])
    source = torch.Generator().manual_seed(seed)
    law = torch.randn(SIZE, dtype=torch.float64, generator=source).log_softmax(0)
    jump = torch.tensor([[0.0, chance]], dtype=torch.float64).expand(len(token), 2).clone()
    settled = torch.where(jump > 0, -1, tokens)
    return batch_of(tokens), Substitute(lambda rows: law.expand(len(rows), 2, SIZE), jump, settled), law.exp()


def kernel(
    guide: Guide, table: Tensor, token: list[int], seed: int = 0, chance: float = 0.4, known: Known | None = None
) -> Tensor:
    """Where the site stands after the step, `[rows, V]`, for rows of one sequence id; where it goes, from a mask."""
    batch, step, _ = one_site(token, seed, chance)
    noise = Noise.start(seed, torch.zeros(len(token), dtype=torch.long))
    context = context_on(scores(table), known, LETTERS)(lambda condition: step, noise)
    tilted = guide.reweight(step, batch, 0.3, 0.4, context)
    assert isinstance(tilted, Substitute)
    jump, log_law = tilted.law(batch, torch.arange(len(token)))
    mass = log_law[:, 1].exp()
    if token[0] == MASK:
        return mass
    stays = torch.nn.functional.one_hot(torch.tensor(token), SIZE)
    return jump[:, 1:] * mass + (1 - jump[:, 1:]) * stays


def plain(token: list[int], seed: int, chance: float = 0.4) -> Tensor:
    _, _, law = one_site(token, seed, chance)
    if token[0] == MASK:
        return law.expand(len(token), SIZE)
    return chance * law + (1 - chance) * torch.nn.functional.one_hot(torch.tensor(token), SIZE).double()


# --- Tchebycheff ------------------------------------------------------------------------


def metropolis_hastings_keeps_its_target() -> None:
    """p(v) exp(strength h T(v)) is invariant, in detailed balance, whatever the jump; a masked site draws from it."""
    every = list(range(SIZE))
    for seed in range(6):
        table = values(2, seed)
        known = Known.of(table.numpy())
        scaled = (table - table.amin(0)) / (table.amax(0) - table.amin(0))
        share = shares(Noise.start(seed, torch.tensor([0])), scores(table).targets)
        worth = (scaled / (2 * share)).amin(1)
        for strength, chance in ((0.0, 0.4), (0.15, 0.05), (1.5, 0.4), (1.5, 1.0)):
            guide = Tchebycheff(strength, heat=0.2)
            target = one_site(every, seed, chance)[2] * (20 * strength * 0.2**0.7 * worth).exp()
            target = target / target.sum()
            found = kernel(guide, table, every, seed, chance, known)
            assert torch.allclose(found.sum(1), torch.ones(SIZE).double(), rtol=0, atol=1e-12)
            assert torch.allclose(target @ found, target, rtol=0, atol=1e-12)
            flow = target[:, None] * found
            assert torch.allclose(flow, flow.T, rtol=0, atol=1e-12)
            far = (found - plain(every, seed, chance)).abs().max()
            assert far < 1e-12 if strength == 0 else far > 1e-4
            masked = kernel(guide, table, [MASK], seed, 1.0, known)[0]
            assert torch.allclose(masked, target, rtol=0, atol=1e-9)


def without_acceptance(sites: Any, log_ratio: Tensor) -> Tensor:
    here = sites.standing[:, 0][..., None]
    return torch.nn.functional.logsigmoid(log_ratio - log_ratio.gather(-1, here)) + math.log(2)


# --- projection -------------------------------------------------------------------------


def by_hand(table: Tensor, token: int, law: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """d over the tokens, and the gains in their units: the definition, one number at a time."""
    gains = (table - table[token]).tolist()
    others = [n for n in range(SIZE) if n != token]
    objectives = table.shape[1]
    units = [math.sqrt(sum(gains[n][m] ** 2 for n in others) / len(others)) for m in range(objectives)]
    vectors = torch.tensor(
        [[gains[n][m] / units[m] for n in range(SIZE)] for m in range(objectives)], dtype=torch.float64
    )

    def product(one: Tensor, other: Tensor) -> float:
        return float((law * one * other).sum() - (law * one).sum() * (law * other).sum())

    noise = Noise.start(seed, torch.tensor([0]))
    order = noise.uniform(objectives, Purpose.GUIDE, lane=2)[0].argsort().tolist()
    kept = []
    for m in range(objectives):
        vector = vectors[m].clone()
        for n in order:
            if n != m and product(vector, vectors[n]) < 0:
                vector -= product(vector, vectors[n]) / product(vectors[n], vectors[n]) * vectors[n]
        kept.append(vector)
    share = shares(noise, scores(table).targets)[0]
    return (share[:, None] * torch.stack(kept)).sum(0), vectors


def means_move_as_predicted() -> None:
    """The slope of every mean utility in the strength is its covariance with d; of two, neither falls."""
    fell = 0
    for seed in range(20):
        for objectives in (2, 3):
            table, before = values(objectives, seed), plain([1], seed)[0]
            d, vectors = by_hand(table, 1, before, seed)
            up, down = (kernel(Projection(sign * 1e-5), table, [1], seed)[0] for sign in (1, -1))
            slope = ((up - down) @ table) / 2e-5
            wanted = torch.stack([(before * d * u).sum() - (before * d).sum() * (before * u).sum() for u in table.T])
            assert torch.allclose(slope, wanted, rtol=1e-6, atol=1e-8)
            if objectives == 2:
                assert float(slope.min()) > -1e-9
                share = shares(Noise.start(seed, torch.tensor([0])), scores(table).targets)[0]
                raw = (share[:, None] * vectors).sum(0)
                fell += int(any((before * raw * u).sum() < (before * raw).sum() * (before * u).sum() for u in table.T))
    # The plain sum of the gains would have lowered one of the two means again and again.
    assert fell > 3


def test_a_strong_projection_is_the_tilted_kernel() -> None:
    for seed, shown in ((0, 1), (1, 3)):
        table, before = values(3, seed), plain([shown], seed)[0]
        d, _ = by_hand(table, shown, before, seed)
        wanted = before * (2.0 * d).exp()
        assert torch.allclose(kernel(Projection(2.0), table, [shown], seed)[0], wanted / wanted.sum(), atol=1e-12)


# --- hypervolume improvement ------------------------------------------------------------


def improvement(point: Tensor, front: Tensor) -> float:
    """What the point adds above 0, or if nothing, minus how far all utilities must rise for it not to be dominated."""
    together = torch.cat([front, point[None]]).numpy()
    added = hypervolume(together, 0.0) - hypervolume(front.numpy(), 0.0)
    if added > 1e-15:
        return added

    def outside(rise: float) -> bool:
        raised = point + rise
        return bool((raised > 0).all()) and bool(nondominated(np.vstack([front.numpy(), raised]))[-1])

    low, high = 0.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if outside(middle) else (middle, high)
    return -high


def steps_follow_the_improvement() -> None:
    """The kernel is tilted by the improvement less that of the present sequence, over its root mean square."""
    told = {"added": 0, "behind": 0, "unguided": 0}
    for seed in range(12):
        for objectives in (2, 3):
            table = values(objectives, seed) + 0.6
            points = values(objectives, seed + 100).abs() * 0.7
            front = points[torch.from_numpy(nondominated(points.numpy()))]
            known = Known(np.zeros(objectives), np.ones(objectives), Known.of(front.numpy()).archive)
            found = torch.tensor([improvement(row, front) for row in table], dtype=torch.float64)
            told["added"] += int((found > 0).sum())
            told["behind"] += int((found < 0).sum())
            gains = found - found[2]
            unit = (gains.square().sum() / (SIZE - 1)).sqrt()
            wanted = plain([2], seed)[0]
            if bool((gains > 0).any()):
                wanted = wanted * (1.5 * gains / unit).exp()
            else:
                told["unguided"] += 1
            guided = kernel(Hypervolume(1.5), table, [2], seed, known=known)[0]
            assert torch.allclose(guided, wanted / wanted.sum(), rtol=0, atol=1e-9)
    assert min(told.values()) > 2


def test_what_must_be_known_beforehand_is_asked_for() -> None:
    for member in (Hypervolume, Tchebycheff):
        with pytest.raises(UserError, match="needs utilities from before the run"):
            kernel(member(), values(2, 0), [1])
        with pytest.raises(ValueError, match="pilot 0: at least 1"):
            member(pilot=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mog(angle=90.0), "angle 90.0: outside 15..75"),
        (lambda: Mog(target=-0.1), "target -0.1: outside 0..1"),
        (lambda: Mog(rate=math.inf), "rate inf: outside 0..inf"),
        (lambda: Mog(memory=math.nan), "memory nan: outside 0..1"),
        (lambda: Projection(math.nan), "strength nan: a finite number is needed"),
        (lambda: Projection(sites=0), "sites 0: at least 1"),
        (lambda: Projection(draws=0), "draws 0: at least 1"),
        (lambda: Tchebycheff(heat=0.0), "heat 0.0: above 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Guide], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("member", [Projection, Hypervolume, Tchebycheff])
def test_candidates_without_a_value_are_shunned(member: Callable[..., Guide]) -> None:
    table = values(2, 3)
    known = Known.of(table.numpy())
    table[3] = torch.nan
    for shown in (1, MASK):
        found = kernel(member(), table, [shown], 3, 1.0, known)[0]
        assert float(found[3]) < 1e-12 < float(plain([shown], 3, 1.0)[0, 3])


LAWS: dict[str, Callable[[], None]] = {
    law.__name__: law
    for law in (metropolis_hastings_keeps_its_target, means_move_as_predicted, steps_follow_the_improvement)
}


@pytest.mark.parametrize("law", LAWS)
def test_laws(law: str) -> None:
    LAWS[law]()


# --- planted faults ---------------------------------------------------------------------


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "always_accepted": (replaced(tchebycheff, "_moves", without_acceptance), metropolis_hastings_keeps_its_target),
    "mean_in_place_of_least": (
        patched(tchebycheff, "_worth", lambda found, utility, towards, known: utility.mean((1, -1))),
        metropolis_hastings_keeps_its_target,
    ),
    "nothing_projected": (
        patched(projection, "_freed", lambda found, gains, *_: gains), means_move_as_predicted
    ),
    "even_law": (
        patched(projection, "_freed", lambda found, gains, law, order: TRUE_FREED(gains, 0 * law + 1 / SIZE, order)),
        means_move_as_predicted,
    ),
    "front_forgotten": (
        patched(improving, "_added", lambda found, points, front: points.prod(1)), steps_follow_the_improvement
    ),
}  # fmt: skip
TRUE_FREED = projection._freed


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()
