"""Proteins and DNA: letters, codes, strands."""

from itertools import product

import pytest

from domains.bio.alphabet import DNA, PROTEIN, alphabet_of, reverse_complement
from domains.bio.tokenizers.amino_acid import AminoAcid
from domains.bio.tokenizers.dna import Dna


def test_the_other_strand_is_read_from_its_own_end():
    assert reverse_complement("AACGT") == "ACGTT" and reverse_complement("") == ""
    assert reverse_complement("GTYRAC") == "GTYRAC" and reverse_complement("CACNNNNGTG") == "CACNNNNGTG"


@pytest.mark.parametrize("code", DNA.ambiguity)
def test_a_code_pairs_with_the_code_of_the_partners(code):
    partners = {reverse_complement(base) for base in DNA.ambiguity[code]}
    assert DNA.ambiguity[reverse_complement(code)] == partners


def test_canonical_is_one_for_both_strands_and_changes_no_protein():
    for letters in product("ACGT", repeat=4):
        sequence = "".join(letters)
        assert DNA.canonical(sequence) == DNA.canonical(reverse_complement(sequence))
        assert DNA.canonical(sequence) in (sequence, reverse_complement(sequence))
    assert PROTEIN.canonical("TTA") == "TTA"


def test_a_tokenizer_says_what_its_sequences_are():
    assert alphabet_of(Dna()) is DNA and alphabet_of(AminoAcid()) is PROTEIN and alphabet_of(None) is PROTEIN
