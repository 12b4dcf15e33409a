"""Joint draws of replacements and deletions, against the enumerated conditional law."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch

from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints import _deletion
from core.guidance.constraints._deletion import Deletion
from tests.laws.test_constraints import Letters, built
from tests.laws.toy_kinds import fit

TOKENIZER = Letters("ABC")
DRAWS, LEAST_P = 20_000, 1e-5  # frozen
SETS = {
    "nothing": (),
    "length": ("length:2..2",),
    "forbid": ("forbid:AB", "forbid:CC"),
    "contains": ("contains:A-x(0,1)-C",),
    "fixed": ("fixed:2B,-1C",),
    "composition": ("composition:AB:0.3..0.6",),
    "mixture": ("length:2..4", "forbid:AB", "composition:A:1..2", "contains:C"),
}


def made(name: str) -> ConstraintSet:
    return ConstraintSet(built(SETS[name]), TOKENIZER, range(5))


def site_laws(sites: int = 4) -> torch.Tensor:
    law = 1.5 * torch.randn(sites, 4, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    # A token out of reach, a site of one possible token, and laws that are not normalised.
    law[0, 1] = -torch.inf
    law[2] = torch.tensor([-torch.inf, -torch.inf, 0.0, -1.0])
    return law + torch.arange(sites)[:, None]


def edits_follow_the_conditional_law(name: str) -> None:
    rules, law = made(name), site_laws()
    normal = law.log_softmax(-1)
    weights = {}
    for chosen in itertools.product(range(4), repeat=4):
        rest = tuple(token for token in chosen if token < 3)
        if all(rule.check(TOKENIZER.decode(rest)) for rule in rules.constraints):
            weights[chosen] = float(sum(normal[i, v] for i, v in enumerate(chosen)))
    logs = torch.tensor(list(weights.values()), dtype=torch.double)
    expected = dict(zip(weights, logs.softmax(0).tolist(), strict=True))
    uniform = torch.rand(DRAWS, 4, dtype=torch.double)
    drawn = rules.edit(law.expand(DRAWS, -1, -1), uniform)
    assert fit(expected, [tuple(row) for row in drawn.tolist()]) > LEAST_P
    automata = list(rules._layered.values())
    mass = Deletion(automata, 3, torch.device("cpu")).draw(normal[None], uniform[:1])[1]
    assert torch.allclose(mass, logs.logsumexp(0), atol=1e-10)


@pytest.mark.parametrize("name", SETS)
def test_edits_follow_the_conditional_law(name: str) -> None:
    edits_follow_the_conditional_law(name)


def test_acceptance_however_unlikely_is_met() -> None:
    rules = made("fixed")
    law = torch.full((1, 4, 4), -2000.0, dtype=torch.double)
    law[..., 0] = 0
    drawn = rules.edit(law, torch.rand(1, 4, dtype=torch.double))
    rest = [v for v in drawn[0].tolist() if v < 3]
    assert rest[1] == 1 and rest[-1] == 2


def test_a_row_that_nothing_fits_is_refused() -> None:
    law = torch.zeros(2, 4, 4, dtype=torch.double)
    law[1, :, 2] = -torch.inf
    with pytest.raises(RuntimeError, match="row 1: its law leaves no accepted sequence to edit to"):
        made("contains").edit(law, torch.rand(2, 4, dtype=torch.double))


def test_sequences_without_tokens() -> None:
    empty = torch.zeros(2, 0, 4, dtype=torch.double)
    assert made("nothing").edit(empty, torch.zeros(2, 0, dtype=torch.double)).shape == (2, 0)
    with pytest.raises(RuntimeError, match="row 0"):
        made("length").edit(empty, torch.zeros(2, 0, dtype=torch.double))
    none = torch.zeros(0, 3, 4, dtype=torch.double)
    assert made("length").edit(none, torch.zeros(0, 3, dtype=torch.double)).shape == (0, 3)


def test_padding_and_turns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    law, uniform = torch.randn(50, 4, 4, dtype=torch.double), torch.rand(50, 4, dtype=torch.double)
    whole = made("mixture").edit(law, uniform)
    gone = torch.full((50, 2, 4), -torch.inf, dtype=torch.double)
    gone[..., 3] = 0
    wide = made("mixture").edit(torch.cat([law, gone], 1), torch.cat([uniform, uniform[:, :2]], 1))
    assert torch.equal(wide[:, :4], whole) and bool((wide[:, 4:] == 3).all())
    monkeypatch.setattr(_deletion, "_CELLS", 1)
    assert torch.equal(made("mixture").edit(law, uniform), whole)


@pytest.mark.parametrize("fault", ["one_length", "deleting_moves_on", "no_look_ahead"])
def test_planted_faults_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = Deletion.__init__

    def changed(self: Deletion, automata, size, device) -> None:
        true(self, automata, size, device)
        if fault == "one_length":
            self._starts = self._starts[:1]
        elif fault == "deleting_moves_on":
            self._after[:, -1] = self._after[:, 0]
        else:
            self._ends = torch.arange(len(self._after) - 1)

    monkeypatch.setattr(Deletion, "__init__", changed)
    with pytest.raises((AssertionError, RuntimeError)):
        edits_follow_the_conditional_law("mixture")


def test_the_chi_square_sees_a_wrong_law() -> None:
    assert fit({0: 0.5, 1: 0.5}, [0] * 5400 + [1] * 4600) < LEAST_P
    assert fit({0: 1.0}, list(Counter({0: 5, 1: 1}).elements())) == 0.0
