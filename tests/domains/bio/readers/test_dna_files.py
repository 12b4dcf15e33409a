"""Files where DNA is expected: RNA and proteins are told apart, labels lose no more than spaces."""

import gzip

import pytest

from core.errors import UserError
from domains.bio.readers import read
from domains.bio.tokenizers.dna import Dna

SEQUENCES = ["ACGTACGTTTGACA", "GGGTTTACCAGGTA", "TATAAAGGCTA"]
FASTA = "".join(f">d{i}\n{s}\n" for i, s in enumerate(SEQUENCES, 1))
TABLE = "id,sequence,class\n" + "".join(f"d{i},{s},{'ab'[i % 2]}\n" for i, s in enumerate(SEQUENCES, 1))
PROTEIN = ">a\nGIGKFLHSAKKFGKAFVGEIMNS\n>b\nKWKLFKKIEKVGQNIRDG\n"


@pytest.fixture
def dna(tmp_path):
    """The report on a text where DNA is expected."""

    def of(content, name="in.fasta", **options):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read(path, tokenizer=Dna(), **options)

    return of


@pytest.mark.parametrize(("content", "name"), [(FASTA, "in.fasta"), (TABLE, "in.csv")])
def test_dna_is_read(content, name, dna):
    report = dna(content, name)
    assert [record.value for record in report.records] == SEQUENCES and not report.skipped
    assert dna(gzip.compress(content.encode()), f"{name}.gz").records[0].value == SEQUENCES[0]


REFUSED = {
    "rna": (FASTA.replace("T", "U"), {}, "reads like RNA, not DNA: pass alphabet=rna to read U as T"),
    "lower_case_rna": (FASTA.replace("T", "U").lower(), {}, "reads like RNA, not DNA"),
    "protein": (PROTEIN, {}, "of the letters stand for no base, so this reads like protein, not DNA"),
    "asserted_protein": (FASTA, {"alphabet": "protein"}, "alphabet='protein': known are detect, dna, rna"),
    "dna_as_rna": (FASTA, {"alphabet": "rna", "on_bad": "refuse", "case": "upper"}, None),
    "soft_masked": (FASTA.lower(), {}, "position 1: lower case 'a' (soft mask?): case=upper reads it as A"),
    "only_codes": (">a\nACNT\n>b\nRRYY\n", {}, "all 2 records are unreadable, the first: "),
    "too_long": (FASTA, {"max_length": 5}, "position 6: 14 bases, more than max_length=5"),
    "protein_as_dna": (PROTEIN, {"alphabet": "dna"}, "position 2: 'I' is not a base"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_kind_of_file_is_refused(case, dna):
    content, options, message = REFUSED[case]
    if message is None:
        # DNA holds no U: reading it as RNA changes nothing.
        assert [record.value for record in dna(content, **options).records] == SEQUENCES
        return
    with pytest.raises(UserError) as error:
        dna(content, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


# What stands in a record, and what is said of it.
SKIPPED = {
    "any_base": ("ACNT", 3, "ambiguous letter N (any base)"),
    "two_bases": ("ACRT", 3, "ambiguous letter R (A or G)"),
    "one_u": ("ACGU", 4, "letter U is RNA: alphabet=rna reads a file of RNA, U as T"),
    "soft_mask": ("ACgT", 3, "lower case 'g' (soft mask?): case=upper reads it as G"),
    "gap": ("AC-T", 3, "gap '-'"),
    "no_base": ("ACET", 3, "'E' is not a base"),
    "twice": (SEQUENCES[0], None, "duplicate: the same sequence as record d1"),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_a_bad_record_is_listed_by_position(case, dna):
    sequence, position, reason = SKIPPED[case]
    report = dna(FASTA + f">bad\n{sequence}\n")
    assert [record.value for record in report.records] == SEQUENCES
    assert [(skip.record, skip.position, skip.reason) for skip in report.skipped] == [("bad", position, reason)]


def test_rna_is_read_as_dna_when_told_and_that_is_stated(dna):
    text = "".join(f">r{i}\n{s.replace('T', 'U')}\n" for i, s in enumerate(SEQUENCES)) + ">mixed\nACGUT\n"
    report = dna(text, alphabet="rna")
    assert [record.value for record in report.records] == SEQUENCES
    assert [(skip.record, skip.position, skip.reason) for skip in report.skipped] == [
        ("mixed", 5, "letter T beside U: neither RNA nor DNA")
    ]
    assert report.statements == ("3 records were read as RNA, U as T, as told",)


def test_soft_masked_dna_is_read_when_told_and_that_is_stated(dna):
    report = dna(FASTA.replace("ACGT", "acgt"), case="upper")
    assert [record.value for record in report.records] == SEQUENCES
    assert report.statements == ("1 records held lower case, read as upper case as told",)


def test_spaces_around_labels_are_taken_off_and_that_is_stated(dna):
    report = dna("sequence,class\nACGTAC, HepG2\nACGTTT,HepG2 \nTTTACG,HepG2\n", "in.csv")
    assert {record.fields["class"] for record in report.records} == {"HepG2"}
    assert "2 cells of column class had spaces around them, taken off" in report.statements


def test_a_missing_column_is_named(dna):
    with pytest.raises(UserError, match=r"columns=class:cel: no such column: did you mean 'cell'\?"):
        dna("sequence,cell\nACGTAC,HepG2\n", "in.csv", columns={"class": "cel"})


@pytest.mark.parametrize(("name", "count"), [("ecoli_promoters", 11_884), ("tata_promoters_human", 2_929)])
def test_real_promoters_are_read_whole(name, count, motif_data):
    report = read(motif_data / "bio" / "dna" / f"{name}.csv.gz", tokenizer=Dna())
    assert len(report.records) == count and not report.skipped
