"""DNA through the real commands: what is refused and why, how sets become splits, and what comes out."""

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import pipelines as motif
from core.data.shards import TokenShards
from domains.bio.alphabet import reverse_complement
from domains.bio.tokenizers.dna import Dna
from domains.data_sets import data_folder, data_sets, named_set
from pipelines.cli import main
from pipelines.data_sets import parts_of
from pipelines.present import read_reference

DNA = ("domain=bio", "task=regulatory_dna")
SEQUENCES = ["ACGTACGTTTGACA", "GGGTTTACCAGGTA", "TATAAAGGCTA"]
FASTA = "".join(f">d{number}\n{sequence}\n" for number, sequence in enumerate(SEQUENCES))
TABLE = "sequence,cell\n" + "".join(f"{sequence},{'ab'[n % 2]}\n" for n, sequence in enumerate(SEQUENCES))
RNA = "{file}: it holds U where DNA has T, so this reads like RNA, not DNA: pass alphabet=rna to read U as T"
# Bad input of labels, classes and kinds of sequences: content, name, words, message.
REFUSED = {
    "rna_as_dna": (FASTA.replace("T", "U"), "in.fasta", (), RNA),
    "protein_as_dna": (
        ">a\nGIGKFLHSAKKFGKAFVGEIMNS\n",
        "in.fasta",
        (),
        "{file}: 30% of the letters stand for no base, so this reads like protein, not DNA: "
        "translate it back, or pass alphabet=dna if it is DNA",
    ),
    "dna_called_protein": (
        FASTA,
        "in.fasta",
        ("alphabet=protein",),
        "reader option alphabet='protein': known are detect, dna, rna",
    ),
    "ambiguous_letters_only": (
        ">a\nACNGTRY\n",
        "in.fasta",
        (),
        "{file}: all 1 records are unreadable, the first: {file}: record a, position 3: ambiguous letter N (any base)",
    ),
    "soft_masked": (
        FASTA.lower(),
        "in.fasta",
        ("on_bad=refuse",),
        "{file}: record d0, position 1: lower case 'a' (soft mask?): case=upper reads it as A: mend it, or pass "
        "on_bad=skip",
    ),
    "longer_than_the_model": (
        ">a\n" + "ACGT" * 80 + "\n",
        "in.fasta",
        ("max_length=300",),
        "{file}: all 1 records are unreadable, the first: "
        "{file}: record a, position 301: 320 bases, more than max_length=300",
    ),
}
# These are of labels, which evaluate does not read.
REFUSED_LABELS = {
    "class_column_missing": (
        TABLE,
        "in.csv",
        ("columns=class:cel",),
        "{file}: columns=cel:cel: no such column: did you mean 'cell'?",
    ),
    "class_column_empty": (
        TABLE.replace(",a", ",").replace(",b", ","),
        "in.csv",
        ("columns=class:cell",),
        "columns=class:cell: no record has a class there",
    ),
    "classes_that_differ_in_case": (
        TABLE.replace(",a", ",HepG2").replace(",b", ",hepg2").replace("TATAAAGGCTA,HepG2", "TATAAAGGCTA,K562"),
        "in.csv",
        ("columns=class:cell",),
        "column cell: classes 'HepG2' and 'hepg2' differ in case alone: write them alike",
    ),
    "class_without_a_table": (
        FASTA,
        "in.fasta",
        ("columns=class:cell",),
        "fasta reader: unknown option 'columns': known are encoding, case, caps, on_bad, alphabet, max_length",
    ),
}
CASES = [(case, verb) for case in REFUSED for verb in ("prepare", "evaluate")]


@pytest.mark.parametrize(("case", "verb"), [*CASES, *((case, "prepare") for case in REFUSED_LABELS)])
def test_a_bad_file_is_refused(case: str, verb: str, refused: Callable, tmp_path: Path) -> None:
    content, name, words, message = (REFUSED | REFUSED_LABELS)[case]
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    refused(message.format(file=file), verb, *DNA, f"input={file}", *words)


