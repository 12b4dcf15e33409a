"""Peptides as molecules: linear, L-residues, free and neutral termini and side chains."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# A molecule of 50 residues takes about 0.1 MB.
_KEPT = 2048


@lru_cache(maxsize=_KEPT)
def molecule(sequence: str) -> Any:
    """The RDKit molecule, kept so that several descriptors build it once."""
    from rdkit import Chem

    return Chem.MolFromSequence(sequence)
