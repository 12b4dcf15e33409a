"""Bad input through the real commands: what is refused leaves nothing, what is read loses nothing in silence."""

import csv
import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.data.shards import TokenShards
from domains.bio.readers import _rules
from domains.bio.tokenizers.amino_acid import AminoAcid
from pipelines import reading

PEPTIDES = ["GIGKFLHSAKKFGKAFVGEIMNS", "KWKLFKKIEKVGQNIRDGIIKAG", "MRWQEMGYIFYPRKLR"]
FASTA = "".join(f">p{number} a peptide\n{sequence}\n" for number, sequence in enumerate(PEPTIDES, 1))
TABLE = "id,sequence,activity\n" + "".join(f"p{n},{s},{n}.5\n" for n, s in enumerate(PEPTIDES, 1))
DNA = ">a\nACGTACGTTTGACA\n>b\nGGGTTTACCANNNA\n"


def _reads_like(kind: str) -> str:
    return (
        f"{{file}}: 100% of the letters are A, C, G, T, U or N, so this reads like {kind}, not protein: "
        "translate it, or pass alphabet=protein if it is protein"
    )


TRUNCATED = "{file}: the gzip file is truncated: download it again"
REFUSED_FILES = {
    "empty": (b"", "in.fasta", (), "{file}: the file is empty"),
    "blank_lines": (b"\n\n", "in.csv", (), "{file}: the file is empty"),
    "no_header": (
        "GIGKFLHSAKK\n",
        "in.fasta",
        (),
        "{file}: line 1 comes before any header: a FASTA record starts with a '>' line",
    ),
    "no_header_in_a_table": (
        "GIGKFLHS,1\nKWKLFK,2\n",
        "in.csv",
        (),
        "{file}: no header row with a column sequence, seq or peptide; the first row reads: GIGKFLHS, 1: "
        "add a header row, or pass columns=sequence:NAME",
    ),
    "html_page": (
        "<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "in.fasta",
        (),
        "{file}: this is a web page, not sequences: download the raw file instead",
    ),
    "truncated_gzip": (gzip.compress(FASTA.encode())[:-12], "in.fasta.gz", (), TRUNCATED),
    "truncated_gzip_under_a_plain_name": (gzip.compress(FASTA.encode())[:20], "in.fasta", (), TRUNCATED),
    "dna": (DNA, "in.fasta", (), _reads_like("DNA")),
    "soft_masked_dna": (DNA.lower(), "in.fasta", (), _reads_like("DNA")),
    "dna_when_told_upper": (DNA.lower(), "in.fasta", ("case=upper",), _reads_like("DNA")),
    "rna": (DNA.replace("T", "U"), "in.fasta", (), _reads_like("RNA")),
    "dna_in_a_table": ("sequence\nACGTACGT\nACGGGTA\n", "in.csv", (), _reads_like("DNA")),
    "latin_1": (
        FASTA.replace("p2 a", "p2 é").encode("latin-1"),
        "in.fasta",
        (),
        "{file}: not utf-8 at byte 42 (line 3): declare the right one, such as encoding=latin-1",
    ),
    "only_ambiguous": (
        ">a\nGIXL\n>b\nKBKL\n",
        "in.fasta",
        (),
        "{file}: all 2 records are unreadable, the first: "
        "{file}: record a, position 3: ambiguous letter X (any residue)",
    ),
    "ambiguous_when_told_to_refuse": (
        FASTA + ">b\nGIX\n",
        "in.fasta",
        ("on_bad=refuse",),
        "{file}: record b, position 3: ambiguous letter X (any residue): mend it, or pass on_bad=skip",
    ),
    "duplicate_when_told_to_refuse": (
        FASTA + f">b\n{PEPTIDES[0]}\n",
        "in.fasta",
        ("on_bad=refuse",),
        "{file}: record b: duplicate: the same sequence as record p1: mend it, or pass on_bad=skip",
    ),
    "all_too_long": (
        f">a\n{'GIKL' * 10}\n",
        "in.fasta",
        ("max_length=20",),
        "{file}: all 1 records are unreadable, the first: "
        "{file}: record a, position 21: 40 residues, more than max_length=20",
    ),
    "no_such_column": (
        TABLE,
        "in.csv",
        ("columns=sequence:sequense",),
        "{file}: columns=sequence:sequense: no such column: did you mean 'sequence'?",
    ),
    "columns_without_a_mark": (
        TABLE,
        "in.csv",
        ("columns=sequence",),
        "columns=sequence: write target:header pairs, as in sequence:pep_seq",
    ),
    "unknown_reader": (FASTA, "in.fasta", ("reader=fastb",), "unknown reader 'fastb': did you mean 'fasta'?"),
    "unknown_case": (FASTA, "in.fasta", ("case=lower",), "reader option case='lower': known are refuse, upper"),
    "unknown_caps": (FASTA, "in.fasta", ("caps=drop",), "reader option caps='drop': known are refuse, strip"),
    "unknown_encoding": (FASTA, "in.fasta", ("encoding=klingon",), "{file}: unknown encoding 'klingon'"),
    "bad_max_length": (
        FASTA,
        "in.fasta",
        ("max_length=0",),
        "reader option max_length=0: it must be a whole number of at least 1",
    ),
}


