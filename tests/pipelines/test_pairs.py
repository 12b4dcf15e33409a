"""Pairs from a table's columns to what is generated: each sequence is made from its own source."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipelines as motif
from core.data.sequence_batch import Memory
from core.data.shards import TokenShards
from core.errors import UserError
from domains.tasks import Task
from pipelines.evaluate import likelihood_of
from pipelines.generate import Drawing
from pipelines.pairs import sources_asked
from tests.pipelines.conftest import Outcome

LETTERS = "ACDEFG"
# A draft is its sequence in cipher.
CIPHER, PLAIN = (dict(zip(a, b, strict=True)) for a, b in ((LETTERS, "CDEFGA"), ("CDEFGA", LETTERS)))
KINDS = {
    "autoregressive": ("encoder_decoder", {}),
    "mixture_flow": ("encoder_decoder", {}),
    "insertion": ("encoder_decoder", {}),
    "coupled": ("tiny", {"process.source": "coupled"}),
}
STEPS: dict[str, Any] = {"trainer.steps": 100, "trainer.validate_every": 100, "trainer.warmup_steps": 5}
SETTINGS: dict[str, Any] = {"process.limit": 8, "trainer.batch_tokens": 300, "trainer.learning_rate": 0.01}
SETTINGS |= {"trainer.ema": 0.9, "model.width": 32, "model.depth": 1, "model.dropout": 0}
SMALL = {"model.pattern.0.heads": 2, "model.encoders.source.depth": 1, "model.fusion.heads": 2}


def ciphered(text: str, table: dict[str, str] = CIPHER) -> str:
    return "".join(table[letter] for letter in text)


def words(count: int) -> list[str]:
    """Sequences of two letters each, so that a source tells much."""
    source = random.Random(count)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(source.choices(source.sample(LETTERS, 2), k=source.randint(3, 6)))] = None
    return [*found]


def write(file: Path, rows: list[str], header: str = "name,sequence,draft") -> Path:
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def pairs(count: int) -> list[str]:
    return [f"r{number},{word},{ciphered(word)}" for number, word in enumerate(words(count))]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs") / "in.csv", pairs(300))


@pytest.fixture(scope="module")
def prepared(table: Path) -> Path:
    return motif.prepare(input=table, columns="source:draft", out=table.parent / "prepared")


def train(prepared: Path, kind: str, out: Path, **options: Any) -> Path:
    model, more = KINDS[kind]
    process = "mixture_flow" if kind == "coupled" else kind
    small = SMALL if model == "encoder_decoder" else {}
    settings = {**SETTINGS, **STEPS, **small, **more, **options}
    return motif.train(data__path=prepared, process=process, model=model, out=out, **settings)


@pytest.fixture(scope="module")
def models(prepared: Path) -> Callable[[str], Path]:
    """A model of each kind, trained when it is first asked for."""
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = train(prepared, kind, prepared.parent / kind)
        return made[kind]

    return of


@pytest.fixture(params=KINDS)
def trained(request: pytest.FixtureRequest, models: Callable[[str], Path]) -> Path:
    return models(request.param)


def test_shards_and_card_tell_the_sources(prepared: Path, table: Path) -> None:
    shards = TokenShards.open(prepared)
    assert shards.sources is not None
    decode = Task.load("bio", "peptide").make_tokenizer().decode
    for row in range(len(shards)):
        assert ciphered(decode(shards[row].tolist())) == decode(shards.sources[row].tolist())
    assert "- source: 300 of 300 sequences have one, lengths 3-6" in (prepared / "card.md").read_text()


def made_from_their_sources(trained: Path, table: Path, out: Path) -> None:
    drafts = [row.split(",")[2] for row in table.read_text().splitlines()[1:61]]
    sources = write(out.with_suffix(".csv"), drafts, "sequence")
    result = motif.generate(checkpoint=trained, source=sources, n=2, batch_size=50, out=out)
    asked = [draft for draft in drafts for _ in range(2)]
    right = [set(made) <= set(ciphered(draft, PLAIN)) for made, draft in zip(result.sequences, asked, strict=True)]
    assert np.mean(right) >= 0.5, list(zip(result.sequences, asked, strict=True))[:9]
    with open(out / "samples.csv", encoding="utf-8", newline="") as stream:
        assert [(row["sequence"], row["source"]) for row in csv.DictReader(stream)] == [
            *zip(result.sequences, asked, strict=True)
        ]
    assert result.metrics["values"]["sources"] == 60


def test_what_is_made_follows_its_source(trained: Path, table: Path, tmp_path: Path) -> None:
    made_from_their_sources(trained, table, tmp_path / "o")
    report = (tmp_path / "o" / "report.html").read_text()
    assert "120 sequences from 60 sources" in report and "60 records were read" in report


@pytest.mark.parametrize("kind", ["autoregressive", "coupled"])
def test_sources_of_others_are_caught(
    kind: str, models: Callable[[str], Path], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Drawing._source

    def turned(self: Drawing, ids: torch.Tensor) -> Memory:
        found = true(self, ids)
        return replace(found, owner=found.owner.roll(4))

    monkeypatch.setattr(Drawing, "_source", turned)
    with pytest.raises(AssertionError):
        made_from_their_sources(models(kind), table, tmp_path / "o")


def per_token(trained: Path, shards: TokenShards) -> float:
    found = likelihood_of(motif.load(trained), shards, 8, 0)
    return float(found.nll.sum() / found.tokens.sum())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "coupled"])
def test_the_likelihood_is_that_given_the_source(kind: str, models: Callable[[str], Path], prepared: Path) -> None:
    test = TokenShards.open(prepared).split("test")
    assert test.sources is not None
    none = replace(test, sources=replace(test.sources, offsets=test.sources.offsets * 0))
    # Six letters of which a source leaves two.
    assert per_token(models(kind), test) < per_token(models(kind), none) - 0.2


def test_prepared_pairs_are_evaluated(models: Callable[[str], Path], prepared: Path, tmp_path: Path) -> None:
    body = motif.evaluate(checkpoint=models("coupled"), data__path=prepared, n=5, points=8, out=tmp_path / "e")
    values, test = body["values"], TokenShards.open(prepared).split("test")
    assert values["nll_minus_floor_high"] < -0.5
    assert values["nll"] == pytest.approx(per_token(models("coupled"), test))
    assert values["sources"] == len(test) and values["sequences"] == 5
    assert "judged given their source" in (tmp_path / "e" / "report.html").read_text()


def test_a_sequence_does_not_depend_on_its_batch(models: Callable[[str], Path], table: Path, tmp_path: Path) -> None:
    sources = write(tmp_path / "s.csv", ["CDC", "DEDED", "FFG"], "sequence")
    for kind in ("autoregressive", "coupled"):
        options = {"checkpoint": models(kind), "source": sources, "n": 3}
        one, many = (motif.generate(**options, batch_size=s, out=tmp_path / f"{kind}{s}").sequences for s in (2, 256))
        assert one == many


def test_a_search_answers_each_source(models: Callable[[str], Path], tmp_path: Path) -> None:
    sources = write(tmp_path / "s.csv", ["CDCD", "FEEF"], "sequence")
    options = {"sampler": "beam", "sampler.width": 4, "n": 2, "batch_size": 1}
    result = motif.generate(checkpoint=models("autoregressive"), source=sources, out=tmp_path / "o", **options)
    assert len(result.sequences) == 4
    assert set(result.sequences[0]) <= set("AC") and set(result.sequences[2]) <= set("DE")


def test_the_best_are_chosen_for_each_source(models: Callable[[str], Path], tmp_path: Path) -> None:
    sources = write(tmp_path / "s.csv", ["CDCD", "FEEF"], "sequence")
    options = {"best_of": 3, "n": 2, "objectives": ["molecular_weight:max"]}
    result = motif.generate(checkpoint=models("autoregressive"), source=sources, out=tmp_path / "o", **options)
    with open(tmp_path / "o" / "samples.csv", encoding="utf-8", newline="") as stream:
        assert [row["source"] for row in csv.DictReader(stream)] == ["CDCD", "CDCD", "FEEF", "FEEF"]
    assert result.metrics["constraints"]["checked"] == 12


def test_one_sequence_and_a_table_of_pairs_are_sources_too(
    models: Callable[[str], Path], table: Path, tmp_path: Path, motif_command: Callable[..., Outcome]
) -> None:
    checkpoint = f"checkpoint={models('coupled')}"
    fasta = tmp_path / "in.fasta"
    fasta.write_text(">a\nCDD\n>b\nCFD\n", encoding="utf-8")
    found, reading = sources_asked({"source": str(fasta), "columns": None}, motif.load(models("coupled")))
    assert found == ["CDD", "CFD"] and reading is not None and len(reading.records) == 2
    done = motif_command("generate", checkpoint, "source=CDDC", "n=3", f"out={tmp_path / 'a'}")
    assert done.code == 0 and "3 sequences from 1 sources" in done.out
    few = write(tmp_path / "few.csv", pairs(4))
    done = motif_command(
        "generate", checkpoint, f"source={few}", "columns=source:draft", "n=1", f"out={tmp_path / 'b'}"
    )
    assert done.code == 0, done.err
    lines = (tmp_path / "b" / "samples.csv").read_text().splitlines()[1:]
    assert [line.split(",")[2] for line in lines] == [row.split(",")[2] for row in pairs(4)]


def test_a_run_of_sources_can_be_repeated(
    models: Callable[[str], Path], tmp_path: Path, motif_command: Callable[..., Outcome]
) -> None:
    first = motif.generate(checkpoint=models("autoregressive"), source="CDDC", n=3, out=tmp_path / "a")
    assert motif_command("rerun", tmp_path / "a", f"out={tmp_path / 'b'}").code == 0
    again = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert again["samples"] == first.metrics["samples"]


@pytest.mark.parametrize("kind", ["autoregressive", "coupled"])
def test_finetuning_learns_from_pairs(kind: str, models: Callable[[str], Path], tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.csv", pairs(80))
    steps = {"trainer.steps": 4, "trainer.validate_every": 2, "trainer.warmup_steps": 1, "points": 2}
    out = motif.finetune(
        checkpoint=models(kind), input=mine, columns="source:draft", adapt="full", out=tmp_path / "fine", **steps
    )
    shards = TokenShards.open(out / "data")
    assert shards.sources is not None and len(shards) == 80
    result = motif.generate(checkpoint=out, source="CDDC", n=3, out=tmp_path / "o")
    assert len(result.sequences) == 3


def test_some_sequences_may_have_no_source(tmp_path: Path) -> None:
    rows = [f"{row.rsplit(',', 1)[0]}," if n % 3 else row for n, row in enumerate(pairs(60))]
    prepared = motif.prepare(input=write(tmp_path / "in.csv", rows), columns="source:draft", out=tmp_path / "prepared")
    assert "- source: 20 of 60 sequences have one" in (prepared / "card.md").read_text()
    few = {"trainer.steps": 2, "trainer.validate_every": 1}
    train(prepared, "autoregressive", tmp_path / "model", **few)
    with pytest.raises(UserError) as error:
        train(prepared, "coupled", tmp_path / "coupled", **few)
    assert "tokens and its source is missing: a coupled source needs pairs of equal length" in str(error.value)


def test_relatives_by_sequence_or_source_stay_together(tmp_path: Path) -> None:
    """Two sequences of one source, and one sequence of two sources, lie in one split; no pair is a duplicate."""
    rows = [f"{word},{ciphered(word)}" for word in words(90)]
    drafts = [row.split(",")[1] for row in rows]
    rows += [f"{word}G,{draft}" for word, draft in zip(words(90), drafts, strict=True)]
    rows += [f"{word},{draft}A" for word, draft in zip(words(90), drafts, strict=True)]
    prepared = motif.prepare(
        input=write(tmp_path / "in.csv", rows, "sequence,draft"), columns="source:draft", out=tmp_path / "prepared"
    )
    shards = TokenShards.open(prepared)
    assert len(shards) >= 268
    seen: dict[tuple[str, bytes], str] = {}
    for name in shards.counts:
        split = shards.split(name)
        assert split.sources is not None and len(split)
        for row in range(len(split)):
            for key in (("sequence", split[row].tobytes()), ("source", split.sources[row].tobytes())):
                assert seen.setdefault(key, name) == name


# --- what is refused --------------------------------------------------------------------


@pytest.fixture
def motif_command(motif: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """The command line, beside the Python functions."""
    return motif


SMALL_WORDS = ["model.width=32", "model.depth=1", "model.pattern.0.heads=2", "model.fusion.heads=2"]
BAD_TABLES = {
    "no_such_column": ("sequence,draft\nACD,CDE\n", "source:text", "columns=source:text: no such column"),
    "the_column_of_the_sequences": (
        "sequence,draft\nACD,CDE\n",
        "sequence:sequence,source:sequence",
        "columns=sequence:sequence,source:sequence: column sequence stands twice: a column holds one thing",
    ),
    "two_sources": (
        "sequence,source,draft\nACD,CDE,CDE\n",
        "source:draft",
        "{file}: two columns are called source: rename one",
    ),
    "no_source_at_all": (
        "sequence,draft\nACD,\nACE,\n",
        "source:draft",
        "columns=source:draft: no record has a source there",
    ),
    "a_source_that_cannot_be_read": (
        "name,sequence,draft\na,ACD,CDE\nb,ACE,CX1\n",
        "source:draft",
        "{file}: record b, position 2: source: ambiguous letter X (any residue): mend it, or pass on_bad=skip",
    ),
    "a_source_too_long": (
        "name,sequence,draft\na,ACD,CDE\nb,ACE,CDEFGAC\n",
        "source:draft",
        "{file}: record b, position 7: source: 7 residues, more than max_length=6: mend it, or pass on_bad=skip",
    ),
    "sources_of_another_kind": (
        "sequence,draft\n" + "".join(f"ACDEKLW{c},{'ACGT' * 9}\n" for c in "ACDEFG"),
        "source:draft",
        "{file}: 100% of the letters are A, C, G, T, U or N, so this reads like DNA, not protein: translate it, or "
        "pass alphabet=protein if it is protein",
    ),
    "the_same_pair_twice": (
        "name,sequence,draft\na,ACD,CDE\nb,ACD,CDE\n",
        "source:draft",
        "{file}: record b: duplicate: the same sequence as record a: mend it, or pass on_bad=skip",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables(name: str, refused: Callable[..., None], tmp_path: Path) -> None:
    content, columns, message = BAD_TABLES[name]
    file = tmp_path / "in.csv"
    file.write_text(content, encoding="utf-8")
    message = message.format(file=file)
    if message.startswith("columns=source:text"):
        message = f"{file}: {message}: known are sequence, draft"
    longest = ["max_length=6"] if name == "a_source_too_long" else []
    refused(message, "prepare", f"input={file}", f"columns={columns}", "on_bad=refuse", *longest)


def test_bad_sources_are_listed(tmp_path: Path) -> None:
    file = write(tmp_path / "in.csv", [*pairs(30), "x,ACDEF,C-E", "y,ACDEG,"])
    prepared = motif.prepare(input=file, columns="source:draft", out=tmp_path / "prepared")
    assert len(TokenShards.open(prepared)) == 31
    (skipped,) = (prepared / "skipped.csv").read_text().splitlines()[1:]
    assert skipped.split(",")[1:3] == ["x", "2"] and "source: " in skipped


def test_data_without_sources(tiny: Path, refused: Callable[..., None]) -> None:
    prepared = tiny / "prepared"
    message = f"{prepared}: no sequence has a source, and the model reads one: prepare it with columns=source:HEADER"
    refused(message, "train", f"data.path={prepared}", "model=encoder_decoder", *SMALL_WORDS)
    refused(message, "train", f"data.path={prepared}", "process=mixture_flow", "process.source=coupled", "model=tiny")


def test_a_memory_of_another_name(prepared: Path, refused: Callable[..., None]) -> None:
    message = "model.encoders.schema: prepared data hold no memory of that name: call it source"
    words = [*SMALL_WORDS, "+model.encoders.schema.depth=1"]
    refused(message, "train", f"data.path={prepared}", "model=encoder_decoder", *words)


def test_sources_that_nothing_reads(prepared: Path, tiny: Path, refused: Callable[..., None], tmp_path: Path) -> None:
    remedy = "train with model=encoder_decoder or process.source=coupled, or prepare it without columns=source:"
    message = f"{prepared}: its sequences have sources, and the model reads none: {remedy}"
    refused(message, "train", f"data.path={prepared}", "model=tiny")
    refused(message, "finetune", f"data.path={prepared}", f"checkpoint={tiny / 'model'}")
    # It judges the sequences all the same.
    body = motif.evaluate(checkpoint=tiny / "model", data__path=prepared, n=2, points=2, out=tmp_path / "e")
    assert "sources" not in body["values"]


def test_pairs_of_unequal_length_are_named(tmp_path: Path, refused: Callable[..., None]) -> None:
    rows = [f"{row},train" for row in pairs(20)] + ["odd,ACDEF,CDEFGA,valid", "even,ACDEG,CDEFA,valid"]
    file = write(tmp_path / "in.csv", rows, "name,sequence,draft,split")
    prepared = motif.prepare(input=file, columns="source:draft", out=tmp_path / "prepared")
    words = ["process=mixture_flow", "process.source=coupled", "model=tiny"]
    message = (
        f"{prepared}: record 1 of valid, ACDEF, has 5 tokens and its source 6: a coupled source needs pairs of equal "
        "length"
    )
    refused(message, "train", f"data.path={prepared}", *words)


def test_a_source_longer_than_a_batch(prepared: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
    rows = [f"{row},{'train' if n else 'valid'}" for n, row in enumerate(pairs(9))]
    file = write(tmp_path / "in.csv", [*rows, f"long,ACD,{'ACDEFG' * 5},train"], "name,sequence,draft,split")
    long = motif.prepare(input=file, columns="source:draft", out=tmp_path / "prepared")
    words = [*SMALL_WORDS, "trainer.batch_tokens=20", "trainer.steps=2", "trainer.validate_every=1"]
    outcome = None
    with pytest.raises(UserError, match="the source of sequence 9 has 30 tokens, more than batch_tokens=20: raise it"):
        outcome = motif.train(
            data__path=long, model="encoder_decoder", out=tmp_path / "m", **dict(word.split("=") for word in words)
        )
    assert outcome is None


ASKED: dict[str, tuple[str, list[str], str]] = {
    "nothing": (
        "autoregressive",
        [],
        "checkpoint {model}: it makes sequences from others: add source=, a sequence or a file of them",
    ),
    "nothing_to_begin_with": (
        "coupled",
        [],
        "checkpoint {model}: it makes sequences from others: add source=, a sequence or a file of them",
    ),
    "no_sequence": (
        "coupled",
        ["source=CD1"],
        "source=CD1: neither a file nor a sequence: sequence CD1, position 3: '1' is not a residue",
    ),
    "empty": ("coupled", ["source="], "source=: neither a file nor a sequence: it is empty"),
    "columns_of_no_file": (
        "coupled",
        ["source=CDD", "columns=source:draft"],
        "columns=source:draft: it describes the file of source=, which names none: drop it",
    ),
    "above_the_limit": (
        "coupled",
        ["source=CDCDCDCDC"],
        "source CDCDCDCDC: what is made from it has its 9 tokens, and the model's limit of 8 or a constraint rules "
        "that length out",
    ),
    "against_a_constraint": (
        "coupled",
        ["source=CDCD", "constraints=[length:5..6]"],
        "source CDCD: what is made from it has its 4 tokens, and the model's limit of 8 or a constraint rules that "
        "length out",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_asked(name: str, models: Callable[[str], Path], refused: Callable[..., None]) -> None:
    kind, words, message = ASKED[name]
    model = models(kind)
    refused(message.format(model=model), "generate", f"checkpoint={model}", *words)


def test_files_of_sources_that_cannot_be_read(
    models: Callable[[str], Path], refused: Callable[..., None], tmp_path: Path
) -> None:
    ask = ["generate", f"checkpoint={models('coupled')}"]
    fasta = tmp_path / "in.fasta"
    fasta.write_text(">a\nCDD\n>b\nCXD\n", encoding="utf-8")
    message = f"source={fasta}: record b, position 2: ambiguous letter X (any residue): mend it, or leave it out"
    refused(message, *ask, f"source={fasta}")
    fasta.write_text("", encoding="utf-8")
    refused(f"{fasta}: the file is empty", *ask, f"source={fasta}")
    table = write(tmp_path / "in.csv", ["a,ACD,CDE", "b,ACE,"])
    refused(f"source={table}: record b has no source: leave it out", *ask, f"source={table}", "columns=source:draft")


def test_a_checkpoint_without_sources_takes_none(tiny: Path, refused: Callable[..., None]) -> None:
    message = f"source=CDD: checkpoint {tiny / 'model'} was trained without sources, drop it"
    refused(message, "generate", f"checkpoint={tiny / 'model'}", "source=CDD")
