"""Rules of DNA as written, and at the lengths that people use."""

import random

import pytest
import torch

from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints.length import Length
from domains.bio.alphabet import reverse_complement
from domains.bio.constraints import registry
from domains.bio.tokenizers.dna import Dna

TOKENIZER = Dna()


def rule(text):
    key, *arguments = text.split(":")
    return registry.get(key)(*arguments)


def drawn(texts, length, n=40):
    """Sequences from even laws under some rules."""
    constraints = ConstraintSet([rule(text) for text in texts], TOKENIZER, [length])
    rows = (torch.zeros(n, length, 4), torch.full((n,), length), torch.rand(n, length), torch.full((n, length), -1))
    return [TOKENIZER.decode(row) for row in constraints.draw(*rows).tolist()]


def test_long_dna_obeys_several_rules_at_once():
    rules = ["gc:50:0.3..0.7:banded", "homopolymer:5", "restriction:EcoRI:BsaI:5flank=ACTGAATT"]
    for sequence in drawn(rules, 200):
        shares = [sequence[i : i + 50].count("G") + sequence[i : i + 50].count("C") for i in range(151)]
        assert 15 <= min(shares) and max(shares) <= 35
        assert not any(base * 6 in sequence for base in "ACGT")
        whole = "ACTGAATT" + sequence
        assert not any(site in whole for site in ("GAATTC", "GGTCTC", "GAGACC"))


def test_sites_are_found_on_both_strands_as_the_enzyme_library_finds_them():
    from Bio import Restriction
    from Bio.Seq import Seq

    source = random.Random(0)
    for name in ("EcoRI", "BsaI", "HinfI", "BslI", "MnlI"):
        one, outcomes = rule(f"restriction:{name}"), set()
        for _ in range(300):
            text = "".join(source.choices("ACGT", k=source.choice([12, 40, 120])))
            # The library drops sites whose cut falls off the end.
            found = bool(getattr(Restriction, name).search(Seq("T" * 30 + text + "T" * 30)))
            assert one.check(text) == (not found) == one.check(reverse_complement(text))
            outcomes.add(found)
        assert outcomes == {True, False}


def test_enzymes_may_be_one_argument_or_several():
    for text in ("restriction:EcoRI:BsaI", "restriction:EcoRI,BsaI", "restriction:EcoRI, BsaI"):
        assert [rule(text).check(s) for s in ("AGAATTCA", "AGGTCTCA", "AGAGACCA", "AAAAAAAA")] == [False] * 3 + [True]


@pytest.mark.parametrize("text", ["GAATTC", "AGAATTCA"])
def test_a_site_in_a_flank_alone_does_no_harm(text):
    one = rule(f"restriction:EcoRI:5flank={text}:3flank={text}")
    assert one.check("AAAA") and not one.check("GAATTC")


def test_percent_is_share():
    for sequence in ("ACGT", "GGGT", "AAAT"):
        assert rule("gc:40..60").check(sequence) == rule("gc:0.4..0.6").check(sequence)


def test_a_banded_rule_is_named_and_stricter():
    exact, banded = rule("gc:6:0.1..0.9"), rule("gc:6:0.1..0.9:banded")
    assert banded.name == "gc:6:0.1..0.9:banded"
    source = random.Random(1)
    texts = ["".join(source.choices("ACGT", k=12)) for _ in range(2000)]
    verdicts = {(exact.check(text), banded.check(text)) for text in texts}
    assert verdicts == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("restriction:EcoRX", "no enzyme is called EcoRX: did you mean 'EcoR"),
        ("restriction:qqqqqqqqq", "no enzyme is called qqqqqqqqq: names are those of REBASE, such as EcoRI"),
        ("restriction:5flank=ACGT", "it names no enzyme; write it as restriction:EcoRI"),
        ("restriction", "wrong number of arguments or an empty one; write it as restriction:EcoRI"),
        ("restriction:EcoRI:5flank=ACGU", "5flank, position 4: letter U is RNA"),
        ("restriction:EcoRI:3flank=ACNT", r"3flank, position 3: ambiguous letter N \(any base\)"),
        ("gc:0.6..0.4", "the range '0.6..0.4' is empty"),
        ("gc:40..160", "40..160 is over 100 %"),
        ("gc:0:0.4..0.6", "'0' is not an integer of at least 1"),
        ("gc:20:0.4..0.6:loose", "'loose' is not banded"),
        ("gc:20:0.45..0.55:banded", "a band needs 3 counts between the bounds, these are 9 and 11; widen the range"),
        ("homopolymer:0", "'0' is not an integer of at least 1"),
        ("homopolymer", "wrong number of arguments"),
    ],
)
def test_bad_arguments_are_refused_by_name(text, message):
    with pytest.raises(UserError, match=f"^constraint {text.split(':')[0]}.*{message}"):
        rule(text)


def test_a_letter_that_is_no_base_is_refused():
    with pytest.raises(UserError, match="homopolymer:3:GQ: no letter 'Q' in the alphabet ACGT"):
        rule("homopolymer:3:GQ")


def test_a_wide_window_is_refused_with_its_remedy_unless_the_length_is_out_of_the_question():
    wide = rule("gc:40:0.4..0.6")
    message = "gc:40:0.4..0.6: a window has .* too many to follow at length 60; .*gc:40:0.4..0.6:banded"
    with pytest.raises(UserError, match=message):
        ConstraintSet([wide], TOKENIZER, [60])
    length = Length("10..20")
    assert ConstraintSet([wide, length], TOKENIZER, range(1, 80)).feasible_lengths == tuple(range(10, 21))
