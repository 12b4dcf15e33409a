"""One token a residue: round trips, refusals, fuzzed ids."""

import csv
import gzip
import json
import random

import pytest

from core.errors import UserError
from domains.bio.tokenizers import registry
from domains.bio.tokenizers.amino_acid import AminoAcid


def test_letters_have_a_fixed_order_and_ids():
    tokenizer = AminoAcid()
    assert "".join(tokenizer.letters) == "ACDEFGHIKLMNPQRSTVWY"
    assert tokenizer.encode("ACY") == [0, 1, 19]
    assert tokenizer.vocabulary.size == 20
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("ACBD", 3, "ambiguous letter B (D or N)"),
        ("ZA", 1, "ambiguous letter Z (E or Q)"),
        ("AJ", 2, "ambiguous letter J (I or L)"),
        ("AXA", 2, "ambiguous letter X (any residue)"),
        ("AUA", 2, "selenocysteine"),
        ("AO", 2, "pyrrolysine"),
        ("A-A", 2, "gap"),
        ("AA*", 3, "stop"),
        ("Ak", 2, "case=upper"),
        ("A\nA", 2, "not a residue"),
        ("A\u00c4", 2, "not a residue"),
    ],
)
def test_foreign_letters_are_refused_by_position(text, position, reason):
    with pytest.raises(UserError) as error:
        AminoAcid().encode(text)
    assert f"position {position}: " in str(error.value) and reason in str(error.value)
    assert "\n" not in str(error.value)


def test_ambiguity_names_what_each_code_stands_for():
    ambiguity = AminoAcid.ambiguity
    assert {key: "".join(sorted(ambiguity[key])) for key in "BJZ"} == {"B": "DN", "J": "IL", "Z": "EQ"}
    assert ambiguity["X"] == frozenset(AminoAcid().letters)


def test_fuzzed_ids_decode_or_are_refused():
    tokenizer, source = AminoAcid(), random.Random(0)
    outcomes = set()
    for _ in range(3000):
        high = source.choice([20, 30])
        ids = [source.randrange(-1 if high > 20 else 0, high) for _ in range(source.randrange(12))]
        try:
            assert tokenizer.encode(tokenizer.decode(ids)) == ids
            outcomes.add("decoded")
        except UserError:
            assert any(not 0 <= token < 20 for token in ids)
            outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}


@pytest.mark.parametrize("ids", [[-1], [20], [23], [10**30]])
def test_what_is_no_id_is_refused(ids):
    with pytest.raises(UserError, match="position 1"):
        AminoAcid().decode(ids)


def test_every_peptide_of_the_corpus_survives(motif_data):
    tokenizer, count = AminoAcid(), 0
    with gzip.open(motif_data / "bio" / "peptides" / "corpus.csv.gz", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert tokenizer.decode(tokenizer.encode(row["sequence"])) == row["sequence"]
            count += 1
    assert count == 14_625


@pytest.mark.parametrize("key", registry.keys())
def test_saved_form_rebuilds_the_same_tokenizer(key):
    member = registry.get(key)
    tokenizer = member()
    saved = json.loads(tokenizer.to_json(key))
    assert registry.get(saved["tokenizer"])(**saved["settings"]).to_json(key) == tokenizer.to_json(key)