def test_there_is_no_bundled_model_yet(refused: Callable) -> None:
    refused(
        "task regulatory_dna has no bundled model: train one with `motif prepare` and `motif train domain=bio "
        "task=regulatory_dna`, and pass checkpoint=FOLDER",
        "generate",
        *DNA,
    )


def test_stray_spaces_make_no_class_and_are_stated(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text(TABLE.replace(",a", ", a").replace(",b", ",b "), encoding="utf-8")
    words = {"domain": "bio", "task": "regulatory_dna", "input": file, "columns": "class:cell"}
    out = motif.prepare(**words, out=tmp_path / "out")
    assert TokenShards.open(out).columns[0].labels == ("a", "b")
    assert "- 3 cells of column cell had spaces around them, taken off" in (out / "card.md").read_text()


def strand(source: random.Random, n: int) -> str:
    return "".join(source.choices("ACGT", k=n))


@pytest.mark.parametrize("split", ["hash", "cluster"])
def test_no_split_parts_relatives_on_either_strand(split: str, tmp_path: Path) -> None:
    source = random.Random(0)
    families = [strand(source, 60) for _ in range(60)]
    members = [
        s for f in families for s in (f, reverse_complement(f), strand(source, 12) + reverse_complement(f[9:45]))
    ]
    file = tmp_path / "in.fasta"
    file.write_text("".join(f">{n}\n{s}\n" for n, s in enumerate(members)), encoding="utf-8")
    out = motif.prepare(domain="bio", task="regulatory_dna", input=file, split=split, out=tmp_path / "out")
    shards, place = TokenShards.open(out), {}
    for name in ("train", "valid", "test"):
        place |= {Dna().decode(row.tolist()): name for row in shards.split(name)}
    assert len(place) == len(members) and len(set(place.values())) == 3
    assert all(len({place[member] for member in members[n : n + 3]}) == 1 for n in range(0, len(members), 3))


def test_named_sets_say_what_they_are() -> None:
    known = {entry["name"]: entry for entry in data_sets()}
    assert {"peptides", "tata_promoters", "ecoli_promoters", "dhs_hepg2_k562", "promoters"} <= set(known)
    assert "academic" in known["dhs_hepg2_k562"]["licence"]
    assert all(known[name]["licence"] == "MIT" for name in ("tata_promoters", "ecoli_promoters", "promoters"))


def test_a_set_of_classes_is_its_parts(motif_data: Path) -> None:
    parts = parts_of(named_set("promoters"))
    assert [(part.label, part.file.name) for part in parts] == [
        ("human_tata", "tata_promoters_human.csv.gz"),
        ("ecoli", "ecoli_promoters.csv.gz"),
    ]
    (sites,) = parts_of(named_set("dhs_hepg2_k562"))
    assert sites.label is None and sites.columns == {"class": "cell"}


@pytest.fixture
def small_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of random strands, where the named sets look for theirs."""
    source = random.Random(0)
    for name, length in (("tata_promoters_human", 30), ("ecoli_promoters", 20)):
        file = tmp_path / "data" / "bio" / "dna" / f"{name}.csv.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(file, "wt", encoding="utf-8") as stream:
            stream.write("sequence\n" + "".join(f"{strand(source, length)}\n" for _ in range(60)))
    monkeypatch.setenv("MOTIF_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("pipelines.data_sets.located", lambda entry: data_folder() / entry["path"])


@pytest.mark.usefixtures("small_sets")
def test_from_the_task_alone_to_samples_of_a_class(tmp_path: Path) -> None:
    task = {"domain": "bio", "task": "regulatory_dna"}
    prepared = motif.prepare(**task, out=tmp_path / "p")
    card = (prepared / "card.md").read_text()
    assert "- condition class: class, ecoli, human_tata; 120 of 120 sequences have it" in card
    assert card.count("licence: MIT") == 2 and json.loads((prepared / "metrics.json").read_text())["data"]["name"] == (
        "promoters"
    )
    steps = {"trainer__steps": 2, "trainer__validate_every": 1, "trainer__warmup_steps": 1, "model": "tiny"}
    model = motif.train(**task, data__path=prepared, out=tmp_path / "m", **steps)
    whole, part = read_reference(model), read_reference(model, "ecoli")
    assert {len(s) for s in part.train} == {20} and {len(s) for s in whole.train} == {20, 30}
    rules = ["length:20..24", "restriction:EcoRI:BsaI:5flank=GAATT", "gc:10:0.2..0.8:banded", "homopolymer:3"]
    asked = {"objectives": ["gc_content:near:0.5", "melting_temperature:max"], "constraints": rules}
    result = motif.generate(**task, checkpoint=model, n=6, condition="class:ecoli", out=tmp_path / "g", **asked)
    assert result.metrics["constraints"] == {"checked": 6, "violated": 0}
    assert result.metrics["data"]["name"] == "m/reference.csv.gz, class ecoli"
    assert {"unique", "novel", "novel_20mers", "kmer_js_6", "gc_wasserstein"} <= set(result.metrics["values"])
    assert set(result.metrics["baselines"]["real_test_sequences"]) >= {"kmer_js_6", "gc_mean"}
    assert all(20 <= len(s) <= 24 and not set(s) - set("ACGT") for s in result.sequences)
    page = (tmp_path / "g" / "report.html").read_text(encoding="utf-8")
    assert "length (bases)" in page and "T violet" in page
    with open(tmp_path / "g" / "samples.csv", encoding="utf-8", newline="") as stream:
        assert [row["sequence"] for row in csv.DictReader(stream)] == list(result.sequences)


@pytest.mark.usefixtures("small_sets")
def test_rules_and_properties_of_proteins_are_refused(refused: Callable, tmp_path: Path) -> None:
    file = tmp_path / "in.fasta"
    file.write_text(FASTA, encoding="utf-8")
    refused(
        "objective gravy:max reads protein, but this task writes dna: drop it",
        "evaluate",
        *DNA,
        f"input={file}",
        "objectives=[gravy:max]",
    )
    refused(
        "constraint gc:0.4..0.6 reads dna, but this task writes protein: drop it",
        "generate",
        "constraints=[gc:0.4..0.6]",
    )


def test_a_users_dna_is_judged_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "in.fasta"
    file.write_text(FASTA + f">other\n{reverse_complement(SEQUENCES[0])}\n", encoding="utf-8")
    words = ["task=regulatory_dna", f"input={file}", "constraints=[restriction:EcoRI]", "objectives=[gc_content]"]
    capsys.readouterr()
    assert main(["evaluate", *words, f"out={tmp_path / 'out'}"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "unique: 0.75" in told and "novel: not defined" in told
    body = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert body["values"]["unique"] == 3 / 4 and body["values"]["valid"] == 1
    assert body["data"]["name"] == "none"


def test_a_checkpoint_of_another_task_is_refused(tiny: Path, refused: Callable[..., None]) -> None:
    words = ("generate", "task=regulatory_dna", f"checkpoint={tiny / 'model'}")
    where = f"checkpoint {tiny / 'model'}: it is of another task than bio/regulatory_dna"
    refused(f"{where}: pass domain=bio task=peptide", *words)


def test_a_judged_file_cites_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "in.fasta"
    file.write_text(FASTA, encoding="utf-8")
    motif.evaluate(domain="bio", task="regulatory_dna", input=file, out=tmp_path / "out")
    capsys.readouterr()
    code, cited = main(["cite", str(tmp_path / "out")]), capsys.readouterr().out
    assert code == 0 and "process" not in cited and "hexamer" in cited