@pytest.mark.parametrize("verb", ["prepare", "evaluate"])
@pytest.mark.parametrize("case", REFUSED_FILES)
def test_a_bad_file_is_refused(case: str, verb: str, refused: Callable, tmp_path: Path) -> None:
    content, name, words, message = REFUSED_FILES[case]
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    refused(message.format(file=file), verb, f"input={file}", *words)


@pytest.mark.parametrize("verb", ["prepare", "evaluate"])
def test_a_missing_file_and_a_folder_are_refused(verb: str, refused: Callable, tmp_path: Path) -> None:
    file = tmp_path / "none.fasta"
    refused(f"{file}: No such file or directory", verb, f"input={file}")
    refused(f"{tmp_path}: this is a folder: name one file in it", verb, f"input={tmp_path}")


# case: content, name, words, sequences that are read, records skipped, statements
READ_FILES = {
    "ambiguous": (FASTA + ">b\nGIXL\n>c\nZKL\n", "in.fasta", (), PEPTIDES, [
        ("b", "3", "ambiguous letter X (any residue)"),
        ("c", "1", "ambiguous letter Z (E or Q)"),
    ], []),
    "rare_residues": (FASTA + ">b\nGIUL\n>c\nGIOL\n", "in.fasta", (), PEPTIDES, [
        ("b", "3", "letter U (selenocysteine) is not one of the 20 residues"),
        ("c", "3", "letter O (pyrrolysine) is not one of the 20 residues"),
    ], []),
    "gaps_and_stop": (FASTA + ">b\nGI-L\n>c\nGI.L\n>d\nGIL*\n", "in.fasta", (), PEPTIDES, [
        ("b", "3", "gap '-'"), ("c", "3", "gap '.'"), ("d", "4", "stop '*'"),
    ], []),
    "lower_case": (FASTA + ">b\nGIkL\n", "in.fasta", (), PEPTIDES, [
        ("b", "3", "lower case 'k' (soft mask or D-residue?): case=upper reads it as K"),
    ], []),
    "lower_case_as_told": (FASTA + ">b\nGIkL\n", "in.fasta", ("case=upper",), [*PEPTIDES, "GIKL"], [], [
        "1 records held lower case, read as upper case as told",
    ]),
    "duplicates": (FASTA + f">b\n{PEPTIDES[1]}\n", "in.fasta", (), PEPTIDES, [
        ("b", "", "duplicate: the same sequence as record p2"),
    ], []),
    "empty_record": (FASTA + ">b\n>c\nGIKL\n", "in.fasta", (), [*PEPTIDES, "GIKL"], [
        ("b", "", "the sequence is empty"),
    ], []),
    "caps": (FASTA + ">b\nAc-GIKL-NH2\n", "in.fasta", (), PEPTIDES, [
        ("b", "1", "written cap 'Ac-': caps=strip takes it off"),
    ], []),
    "caps_as_told": (FASTA + ">b\nAc-GIKL-NH2\n", "in.fasta", ("caps=strip",), [*PEPTIDES, "GIKL"], [], [
        "record b: C-terminal cap -NH2 taken off, as told",
        "record b: N-terminal cap Ac- taken off, as told",
    ]),
    "crlf": (FASTA.replace("\n", "\r\n"), "in.fasta", (), PEPTIDES, [], ["line ends were CRLF or CR"]),
    "latin_1_as_told": (
        FASTA.replace("p2 a", "p2 é").encode("latin-1"), "in.fasta", ("encoding=latin-1",), PEPTIDES, [],
        ["decoded as latin-1, as told"],
    ),
    "byte_order_mark": (
        b"\xef\xbb\xbf" + FASTA.encode(), "in.fasta", (), PEPTIDES, [], ["a UTF-8 byte order mark was removed"],
    ),
    "gzip": (gzip.compress(FASTA.encode()), "in.fasta.gz", (), PEPTIDES, [], ["decompressed from gzip"]),
    "semicolons_and_decimal_commas": (
        TABLE.replace(",", ";").replace(".", ","), "in.csv", (), PEPTIDES, [],
        ["the delimiter is a semicolon", "column activity has decimal commas, read as points"],
    ),
    "a_header_of_the_users": (
        TABLE.replace("sequence", "pep seq"), "in.csv", ("columns=sequence:pep seq",), PEPTIDES, [],
        ["the delimiter is a comma"],
    ),
    "ragged_row": (TABLE + "p9,GIGL\n", "in.csv", (), PEPTIDES, [
        ("4", "", "line 5 has 2 cells where the header has 3"),
    ], ["the delimiter is a comma"]),
    "too_long": (FASTA + f">b\n{'GIKL' * 10}\n", "in.fasta", ("max_length=30",), PEPTIDES, [
        ("b", "31", "40 residues, more than max_length=30"),
    ], []),
    "protein_like_dna_as_told": (
        ">a\nGAGAGAAGAGAG\n>b\nGAGAGTAGAGAG\n>c\nGAAA\n", "in.fasta", ("alphabet=protein",),
        ["GAGAGAAGAGAG", "GAGAGTAGAGAG", "GAAA"], [], [],
    ),
}  # fmt: skip


