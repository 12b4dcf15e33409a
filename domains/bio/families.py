"""Which sequences are relatives, so that no split cuts a family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.data.clusters import linked
from core.tokenizers.base import Tokenizer
from domains.bio.alphabet import alphabet_of, reverse_complement

# Two random sequences of a few hundred bases share 20 in a row about once in 10 million pairs.
SHARED = 20


def families(sequences: Sequence[str], tokenizer: Tokenizer[Any]) -> list[str]:
    """A key for each sequence, the same for relatives: the first of the family in alphabetical order.

    DNA: relatives share 20 bases in a row on either strand, directly or through others; shorter
    sequences are alike only to themselves and their reverse complement. Proteins: each alone.
    """
    alphabet = alphabet_of(tokenizer)
    names = [alphabet.canonical(sequence) for sequence in sequences]
    if not alphabet.double:
        return names
    groups = linked(map(shared_words, names)).tolist()
    best: dict[int, str] = {}
    for group, name in zip(groups, names, strict=True):
        best[group] = min(best.get(group, name), name)
    return [best[group] for group in groups]


def shared_words(sequence: str) -> set[str]:
    """The 20-mers of both strands; of a shorter sequence, the whole of each."""
    width = min(SHARED, len(sequence))
    strands = (sequence, reverse_complement(sequence))
    return {strand[start : start + width] for strand in strands for start in range(len(strand) - width + 1)}
