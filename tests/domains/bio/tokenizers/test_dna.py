"""One token a base: round trips, refusals."""

import csv
import gzip

import pytest

from core.errors import UserError
from domains.bio.tokenizers.dna import Dna


def test_letters_have_a_fixed_order_and_ids():
    tokenizer = Dna()
    assert "".join(tokenizer.letters) == "ACGT" and tokenizer.vocabulary.size == 4
    assert tokenizer.encode("TGCA") == [3, 2, 1, 0] and tokenizer.decode([3, 2, 1, 0]) == "TGCA"


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("ACNG", 3, "ambiguous letter N (any base)"),
        ("RAC", 1, "ambiguous letter R (A or G)"),
        ("ACH", 3, "ambiguous letter H (A or C or T)"),
        ("ACU", 3, "letter U is RNA: alphabet=rna reads a file of RNA, U as T"),
        ("ACgT", 3, "lower case 'g' (soft mask?): case=upper reads it as G"),
        ("ACE", 3, "'E' is not a base"),
        ("AC-T", 3, "gap '-'"),
    ],
)
def test_foreign_letters_are_refused_by_position(text, position, reason):
    with pytest.raises(UserError) as error:
        Dna().encode(text)
    assert str(error.value) == f"sequence {text}, position {position}: {reason}"


@pytest.mark.parametrize("ids", [[-1], [4], [10**30]])
def test_what_is_no_id_is_refused(ids):
    with pytest.raises(UserError, match="position 1: .* is not a base"):
        Dna().decode(ids)


@pytest.mark.parametrize("name", ["tata_promoters_human", "ecoli_promoters", "dhs_hepg2_k562"])
def test_every_real_sequence_survives(name, motif_data):
    tokenizer = Dna()
    with gzip.open(motif_data / "bio" / "dna" / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert tokenizer.decode(tokenizer.encode(row["sequence"])) == row["sequence"]
