"""Beams in groups that avoid each other's tokens."""

from __future__ import annotations

from collections.abc import Callable

from core.decoding._reader import refuse_all_but_autoregressive
from core.decoding._search import Search
from core.processes.base import Process
from core.registry import Paper


class DiverseBeam(Search):
    """Beam search in groups, one after the other at each step, with a Hamming penalty between them.

    width: beginnings kept by all groups together. groups: shares of the width. diversity: what a token
    loses for each time that an earlier group has taken it at the same step, in nats; it steers what a
    group takes and is no part of a score. length_power: as for `Beam`, which one group is. The list of
    a row merges what its groups have found.
    """

    paper = Paper(
        "S018",
        "Diverse Beam Search",
        "1610.02424",
        "a penalty counts at its own step and is not carried on; scores are without it",
    )

    def __init__(
        self,
        width: int = 8,
        groups: int = 4,
        diversity: float = 0.5,
        length_power: float = 0.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(width, groups, diversity, length_power, progress)

    def suits(self, process: Process) -> None:
        refuse_all_but_autoregressive("diverse_beam", process)
