"""A made-up binding site, whose best sequences are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from core.guidance.objectives._arguments import whole
from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.alphabet import BASES, DNA
from domains.bio.objectives._sequence import each

# How far the base probabilities of a place lie apart: about 1 bit a place.
_SPREAD = 2.3
_WIDEST = 32
_SEEDS = (1 << 32) - 1


class PlantedMotif(Objective):
    """`planted_motif:SEED:WIDTH`: the best match to a position weight matrix, anywhere, on either strand.

    The matrix follows from SEED: log-odds against equal bases, about one bit a place. The match is scaled
    so that the least likely word has 0 and the most likely 1, which the sequences have that hold that
    word or its reverse complement, and no others. Motifs of several seeds are all met at once from a
    length of their widths together on. NaN below WIDTH bases. Neither direction is hazardous.
    """

    paper = Paper("ours", "Stormo 2000, DNA binding sites: representation and discovery", deviations="made-up matrices")
    direction = "max"
    unit = "share of the range of log-odds"
    source = "computed here"
    kind = "dna"

    def __init__(self, seed: str = "0", width: str = "8") -> None:
        generator = torch.Generator().manual_seed(whole("planted_motif seed", seed, 0, _SEEDS))
        self._width = whole("planted_motif width", width, 1, _WIDEST)
        draws = torch.randn(self._width, len(BASES), generator=generator, dtype=torch.float64)
        weights: Float[np.ndarray, "W 4"] = (_SPREAD * draws).log_softmax(dim=1).numpy()
        low, high = weights.min(axis=1).sum(), weights.max(axis=1).sum()
        # Equal bases add the same to every word, so the scale takes it off again.
        self._weights = (weights - low / self._width) / (high - low)
        self.best = "".join(BASES[place] for place in weights.argmax(axis=1))

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        return each(self._match, sequences, shortest=self._width, alphabet=DNA)

    def _match(self, sequence: str) -> float:
        words = sliding_window_view(np.array([BASES.index(base) for base in sequence]), self._width)
        places = np.arange(self._width)
        # BASES read backwards are the complements.
        strands = (self._weights, self._weights[::-1, ::-1])
        return float(max(weights[places, words].sum(axis=1).max() for weights in strands))
