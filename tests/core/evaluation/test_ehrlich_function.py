"""Ehrlich functions against published values, against the definition written out, and against enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from core.evaluation import ehrlich_function
from core.evaluation.ehrlich_function import EhrlichFunction

# Of holo-bench 0.0.5, seed 0: settings, motifs, gaps between the elements of each.
GOLDEN = [
    ((5, 7, 1, 3, 3), [[4, 4, 0]], [[3, 2]]),
    (
        (32, 32, 4, 4, 4),
        [[10, 17, 13, 30], [14, 21, 28, 13], [14, 28, 13, 16], [26, 6, 7, 24]],
        [[2, 2, 1], [1, 3, 2], [2, 1, 3], [2, 2, 1]],
    ),
    ((32, 64, 2, 4, 4), [[10, 17, 13, 30], [14, 21, 28, 13]], [[3, 7, 20], [1, 6, 22]]),
    (
        (32, 128, 4, 4, 2),
        [[10, 17, 13, 30], [14, 21, 28, 13], [14, 28, 13, 16], [26, 6, 7, 24]],
        [[11, 12, 7], [2, 18, 9], [9, 5, 15], [10, 14, 5]],
    ),
]
DRAWN = [0.00781, 0, 0.02344, 0.01172, 0.03125, 0.00391, 0.01562, 0.00781]


def check_golden() -> None:
    for settings, motifs, gaps in GOLDEN:
        function = EhrlichFunction(*settings)
        assert function._motifs.tolist() == motifs and np.diff(function._offsets).tolist() == gaps
    function = EhrlichFunction(32, 32, 4, 4, 4)
    assert np.round(function(function.draw(8)), 5).tolist() == DRAWN
    assert round(1 - function.allowed.mean(), 3) == 0.213 and EhrlichFunction(5, 7, 1, 3, 3).allowed.all()


def check_definition(function: EhrlichFunction) -> None:
    """Values, element by element, of feasible and of random sequences."""
    source = np.random.default_rng(0)
    rows = np.concatenate([function.draw(30), source.integers(0, function.states, (30, function.length))])
    assert np.array_equal(function(rows), [defined(function, row.tolist()) for row in rows], equal_nan=True)
    assert function(function.optimum()[None]).tolist() == [1.0]


def defined(function: EhrlichFunction, row: list[int]) -> float:
    if not all(function.allowed[a, b] for a, b in itertools.pairwise(row)):
        return float("nan")
    value = 1.0
    for motif, places in zip(function._motifs.tolist(), function._offsets.tolist(), strict=True):
        best = 0
        for first in range(len(row) - places[-1]):
            found = sum(row[first + place] == state for state, place in zip(motif, places, strict=True))
            best = max(best, found)
        step = len(motif) // function.quantization
        q = (best // step) / function.quantization
        value *= q * (1 + function.epistasis * q * (q - 1))
    return value


def test_published_values() -> None:
    check_golden()


SETTINGS = [(4, 6, 2, 3, 3), (5, 9, 1, 4, 2, 3, 2.5), (12, 30, 3, 4, 2, 1), (32, 32, 4, 4, 4, 4, 4.0), (3, 4, 2, 1, 1)]


@pytest.mark.parametrize("settings", [*SETTINGS, (3, 1, 1, 1, 1)])
def test_values_are_the_definition(settings: tuple) -> None:
    check_definition(EhrlichFunction(*settings))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 4, 2), (3, 2, 1)])
def test_the_maximum_over_all_sequences_is_1(shape: tuple[int, int, int], seed: int) -> None:
    function = EhrlichFunction(4, 6, *shape, seed)
    every = np.array(list(itertools.product(range(4), repeat=6)))
    values = function(every)
    assert np.nanmax(values) == 1.0 and np.nanmin(values) >= 0.0
    assert np.isnan(values).any() == bool((~function.allowed).any())
    levels = np.arange(shape[2] + 1) / shape[2]
    parts = function.parts(every)
    assert np.array_equal(parts.prod(axis=1), values, equal_nan=True) and set(parts[~np.isnan(parts)]) <= set(levels)


@pytest.mark.parametrize("states", range(3, 33))
def test_every_state_is_reached_and_what_is_drawn_is_feasible(states: int) -> None:
    for seed in range(3):
        function = EhrlichFunction(states, 40, 3, 4, 2, seed)
        reached = function.allowed.copy()
        for _ in range(5):
            reached = reached @ reached
        assert reached.all() and function.allowed.diagonal().all()
        assert function.feasible(function.draw(20)).all() and function.feasible(function.optimum()[None]).all()


def test_draws_follow_their_seed_and_start_from_the_law_that_the_chain_keeps() -> None:
    function = EhrlichFunction(6, 12, 2, 3, 3, 7)
    assert np.array_equal(function.draw(9), function.draw(9, 7))
    assert not np.array_equal(function.draw(9), function.draw(9, 8))
    rows = function.draw(20000, 1)
    first, last = (np.bincount(rows[:, place], minlength=6) / len(rows) for place in (0, -1))
    # Standard error of a share below 0.0036, of a difference below 0.005: four of them.
    assert np.abs(first - last).max() < 0.02
    assert np.abs(first - function._start.numpy()).max() < 0.0145


def test_epistasis_punishes_what_is_half_done_and_spares_the_ends() -> None:
    plain, strict = EhrlichFunction(8, 20, 2, 4, 4), EhrlichFunction(8, 20, 2, 4, 4, 0, 2.0)
    rows = np.concatenate([plain.draw(200), plain.optimum()[None]])
    q, response = plain.parts(rows), strict.parts(rows)
    ends = (q == 0) | (q == 1)
    assert np.array_equal(q[ends], response[ends]) and (response[~ends] < q[~ends]).all()
    assert response[q == 0.5].max() == 0.5 * (1 - 2.0 * 0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((2, 6, 1, 2, 2), "states: 2 is outside 3..32"),
        ((33, 6, 1, 2, 2), "states: 33 is outside"),
        ((4, 6, 0, 2, 2), "at least 1"),
        ((4, 6, 2, 4, 4), "2 motifs of 4 states need a length of 8"),
        ((4, 12, 2, 4, 3), "quantization: 3 does not divide a motif of 4 states"),
        ((4, 12, 2, 4, 8), "quantization: 8 does not divide"),
        ((4, 12, 2, 4, 4, 0, 4.5), "epistasis: 4.5 is outside 0..4"),
        ((4, 12, 2, 4, 4, 0, float("nan")), "epistasis"),
    ],
)
def test_what_has_no_function_is_refused(settings: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EhrlichFunction(*settings)


# One line of the function each, and what must notice.
FAULTS = {
    "temperature": ("_TEMPERATURE", 1.0),
    "band": ("_BAND", 0.3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_in_a_constant_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ehrlich_function, *FAULTS[fault])
    with pytest.raises(AssertionError):
        check_golden()


def test_planted_fault_of_a_last_place_unseen_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    function = EhrlichFunction(4, 6, 2, 3, 3)
    right, beyond = function._matched, np.arange(6) == 5
    monkeypatch.setattr(function, "_matched", lambda x, *rest: right(np.where(beyond, -1, x), *rest))
    with pytest.raises(AssertionError):
        check_definition(function)


def test_planted_fault_of_banned_transitions_that_pass_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    function = EhrlichFunction(12, 30, 3, 4, 2, 1)
    monkeypatch.setattr(function, "feasible", lambda x: np.ones(len(x), dtype=bool))
    with pytest.raises(AssertionError):
        check_definition(function)


def test_planted_fault_of_a_start_from_equal_states_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ehrlich_function, "_stationary", lambda transitions: torch.full((len(transitions),), 1.0))
    with pytest.raises(AssertionError):
        check_golden()
