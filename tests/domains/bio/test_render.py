"""What is written reads back, and no name of a user's is code to anyone."""

import csv
import math
import xml.etree.ElementTree as ElementTree

import pytest

from domains.bio.readers import read
from domains.bio.render import letter_heights, sequence_logo, write_fasta, write_table

SEQUENCES = ["GIGKFLHSAKKFGKAFVGEIMNS" * 4, "MRWQEMGY", "KLAKLAK"]
NAMES = ["<script>alert(1)</script>", "two\nwords >x", "\x1b[31m\u2028"]


def test_fasta_reads_back_with_scores_in_one_line_headers(tmp_path):
    path = tmp_path / "samples.fasta"
    write_fasta(path, NAMES, SEQUENCES, {"net charge": [1.0, -2.5, math.nan]})
    report = read(path)
    assert [record.value for record in report.records] == SEQUENCES and not report.skipped
    assert report.records[0].fields["description"] == "<script>alert(1)</script> net_charge=1"
    assert report.records[1].fields["description"] == "two_words_>x net_charge=-2.5"
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


def test_logo_heights_are_the_information():
    correction = 19 / (2 * 100 * math.log(2))
    assert letter_heights(["A"] * 100) == [("A", pytest.approx(math.log2(20) - correction))]
    small, large = letter_heights(["A"] * 75 + ["C"] * 25)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert (small[0], large[0]) == ("C", "A")
    assert large[1] == pytest.approx(0.75 * (math.log2(20) - entropy - correction))
    assert letter_heights(["A", "C"]) == [("A", 0.0), ("C", 0.0)]
    assert letter_heights([]) == []


def test_logo_is_well_formed_and_escaped():
    picture = sequence_logo(["ACD<", "ACDE", "AC"] * 20, positions=10, title="<script>alert(1)</script>")
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg") and "<script" not in picture
    text = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"A", "C", "D", "<"} <= set(text)
    assert ElementTree.fromstring(sequence_logo([])).tag.endswith("svg")
