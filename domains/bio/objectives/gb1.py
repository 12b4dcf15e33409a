"""Fitness of protein G, domain B1, over four of its sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._lookup import measured

WILD_TYPE = "MQYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
# V39, D40, G41 and V54, counted from 0.
SITES = (38, 39, 40, 53)


class Gb1(Objective):
    """Fitness relative to the wild type VDGV, from 0 to 8.762 at FWAA: binding to IgG and stability as one.

    A sequence is the residues at V39, D40, G41 and V54, or the whole domain of 56 residues with the wild
    type's at all other places. NaN for everything else, and for the 10,639 of the 160,000 variants that
    were not measured. Neither direction is hazardous.
    """

    paper = Paper("ours", "Wu et al. 2016, Adaptation in protein fitness landscapes is facilitated by indirect paths")
    direction = "max"
    unit = "fitness of the wild type"
    source = "measured by mRNA display and sequencing"
    kind = "protein"
    data: ClassVar[str] = "gb1"

    def __init__(self) -> None:
        self._fitness = measured(self.data, "fitness")

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self._fitness.get(_residues(sequence), math.nan) for sequence in sequences], dtype=np.float64)


def _residues(sequence: str) -> str:
    """The four sites of a whole domain; any other sequence as it is."""
    if len(sequence) != len(WILD_TYPE):
        return sequence
    found = "".join(sequence[site] for site in SITES)
    return found if sequence == _domain(found) else sequence


def _domain(residues: str) -> str:
    """The wild type's domain with other residues at the four sites."""
    letters = list(WILD_TYPE)
    for site, residue in zip(SITES, residues, strict=True):
        letters[site] = residue
    return "".join(letters)
