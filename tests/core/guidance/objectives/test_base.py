"""Scoreboard: what counts as a call, and what is asked again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective, Scoreboard, Target
from core.registry import Paper


class FirstLetter(Objective):
    """The code of the first letter; it tells a word from its reverse."""

    paper = Paper("ours", "first letter")
    direction = "max"
    unit = "code"
    source = "here"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        self.asked += sequences
        return np.array([float(ord(sequence[0])) for sequence in sequences])


def test_a_sequence_is_one_call_under_however_many_objectives() -> None:
    objectives = FirstLetter(), FirstLetter()
    board = Scoreboard([Target(str(n), objective, "max") for n, objective in enumerate(objectives)])
    assert board.score(["ab", "ba", "ab"]).tolist() == [[97, 97], [98, 98], [97, 97]]
    assert board.score(["ba"]).tolist() == [[98, 98]]
    assert board.calls == 2 and board.evaluations == {"0": 2, "1": 2}
    assert all(objective.asked == ["ab", "ba"] for objective in objectives)


def test_forms_of_one_thing_are_one_call_and_each_has_its_own_score() -> None:
    board = Scoreboard([Target("first", FirstLetter(), "max")], lambda word: min(word, word[::-1]))
    assert board.score(["ab", "ba", "cc"])[:, 0].tolist() == [97, 98, 99]
    assert board.calls == 2 and board.evaluations == {"first": 3}
    board.score(["ba", "dc", "cd"])
    assert board.calls == 3


def test_without_objectives_nothing_is_called() -> None:
    board = Scoreboard([])
    assert board.score(["ab"]).shape == (1, 0) and board.calls == 0