def check_nothing_is_lost(motif: Callable, case: str, verb: str, tiny: Path, folder: Path) -> None:
    """The law of reading commands: each record is in the result as it stands, or listed with its reason."""
    content, name, words, kept, skipped, statements = READ_FILES[case]
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    words = words if verb == "prepare" else (*words, f"checkpoint={tiny / 'model'}")
    outcome = motif(verb, f"input={file}", *words, f"out={folder / 'out'}")
    assert outcome.code == 0, outcome.err
    with open(folder / "out" / "skipped.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [["file", "record", "position", "reason"], *([str(file), *row] for row in skipped)]
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    for told in statements:
        assert told in page
    if verb == "evaluate":
        with open(folder / "out" / "samples.csv", encoding="utf-8", newline="") as stream:
            assert [row["sequence"] for row in csv.DictReader(stream)] == kept
        return
    shards = TokenShards.open(folder / "out")
    assert sorted(AminoAcid().decode(row.tolist()) for row in shards) == sorted(kept)
    card = (folder / "out" / "card.md").read_text(encoding="utf-8").splitlines()
    assert card[card.index(f"- skipped: {len(skipped)} (listed in skipped.csv)") + 1 :] == [
        f"- {s}" for s in statements
    ]


@pytest.mark.parametrize("verb", ["prepare", "evaluate"])
@pytest.mark.parametrize("case", READ_FILES)
def test_no_letter_is_changed_and_no_record_dropped_in_silence(
    case: str, verb: str, motif: Callable, tiny: Path, tmp_path: Path
) -> None:
    check_nothing_is_lost(motif, case, verb, tiny, tmp_path)


REAL_SCREEN = _rules.Rules.screen
PLANTED = {
    "letters_are_resolved": (
        _rules.Rules,
        "screen",
        lambda self, file, found, *rest: REAL_SCREEN(
            self, file, [replace(record, value=record.value.replace("X", "A")) for record in found], *rest
        ),
    ),
    "records_drop_in_silence": (
        _rules.Rules,
        "screen",
        lambda self, *given: replace(REAL_SCREEN(self, *given), skipped=()),
    ),
    "the_list_is_not_filled": (reading, "guarded", lambda cell: ""),
}


@pytest.mark.parametrize("verb", ["prepare", "evaluate"])
@pytest.mark.parametrize("fault", PLANTED)
def test_the_law_catches_a_planted_fault(
    fault: str, verb: str, motif: Callable, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*PLANTED[fault])
    with pytest.raises(AssertionError):
        check_nothing_is_lost(motif, "ambiguous", verb, tiny, tmp_path)


SCRIPT = "<script>alert('x')</script>&\"=cmd()"


@pytest.mark.parametrize("verb", ["prepare", "evaluate"])
def test_markup_in_a_header_is_harmless_in_the_report(verb: str, motif: Callable, tiny: Path, tmp_path: Path) -> None:
    text = FASTA + f">{SCRIPT}read\nGIKLF\n>{SCRIPT}skipped\nGIXL\n>=cmd()\nGIZ\n"
    (tmp_path / "<img src=x>.fasta").write_text(text, encoding="utf-8")
    words = [f"input={tmp_path / '<img src=x>.fasta'}", f"out={tmp_path / 'out'}"]
    outcome = motif(verb, *words, *([f"checkpoint={tiny / 'model'}"] if verb == "evaluate" else []))
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    shown = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;&quot;=cmd()"
    assert f"{shown}skipped" in page
    assert (f"{shown}read" in page) == (verb == "evaluate")
    assert "<script>alert" not in page and "<img" not in page
    assert "Content-Security-Policy" in page
    with open(tmp_path / "out" / "skipped.csv", encoding="utf-8", newline="") as stream:
        records = [row["record"] for row in csv.DictReader(stream)]
    assert records == [f"{SCRIPT}skipped", "'=cmd()"]
