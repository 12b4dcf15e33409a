"""Relatives share a key, whichever strand they are written on."""

import random

import pytest

from domains.bio.alphabet import reverse_complement
from domains.bio.families import families
from domains.bio.tokenizers.amino_acid import AminoAcid
from domains.bio.tokenizers.dna import Dna

SOURCE = random.Random(0)


def strand(n):
    return "".join(SOURCE.choices("ACGT", k=n))


def parted(sequences, keys):
    """Pairs that share 20 bases on either strand and have other keys."""
    texts = [(s, reverse_complement(s)) for s in sequences]
    words = [{s[i : i + 20] for s in pair for i in range(len(s) - 19)} for pair in texts]
    count = range(len(sequences))
    return [(a, b) for a in count for b in count if words[a] & words[b] and keys[a] != keys[b]]


def test_relatives_through_others_and_on_either_strand_share_a_key():
    a, b, c = strand(60), strand(60), strand(60)
    chain = [a, a[40:] + b[:40], reverse_complement(b[20:]), c, strand(60)]
    keys = families(chain, Dna())
    assert keys[0] == keys[1] == keys[2] and len(set(keys)) == 3
    assert not parted(chain, keys)


def test_one_base_less_is_no_relation():
    a = strand(60)
    assert len(set(families([a, strand(41) + a[:19]], Dna()))) == 2


def test_short_sequences_are_alike_only_to_themselves_and_their_other_strand():
    keys = families(["AACC", "GGTT", "AACCG", "AACG"], Dna())
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_a_key_does_not_depend_on_the_order():
    sequences = [strand(40) for _ in range(20)]
    sequences += [reverse_complement(s[5:30]) for s in sequences[:10]]
    keys = dict(zip(sequences, families(sequences, Dna()), strict=True))
    mixed = random.Random(1).sample(sequences, len(sequences))
    assert dict(zip(mixed, families(mixed, Dna()), strict=True)) == keys


def test_proteins_stand_alone():
    assert families(["AAAA", "TTTT", "A" * 40, "A" * 41], AminoAcid()) == ["AAAA", "TTTT", "A" * 40, "A" * 41]


def test_the_law_catches_a_planted_fault(monkeypatch):
    sequences = [strand(60) for _ in range(20)]
    sequences += [reverse_complement(s[10:50]) + strand(20) for s in sequences]
    assert not parted(sequences, families(sequences, Dna()))
    monkeypatch.setattr("domains.bio.families.reverse_complement", lambda sequence: sequence)
    with pytest.raises(AssertionError):
        assert not parted(sequences, families(sequences, Dna()))
