"""Conditions from a file's columns to what is generated: what is asked for is what comes out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import pipelines as motif
from core.data.shards import TokenShards
from core.errors import UserError
from pipelines.evaluate import likelihood_of
from tests.pipelines.conftest import Outcome

COLUMNS = "sequence:seq,class:kind,scalar:size"
LETTERS = {"acid": "DE", "base": "KR"}
STEPS: dict[str, Any] = {"trainer.steps": 200, "trainer.validate_every": 100, "trainer.warmup_steps": 5}
SETTINGS: dict[str, Any] = {"model": "tiny", "process.limit": 12, "trainer.batch_tokens": 600, "trainer.ema": 0.9}
SETTINGS["trainer.learning_rate"] = 0.008


def rows(count: int = 240) -> list[str]:
    """Sequences of two kinds, of which the size is the length; some cells are empty."""
    source, found = random.Random(0), []
    for number in range(count):
        kind, size = source.choice(list(LETTERS)), source.choice((4, 12))
        sequence = "".join(source.choices(LETTERS[kind], k=size))
        cells = [sequence, kind if number % 10 else "", str(size) if number % 10 else ""]
        found.append(",".join(cells))
    return found


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "in.csv"
    file.write_text("\n".join(["seq,kind,size", *rows()]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def prepared(table: Path) -> Path:
    return motif.prepare(input=table, columns=COLUMNS, out=table.parent / "prepared")


@pytest.fixture(scope="module", params=["autoregressive", "mixture_flow"])
def trained(request: pytest.FixtureRequest, prepared: Path) -> Path:
    out = prepared.parent / request.param
    return motif.train(data__path=prepared, process=request.param, out=out, **SETTINGS, **STEPS)


def test_shards_and_card_tell_the_columns(prepared: Path) -> None:
    shards = TokenShards.open(prepared)
    assert [(column.name, column.labels) for column in shards.columns] == [("kind", ("acid", "base")), ("size", ())]
    known = ~np.isnan(shards.conditions[:, 0])
    assert 0.5 < known.mean() < 1
    sizes = shards.lengths[known]
    assert np.array_equal(shards.conditions[known, 1], sizes)
    assert "- condition kind: class, acid, base; " in (prepared / "card.md").read_text()


def test_the_checkpoint_describes_its_condition(trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    kind, size = config["condition"]
    assert kind == {"name": "kind", "labels": ["acid", "base"]}
    assert size["name"] == "size" and (size["low"], size["high"]) == (4.0, 12.0) and 4 < size["mean"] < 12
    assert motif.load(trained).conditions is not None


@pytest.mark.parametrize(
    ("asked", "letters", "length"),
    [
        ("class:acid", "DE", None),
        ("kind:base", "KR", None),
        ("class:base,size:12", "KR", 12),
        ("size:4,class:acid", "DE", 4),
    ],
)
def test_what_is_asked_comes_out(trained: Path, tmp_path: Path, asked: str, letters: str, length: int | None) -> None:
    result = motif.generate(checkpoint=trained, condition=asked, n=60, batch_size=25, out=tmp_path / "o")
    right = np.mean([set(sequence) <= set(letters) for sequence in result.sequences])
    assert right >= 0.8, result.sequences[:9]
    # A flow draws its lengths from a prior that knows the class, no scalar.
    if length is not None and "autoregressive" in trained.name:
        assert np.mean([abs(len(sequence) - length) <= 1 for sequence in result.sequences]) >= 0.8
    assert "outside_training" not in result.metrics["values"]


def test_without_a_condition_both_kinds_come_out(trained: Path, tmp_path: Path) -> None:
    sequences = motif.generate(checkpoint=trained, n=60, out=tmp_path / "o").sequences
    acids = np.mean([set(sequence) <= set("DE") for sequence in sequences])
    assert 0.15 < acids < 0.85


def test_the_conditional_likelihood_is_the_better_one(trained: Path, prepared: Path, tmp_path: Path) -> None:
    body = motif.evaluate(checkpoint=trained, data__path=prepared, n=4, points=4, out=tmp_path / "e")
    values = body["values"]
    assert values["given"] == "kind, size"
    assert values["nll"] < values["nll_unconditional"] - 0.05
    assert body["network_calls"] > 0 and "given kind, size" in (tmp_path / "e" / "report.html").read_text()


def test_a_scalar_outside_the_trained_range_is_told(
    trained: Path, tmp_path: Path, motif_command: Callable[..., Outcome]
) -> None:
    done = motif_command("generate", f"checkpoint={trained}", "condition=size:99", "n=2", f"out={tmp_path / 'o'}")
    told = "the model extrapolates: size 99 is outside the trained 4 to 12"
    assert done.code == 0 and told in done.out
    assert told in (tmp_path / "o" / "report.html").read_text()
    values = json.loads((tmp_path / "o" / "metrics.json").read_text())["values"]
    assert values["outside_training"] == ["size 99 is outside the trained 4 to 12"]


@pytest.fixture
def motif_command(motif: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """The command line, beside the Python functions."""
    return motif


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("class:salt", "condition kind: no class 'salt' was trained, known are acid, base"),
        ("charge:1", "condition charge: the model was not trained on it: known are kind, size, class"),
        ("size:much", "condition size: 'much' is no number"),
        ("acid", "condition=acid: write each column once as name:value, as in class:HepG2,activity:2.5"),
        ("class:acid,class:base", "condition=class:acid,class:base: write each column once as name:value"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    prepared: Path, trained: Path, tmp_path: Path, asked: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        motif.generate(checkpoint=trained, condition=asked, n=2, out=tmp_path / "o")
    assert str(error.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_an_unconditional_model_takes_no_condition(tiny: Path, tmp_path: Path, prepared: Path) -> None:
    with pytest.raises(UserError, match="was trained without conditions, drop it"):
        motif.generate(checkpoint=tiny / "model", condition="class:acid", n=2, out=tmp_path / "o")
    # It reads the sequences of conditional data all the same.
    result = likelihood_of(motif.load(tiny / "model"), TokenShards.open(prepared).split("test"), 2, 0)
    assert result.nll.isfinite().all()


BAD_CELLS = {
    "text_as_a_number": ("KKKKK,base,x", "record 241: column size holds 'x', which is no number"),
    "infinite": ("KKKKK,base,inf", "record 241: column size holds 'inf', which is no number"),
    "class_of_a_file": ("KKKKK,a.py:B,4", "column kind: 'a.py:B' cannot name a class"),
    "class_of_a_resolver": ("KKKKK,${oc.env:HOME},4", "cannot name a class"),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_bad_cells_are_refused_by_record(name: str, tmp_path: Path) -> None:
    row, message = BAD_CELLS[name]
    file = tmp_path / "in.csv"
    file.write_text("\n".join(["seq,kind,size", *rows(), row]) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        motif.prepare(input=file, columns=COLUMNS, out=tmp_path / "o")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("sequence:seq,class:sort", "columns=sort:sort: no such column"),
        ("sequence:seq,class:kind,class:size", "one class column, and each scalar once"),
        ("sequence:seq,scalar:size,scalar:size", "one class column, and each scalar once"),
    ],
)
def test_columns_that_are_not_there(columns: str, message: str, table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        motif.prepare(input=table, columns=columns, out=tmp_path / "o")


def test_one_class_alone_trains_no_conditional_model(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("\n".join(["seq,kind", *(",".join(row.split(",")[:1] + ["acid"]) for row in rows(40))]) + "\n")
    folder = motif.prepare(input=file, columns="sequence:seq,class:kind", out=tmp_path / "prepared")
    with pytest.raises(UserError, match="class column kind: every sequence is acid"):
        motif.train(data__path=folder, out=tmp_path / "model", **SETTINGS)
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize("share", ["1.5", "-0.1", "true"])
def test_a_share_of_dropped_conditions_is_one(share: str, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="condition_dropout"):
        motif.train(data__path=prepared, condition_dropout=share, out=tmp_path / "model", **SETTINGS)
