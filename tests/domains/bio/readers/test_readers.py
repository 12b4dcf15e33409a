"""Files of sequences, good and bad: nothing is changed and nothing dropped in silence."""

import gzip
import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from core.errors import UserError
from domains.bio.alphabet import Alphabet
from domains.bio.readers import _rules, _text, read, registry

PEPTIDES = ["GIGKFLHSAKKFGKAFVGEIMNS", "KWKLFKKIEKVGQNIRDGIIKAG", "MRWQEMGYIFYPRKLR"]
FASTA = "".join(f">p{i} a peptide\n{s}\n" for i, s in enumerate(PEPTIDES, 1))
TABLE = "id,sequence,activity\n" + "".join(f"p{i},{s},{i}.5\n" for i, s in enumerate(PEPTIDES, 1))


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="in.fasta"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


def _zip(text):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.fasta", text)
    return buffer.getvalue()


def _tar(text):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.fasta")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


DNA = ">a\nACGTACGTTTGACA\n>b\nGGGTTTACCANNNA\n"
REFUSED = {
    "empty": (b"", "in.fasta", {}, "the file is empty"),
    "blank": (b"\n \n", "in.fasta", {}, "the file is empty"),
    "empty_table": (b"", "in.csv", {}, "the file is empty"),
    "no_fasta_header": ("GIGKFLHSAKK\n", "in.fasta", {}, "line 1 comes before any header"),
    "only_comments": ("; nothing\n", "in.fasta", {}, "no header"),
    "text_before_header": ("GIG\n" + FASTA, "in.fasta", {}, "line 1 comes before any header"),
    "no_table_header": ("GIGKFLHS,1\nKWKLFK,2\n", "in.csv", {}, "no header row with a column sequence"),
    "html_page": ("<!DOCTYPE html><html>404</html>", "in.fasta", {}, "web page"),
    "html_page_as_table": ("  <html><body>sequence,x</body></html>", "in.csv", {}, "web page"),
    "html_page_no_suffix": ("<html></html>", "in", {}, "web page"),
    "truncated_gzip": (gzip.compress(FASTA.encode())[:-12], "in.fasta.gz", {}, "truncated"),
    "damaged_gzip": (gzip.compress(FASTA.encode())[:-8] + b"12345678", "in.fasta.gz", {}, "damaged"),
    "gzip_magic_only": (b"\x1f\x8b", "in.fasta.gz", {}, "truncated"),
    "zip": (_zip(FASTA), "in.zip", {}, "zip archive"),
    "tar": (_tar(FASTA), "in.fasta", {}, "tar archive"),
    "tar_gz": (gzip.compress(_tar(FASTA)), "in.tar.gz", {}, "tar archive"),
    "gzip_twice": (gzip.compress(gzip.compress(FASTA.encode())), "in.fasta.gz", {}, "twice compressed"),
    "binary": (b">a\nAC\0D\n", "in.fasta", {}, "binary file"),
    "latin_1": (">Müller\nGIGKFL\n".encode("latin-1"), "in.fasta", {}, "not utf-8 at byte 2 (line 1)"),
    "utf_16": (FASTA.encode("utf-16"), "in.fasta", {}, "not utf-8 at byte 0"),
    "unknown_encoding": (FASTA, "in.fasta", {"encoding": "klingon"}, "unknown encoding 'klingon'"),
    "dna": (DNA, "in.fasta", {}, "reads like DNA"),
    "lower_case_dna": (DNA.lower(), "in.fasta", {}, "reads like DNA"),
    "rna": (DNA.replace("T", "U"), "in.fasta", {}, "reads like RNA"),
    "dna_table": ("sequence\nACGTACGT\nACGGGTA\n", "in.csv", {}, "reads like DNA"),
    "nothing_left": (">a\nAXA\n>b\nA-A\n", "in.fasta", {}, "all 2 records are unreadable, the first: "),
    "nothing_but_header": ("sequence,score\n", "in.csv", {}, "no records"),
    "bad_refused": (FASTA + ">b\nGIX\n", "in.fasta", {"on_bad": "refuse"}, "record b, position 3: ambiguous letter X"),
    "ragged_refused": (TABLE + "p9,GIG\n", "in.csv", {"on_bad": "refuse"}, "record 4: line 5 has 2 cells"),
    "two_columns": ("sequence,a,a\nGIGL,1,2\n", "in.csv", {}, "two columns are called a"),
    "no_such_column": (TABLE, "in.csv", {"columns": {"sequence": "sequense"}}, "did you mean 'sequence'?"),
    "open_quote": ('sequence,x\n"GIGK,1\nKWK,2\n', "in.csv", {}, "line 2: unexpected end of data"),
    "unknown_option": (FASTA, "in.fasta", {"cases": "upper"}, "unknown option 'cases': did you mean 'case'?"),
    "foreign_option": (FASTA, "in.fasta", {"columns": {}}, "fasta reader: unknown option 'columns'"),
    "unknown_choice": (FASTA, "in.fasta", {"case": "lower"}, "case='lower': known are refuse, upper"),
    "bad_max_length": (FASTA, "in.fasta", {"max_length": 0}, "max_length=0"),
    "unknown_reader": (FASTA, "in.fasta", {"reader": "fastb"}, "did you mean 'fasta'?"),
    "unknown_format": ("hello world\n", "in.dat", {}, "pass reader=fasta or reader=table"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_files_are_refused_in_one_line_that_names_them(case, write):
    content, name, options, message = REFUSED[case]
    path = write(content, name)
    with pytest.raises(UserError) as error:
        read(path, **options)
    said = str(error.value)
    assert message in said and "\n" not in said
    assert str(path) in said or case in (
        "unknown_option",
        "foreign_option",
        "unknown_choice",
        "bad_max_length",
        "unknown_reader",
    )


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.fasta")
    with pytest.raises(UserError, match="folder"):
        read(tmp_path)


SKIPPED = {
    "ambiguous": ("GIXL", {}, 3, "ambiguous letter X"),
    "selenocysteine": ("GIUL", {}, 3, "selenocysteine"),
    "gap": ("GI-L", {}, 3, "gap '-'"),
    "dot_gap": ("GI.L", {}, 3, "gap '.'"),
    "stop": ("GIL*", {}, 4, "stop '*'"),
    "lower_case": ("GIkL", {}, 3, "case=upper reads it as K"),
    "space": ("GI L", {}, 3, "not a residue"),
    "digit": ("GI1L", {}, 3, "not a residue"),
    "letter_outside_ascii": ("GIÄL", {}, 3, "not a residue"),
    "upper_keeps_the_rest": ("giß", {"case": "upper"}, 3, "not a residue"),
    "empty": ("", {}, None, "empty"),
    "duplicate": (PEPTIDES[0], {}, None, "the same sequence as record p1"),
    "duplicate_in_upper_case": (PEPTIDES[0].lower(), {"case": "upper"}, None, "the same sequence as record p1"),
    "too_long": ("G" * 31, {"max_length": 30}, 31, "31 residues, more than max_length=30"),
    "amide": ("GILK-NH2", {}, 5, "written cap '-NH2': caps=strip"),
    "acetyl": ("Ac-GILK", {}, 1, "written cap 'Ac-': caps=strip"),
    "position_counts_the_cap": ("Ac-GXLK", {"caps": "strip"}, 5, "ambiguous letter X"),
}


@pytest.mark.parametrize("kind", ["fasta", "csv"])
@pytest.mark.parametrize("case", SKIPPED)
def test_bad_records_are_listed_and_the_rest_is_read(case, kind, write):
    sequence, options, position, reason = SKIPPED[case]
    bad = f">odd one\n{sequence}\n" if kind == "fasta" else f"odd,{sequence},0\n"
    path = write((FASTA if kind == "fasta" else TABLE) + bad, f"in.{kind}")
    report = read(path, **options)
    assert [record.value for record in report.records] == PEPTIDES
    (skip,) = report.skipped
    assert (skip.file, skip.record, skip.position) == (str(path), "odd", position)
    assert reason in skip.reason
    assert f"record odd{'' if position is None else f', position {position}'}: " in str(skip)


def check_conservation(path, written):
    """The law of readers: each record written is read as it stands, or listed."""
    report = read(path)
    assert len(report.records) + len(report.skipped) == len(written)
    assert len({record.value for record in report.records}) == len(report.records)
    for record in report.records:
        assert dict(written)[record.name] == record.value
        assert not set(record.value) - set("ACDEFGHIKLMNPQRSTVWY")


WRITTEN = [(f"p{i}", s) for i, s in enumerate(PEPTIDES)] + [(f"x{i}", s[0]) for i, s in enumerate(SKIPPED.values())]


@pytest.mark.parametrize("kind", ["fasta", "csv"])
def test_every_record_is_read_or_listed(kind, write):
    rows = [f">{name}\n{s}\n" if kind == "fasta" else f"{name},{s}\n" for name, s in WRITTEN]
    check_conservation(write(("" if kind == "fasta" else "name,sequence\n") + "".join(rows), f"in.{kind}"), WRITTEN)


REAL_RECORD, REAL_SCREEN = _rules.Rules._record, _rules.Rules.screen
PLANTED = {
    "letters_pass": (Alphabet, "fault", lambda self, sequence: None),
    "case_changes_in_silence": (
        _rules.Rules,
        "_record",
        lambda self, raw, *rest: REAL_RECORD(self, replace(raw, value=raw.value.upper()), *rest),
    ),
    "duplicates_stay": (_rules, "_once", lambda record, first: record),
    "records_drop_in_silence": (
        _rules.Rules,
        "screen",
        lambda self, *given: replace(REAL_SCREEN(self, *given), skipped=()),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_law_of_readers_catches_planted_faults(name, write, monkeypatch):
    path = write("".join(f">{name}\n{s}\n" for name, s in WRITTEN))
    check_conservation(path, WRITTEN)
    monkeypatch.setattr(*PLANTED[name])
    with pytest.raises(AssertionError):
        check_conservation(path, WRITTEN)


def test_what_is_told_is_done_and_stated(write):
    path = write(">a\ngigkfl\n>b\nAc-KWKLF-NH2\n>c\nGIGLL\n")
    report = read(path, case="upper", caps="strip")
    assert [record.value for record in report.records] == ["GIGKFL", "KWKLF", "GIGLL"]
    assert report.records[1].fields["n_cap"] == "Ac" and report.records[1].fields["c_cap"] == "NH2"
    assert "1 records held lower case, read as upper case as told" in report.statements
    assert [s for s in report.statements if "cap" in s] == [
        "record b: C-terminal cap -NH2 taken off, as told",
        "record b: N-terminal cap Ac- taken off, as told",
    ]


def test_protein_that_reads_like_dna_is_read_when_told(write):
    path = write(">silk\nGAGAGAAGAGAG\n")
    with pytest.raises(UserError, match="alphabet=protein"):
        read(path)
    assert read(path, alphabet="protein").records[0].value == "GAGAGAAGAGAG"


@pytest.mark.parametrize(
    ("content", "options", "statement"),
    [
        (FASTA.encode(), {}, None),
        (FASTA.replace("\n", "\r\n").encode(), {}, "line ends were CRLF or CR"),
        (FASTA.replace("\n", "\r").encode(), {}, "line ends were CRLF or CR"),
        (b"\xef\xbb\xbf" + FASTA.encode(), {}, "a UTF-8 byte order mark was removed"),
        (gzip.compress(FASTA.encode()), {}, "decompressed from gzip"),
        (FASTA.replace("p1 a", "p1 ä").encode("latin-1"), {"encoding": "latin-1"}, "decoded as latin-1, as told"),
        (("; by hand\n" + FASTA).encode(), {}, "1 comment lines were passed over"),
        (FASTA.replace("KFLH", "KFLH\n").encode(), {}, None),
    ],
)
def test_harmless_forms_read_alike_and_are_stated(content, options, statement, write):
    report = read(write(content), **options)
    assert [record.value for record in report.records] == PEPTIDES
    assert [record.name for record in report.records] == ["p1", "p2", "p3"]
    assert not report.skipped
    assert list(report.statements) == ([] if statement is None else [statement])


@pytest.mark.parametrize(("sign", "word"), [(",", "comma"), (";", "semicolon"), ("\t", "tab")])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_delimiters_are_seen_and_stated(sign, word, ends, write):
    report = read(write(TABLE.replace(",", sign).replace("\n", ends), "in.csv"))
    assert f"the delimiter is a {word}" in report.statements
    assert [record.value for record in report.records] == PEPTIDES
    assert [record.fields["activity"] for record in report.records] == ["1.5", "2.5", "3.5"]
    assert [record.line for record in report.records] == [2, 3, 4]


def test_decimal_commas_are_read_and_stated(write):
    report = read(write(TABLE.replace(",", ";").replace(".", ","), "in.csv"))
    assert "column activity has decimal commas, read as points" in report.statements
    assert [record.fields["activity"] for record in report.records] == ["1.5", "2.5", "3.5"]


def test_mixed_decimals_and_text_with_commas_stay(write):
    report = read(write("seq;a;b\nGIGLL;1,5;x, y\nKWKLF;1.234,5;z\nMRWQE;2.5;3\n", "in.csv"))
    assert [dict(record.fields) for record in report.records][0] == {"a": "1,5", "b": "x, y"}
    report = read(write("seq;a\nGIGLL;1,5\nKWKLF;2.5\n", "in.csv"))
    assert "column a mixes decimal commas and points: left as text" in report.statements
    assert report.records[0].fields["a"] == "1,5"


def test_columns_map_any_header(write):
    path = write("Accession;Pep;MIC (uM)\nQ1;GIGLL;4\nQ2;KWKLF;8\n", "in.csv")
    report = read(path, columns={"sequence": "Pep", "name": "Accession", "mic": "MIC (uM)"})
    assert [(r.name, r.value, r.fields["mic"]) for r in report.records] == [("Q1", "GIGLL", "4"), ("Q2", "KWKLF", "8")]


@pytest.mark.parametrize("name", ["Sequence", "SEQ", "peptide"])
def test_one_column_under_a_usual_name_is_enough(name, write):
    report = read(write(f"{name}\nGIGLL\n\nKWKLF\n", "in.txt"))
    assert [(r.name, r.value, r.line) for r in report.records] == [("1", "GIGLL", 2), ("2", "KWKLF", 4)]


def test_rows_of_another_width_are_listed(write):
    report = read(write(TABLE + "p9,GIGLL\n", "in.csv"))
    assert [skip.reason for skip in report.skipped] == ["line 5 has 2 cells where the header has 3"]


def test_the_format_is_seen_from_the_content(write):
    assert len(read(write(FASTA, "in.csv")).records) == 3
    assert len(read(write(TABLE, "in.dat")).records) == 3
    assert len(read(write(TABLE, "in.dat"), reader="table").records) == 3


def test_markup_in_a_header_stays_data(write):
    header = "<script>alert('x')</script> \x1b[31m & =cmd()"
    report = read(write(f">{header}\nGIGLL\n>{header}\nGIX\n"))
    assert report.records[0].name == "<script>alert('x')</script>"
    assert report.records[0].fields["description"] == header
    assert "\x1b" not in str(report.skipped[0])


def test_long_names_do_not_fill_the_message(write):
    report = read(write(FASTA + f">{'n' * 5000}\nGIX\n"))
    assert report.skipped[0].record == "n" * 5000
    assert len(str(report.skipped[0])) < 300


def test_a_nameless_record_is_named_by_its_number_and_that_is_stated(write):
    report = read(write(">\nGIGLL\n>b\nKWKLF\n"))
    assert [record.name for record in report.records] == ["1", "b"]
    assert "1 headers are empty: those records are named by their number" in report.statements


def test_compressed_bombs_stop_at_the_cap(write, monkeypatch):
    bomb = write(gzip.compress(b">a\n" + b"G" * (12 << 20)), "in.fasta.gz")
    with pytest.raises(UserError, match="unpacks to more than"):
        read(bomb)
    monkeypatch.setattr(_text, "SIZE_CAP", 50)
    with pytest.raises(UserError, match="split the file"):
        read(write(FASTA))


@pytest.mark.parametrize("key", registry.keys())
def test_every_reader_refuses_an_empty_file(key, write):
    member = registry.get(key)
    assert member.suffixes and member.paper.title
    with pytest.raises(UserError, match="empty"):
        member().read(write(b"", f"in{member.suffixes[0]}"))


@pytest.mark.slow
def test_the_corpus_is_read_whole(motif_data):
    report = read(motif_data / "bio" / "peptides" / "corpus.csv.gz")
    assert len(report.records) == 14_625 and not report.skipped
    assert set(report.records[0].fields) == {"length", "sources", "split"}
    assert report.statements == ("decompressed from gzip", "the delimiter is a comma")


def test_wild_types_are_read(motif_data):
    report = read(motif_data / "bio" / "proteins" / "wildtypes.fasta")
    assert len(report.records) + len(report.skipped) == 3 and len(report.records) >= 2


def test_real_dna_is_refused(motif_data):
    with pytest.raises(UserError, match="reads like DNA"):
        read(motif_data / "bio" / "dna" / "ecoli_promoters.csv.gz")
