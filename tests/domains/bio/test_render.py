"""What is written reads back, and no name of a user's is code to anyone."""

import csv
import math
import xml.etree.ElementTree as ElementTree

import pytest

from domains.bio.readers import read
from domains.bio.render import logo, pictures, write_fasta, write_table
from domains.bio.tokenizers.dna import Dna

SEQUENCES = ["GIGKFLHSAKKFGKAFVGEIMNS" * 4, "MRWQEMGY", "KLAKLAK"]
NAMES = ["<script>alert(1)</script>", "two\nwords >x", "\x1b[31m\u2028"]


def test_fasta_reads_back_with_one_line_headers(tmp_path):
    path = tmp_path / "samples.fasta"
    write_fasta(path, NAMES, SEQUENCES)
    report = read(path)
    assert [record.value for record in report.records] == SEQUENCES and not report.skipped
    assert report.records[0].fields["description"] == "<script>alert(1)</script>"
    assert report.records[1].fields["description"] == "two_words_>x"
    assert report.records[2].name == "[31m"
    assert [file.name for file in tmp_path.iterdir()] == ["samples.fasta"]


@pytest.mark.parametrize("sequence", ["", "AX", "A\n>b"])
def test_fasta_writes_sequences_only(sequence, tmp_path):
    with pytest.raises(ValueError, match="row 0"):
        write_fasta(tmp_path / "a.fasta", ["a"], [sequence])
    assert not list(tmp_path.iterdir())


def test_table_guards_text_and_never_numbers(tmp_path):
    path = tmp_path / "samples.csv"
    names = ["=cmd()", "+1+1", "-x", "@a", "-1.5", 'a,"b"', "\tx", "plain"]
    scores = [-1.5, -2.0, math.nan, 1e-9, -3e20, 0.0, 123456.7, -7]
    write_table(path, {"name": names, "score": scores, "ok": [True, False] * 4, "=head": ["A"] * 8})
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "score", "ok", "'=head"]
    assert [row[0] for row in rows[1:]] == ["'=cmd()", "'+1+1", "'-x", "'@a", "-1.5", 'a,"b"', "'\tx", "plain"]
    assert [row[1] for row in rows[1:5]] == ["-1.5", "-2", "", "1e-09"]
    assert [float(row[1]) for row in rows[4:]] == pytest.approx([1e-9, -3e20, 0.0, 123456.7, -7], rel=1e-5)
    assert [row[2] for row in rows[1:3]] == ["1", "0"]


def test_table_reads_back(tmp_path):
    path = tmp_path / "samples.csv"
    write_table(path, {"name": ["a", "b", "c"], "sequence": SEQUENCES, "net_charge": [1.25, -2.0, math.nan]})
    report = read(path)
    assert [record.value for record in report.records] == SEQUENCES
    assert [record.fields["net_charge"] for record in report.records] == ["1.25", "-2", ""]


def test_logo_covers_what_half_of_the_sequences_reach():
    picture = logo(["ACDE", "ACD", "AC"] * 20, positions=10)
    assert ElementTree.fromstring(picture.render("a")).tag.endswith("svg")
    assert ElementTree.fromstring(logo([]).render("b")).tag.endswith("svg")


def test_dna_is_written_and_drawn_with_its_own_letters(tmp_path):
    dna = ["ACGTACGTAC", "ACGTTTGTAC", "ACGTAC"]
    (lengths, _), (letters, caption) = pictures(dna, dna, Dna())
    assert "length (bases)" in lengths.render("a") and "T violet" in caption and "first base" in caption
    # Four letters carry at most 2 bits, a protein's 4.32.
    assert "at most 2.00 bits" in letters.render("a")
    write_fasta(tmp_path / "a.fasta", NAMES, dna, tokenizer=Dna())
    assert [record.value for record in read(tmp_path / "a.fasta", tokenizer=Dna()).records] == dna
    with pytest.raises(ValueError, match="row 0: 'ACGU' is not a sequence of bases"):
        write_fasta(tmp_path / "b.fasta", ["a"], ["ACGU"], tokenizer=Dna())


@pytest.mark.parametrize("sequences", [[], ["A"], SEQUENCES])
def test_pictures_are_drawn_of_any_number(sequences):
    drawn = pictures(sequences, SEQUENCES)
    assert [svg.title for svg, _ in drawn] == ["Length", "Letters by position"]
    for svg, caption in drawn:
        ElementTree.fromstring(svg.render("a"))
        assert caption
