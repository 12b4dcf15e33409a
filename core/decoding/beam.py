"""The likeliest sequences, by keeping several beginnings."""

from __future__ import annotations

from collections.abc import Callable

from core.decoding._reader import refuse_all_but_autoregressive
from core.decoding._search import Search
from core.processes.base import Process
from core.registry import Paper


class Beam(Search):
    """Beam search: no noise is used, and rows that start alike come out alike.

    width: beginnings kept, and the most sequences that `Samples.ranked` holds for a row; 1 is greedy,
    and as many as there are beginnings is the exact list of the likeliest. length_power: a sequence's
    score is log p / (tokens behind the prompt, the end included) ** length_power. Needs an
    autoregressive process and a network that decodes.
    """

    paper = Paper(
        "ours",
        "Sequence to Sequence Learning with Neural Networks",
        "1409.3215",
        "finished sequences take no place of the next step; length normalisation",
    )

    def __init__(
        self, width: int = 8, length_power: float = 0.0, progress: Callable[[int, int], None] | None = None
    ) -> None:
        super().__init__(width, 1, 0.0, length_power, progress)

    def suits(self, process: Process) -> None:
        refuse_all_but_autoregressive("beam", process)
