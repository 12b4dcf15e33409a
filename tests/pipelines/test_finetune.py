"""Fine-tuning: from a user's file to a checkpoint like any other, with the gain told on held-out clusters."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import pipelines as motif
from core.data.clusters import clusters
from core.data.sequence_batch import SequenceBatch
from core.data.shards import TokenShards
from core.errors import UserError
from core.processes.base import Likelihood
from core.processes.mixture_flow import MixtureFlow
from core.training.fit import STEPS
from core.training.module import GenerativeModule
from pipelines.finetune import compared
from pipelines.present import read_reference
from tests.pipelines.conftest import Outcome

LETTERS = "KRW"
OTHERS = "ACDEFGHIKLMNPQRSTVWY"
LIMIT = 20
FEW: dict[str, Any] = {
    "points": 2,
    "trainer.steps": 30,
    "trainer.validate_every": 10,
    "trainer.batch_tokens": 300,
    "trainer.save_every": 10,
    "adapt.learning_rate": 0.02,
}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty families of three letters, unlike what the parent was trained on."""
    source, found = random.Random(1), []
    for _ in range(20):
        parent = source.choices(LETTERS, k=source.randint(8, 16))
        for _ in range(3):
            parent[source.randrange(len(parent))] = source.choice(LETTERS)
            found.append("".join(parent))
    found = list(dict.fromkeys(found))
    file = tmp_path_factory.mktemp("mine") / "mine.fasta"
    file.write_text("".join(f">m{n}\n{sequence}\n" for n, sequence in enumerate(found)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of sequences that hold three letters each, whichever: it knows repetition, and no letter above others."""
    folder, source = tmp_path_factory.mktemp("parent"), random.Random(2)
    sequences = ["".join(source.choices(source.sample(OTHERS, 3), k=source.randint(5, 18))) for _ in range(300)]
    (folder / "in.fasta").write_text("".join(f">p{n}\n{s}\n" for n, s in enumerate(sequences)), encoding="utf-8")
    prepared = motif.prepare(input=folder / "in.fasta", out=folder / "prepared")
    steps = {"trainer.steps": 150, "trainer.validate_every": 75, "trainer.learning_rate": 0.01, "trainer.ema": 0.9}
    more = {"model": "tiny", "process.limit": LIMIT, "trainer.batch_tokens": 600}
    return motif.train(data__path=prepared, out=folder / "model", **steps, **more)


def tuned(parent: Path, mine: Path, out: Path, **more: Any) -> Path:
    return motif.finetune(checkpoint=parent, input=mine, out=out, **{**FEW, **more})


@pytest.mark.parametrize("adapt", ["lora", "full"])
def test_a_file_becomes_a_checkpoint_that_beats_its_parent(
    adapt: str, parent: Path, mine: Path, tmp_path: Path, motif_words: Callable[..., Outcome]
) -> None:
    words = [f"{key}={value}" for key, value in FEW.items()]
    out = tmp_path / "model"
    done = motif_words("finetune", f"checkpoint={parent}", f"input={mine}", f"adapt={adapt}", *words, f"out={out}")
    assert done.code == 0, done.err
    assert "the new checkpoint is below its parent" in done.out
    body = json.loads((out / "metrics.json").read_text())
    values = body["values"]
    assert values["nll_change_high"] < 0 and values["nll"] < body["baselines"]["parent"]["nll"]
    card = (out / "card.md").read_text()
    assert "- parent: model, sha256" in card and f"change {values['nll_change']:+.4f}, paired 95 %" in card
    assert "- sha256 of the file: " in card
    # A checkpoint like any other: same tensors, plain data, and it generates.
    before, after = (load_file(folder / "model.safetensors") for folder in (parent, out))
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    assert not (out / STEPS).exists()
    sequences = motif.generate(checkpoint=out, n=20, out=tmp_path / "g").sequences
    letters = "".join(sequences)
    assert sum(map(letters.count, LETTERS)) > 0.5 * len(letters)


@pytest.fixture
def motif_words(motif: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """The command line, beside the Python functions."""
    return motif


def test_held_out_sequences_are_like_none_that_was_trained_on(parent: Path, mine: Path, tmp_path: Path) -> None:
    out = tuned(parent, mine, tmp_path / "m", **{"trainer.steps": 1, "trainer.validate_every": 1})
    shards = TokenShards.open(out / "data")
    groups = clusters([row.tolist() for row in shards])
    ends = np.cumsum([0, *shards.counts.values()])
    parts = [set(groups[a:b].tolist()) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    assert all(parts) and not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert len(shards) == mine.read_text().count(">")
    # What the parent saw stays known to novelty.
    parents, own = (set(read_reference(folder).train) for folder in (parent, out))
    assert parents < own


def test_adapters_leave_the_rest_of_the_parent_alone(parent: Path, mine: Path, tmp_path: Path) -> None:
    out = tuned(parent, mine, tmp_path / "m", adapt="lora")
    before, after = (load_file(folder / "model.safetensors") for folder in (parent, out))
    # Averaging rounds what does not move.
    changed = {name for name in before if not torch.allclose(before[name], after[name], rtol=1e-5, atol=1e-7)}
    assert changed
    for name in changed - {"process.length_prior.log_probability"}:
        assert ".mixer." in name or ".channel." in name, name
    assert "process.length_prior.log_probability" in changed, "the lengths are the user's"


def test_a_prepared_folder_serves_as_well(parent: Path, mine: Path, tmp_path: Path) -> None:
    folder = motif.prepare(input=mine, split="cluster", out=tmp_path / "prepared")
    out = motif.finetune(checkpoint=parent, data__path=folder, out=tmp_path / "m", **FEW)
    assert not (out / "data").exists()
    assert json.loads((out / "metrics.json").read_text())["data"]["name"] == "prepared"


def test_stopped_and_resumed_gives_the_same_weights(
    parent: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tuned(parent, mine, tmp_path / "whole")
    true = GenerativeModule.training_step

    def step(self: GenerativeModule, batch: Any, index: int) -> Any:
        if self.global_step == 17:
            raise RuntimeError("power cut")
        return true(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(GenerativeModule, "training_step", step)
        with pytest.raises(RuntimeError, match="power cut"):
            tuned(parent, mine, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    cut = tuned(parent, mine, tmp_path / "cut")
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_rerun_and_cite(parent: Path, mine: Path, tmp_path: Path) -> None:
    out = tuned(parent, mine, tmp_path / "m")
    again = motif.rerun(out, tmp_path / "again")
    one, other = (load_file(folder / "model.safetensors") for folder in (out, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "2106.09685" in motif.cite(out)


def test_patience_ends_training_early_and_keeps_the_best(
    parent: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps so large that validation gets worse: the run ends, and the best weights stay."""
    steps: list[int] = []
    true = GenerativeModule.training_step

    def step(self: GenerativeModule, batch: Any, index: int) -> Any:
        steps.append(self.global_step)
        return true(self, batch, index)

    monkeypatch.setattr(GenerativeModule, "training_step", step)
    settings = {"trainer.steps": 400, "trainer.validate_every": 4, "trainer.patience": 2, "trainer.ema": 0.5}
    out = tuned(parent, mine, tmp_path / "m", adapt="full", **settings, **{"adapt.learning_rate": 0.3})
    assert 3 * 4 <= max(steps) + 1 < 200
    values = json.loads((out / "metrics.json").read_text())["values"]
    assert np.isfinite(values["nll"]) and "at most 400 steps" in (out / "card.md").read_text()


def test_the_comparison_is_paired() -> None:
    """Two likelihoods that differ by a little beside a spread that is large."""
    spread = torch.rand(50, dtype=torch.float64) * 100
    tokens = torch.full((50,), 10)
    zero = torch.zeros(50, dtype=torch.float64)
    before = Likelihood(spread, "exact", zero, tokens)
    values = compared(before, Likelihood(spread - 1, "exact", zero, tokens), 0)
    assert values["nll_change"] == pytest.approx(-0.1) and values["nll_change_high"] == pytest.approx(-0.1)
    assert values["nll"] == pytest.approx(float((spread - 1).mean()) / 10)
    assert values["likelihood"] == "NLL (exact)" and values["held_out_tokens"] == 500


LONG = "K" * (LIMIT + 1)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "too_long": (f">a\nKR\n>b\n{LONG}\n", {}, f"record b: {LIMIT + 1} tokens, above the checkpoint's limit"),
    "one_family": (">a\nKRWKRWKRW\n>b\nKRWKRWKRK\n", {}, "form 1 group(s) of near-duplicates"),
    "no_alphabet": (">a\nKR1W\n", {}, "record a, position 3"),
    "no_data": ("", {"input": None}, "finetune needs input= (a file of sequences) or data.path="),
    "two_data": (">a\nKR\n", {"data.path": "x"}, "finetune takes input= or data.path=, not both"),
    "no_folder": ("", {"input": None, "data.path": "nowhere"}, "nowhere: not a folder of token shards"),
    "held_out": (">a\nKR\n", {"held_out": 0.5}, "held_out=0.5: a share between 0 and 0.5"),
    "rank": (">a\nKR\n", {"adapt.rank": 0}, "adapt.rank=0: a whole number from 1 up"),
    "patience": (">a\nKR\n", {"trainer.patience": 0}, "trainer.patience=0: a whole number from 1 up"),
    "adapt": (">a\nKR\n", {"adapt": "loro"}, "unknown adapt 'loro': did you mean 'lora'"),
    "no_checkpoint": (">a\nKR\n", {"checkpoint": "nowhere"}, "checkpoint nowhere: no such folder"),
    "reader_of_a_file": (">a\nKR\n", {"reader": "./r.py:R"}, "run `motif prepare` with it, then pass data.path="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_before_anything_is_written(name: str, parent: Path, tmp_path: Path) -> None:
    text, more, message = REFUSED[name]
    (tmp_path / "in.fasta").write_text(text, encoding="utf-8")
    given = {"checkpoint": parent, "input": tmp_path / "in.fasta", "out": tmp_path / "m", **more}
    with pytest.raises(UserError) as error:
        motif.finetune(**given)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.fasta"]


def test_another_tokenizer_is_refused(parent: Path, mine: Path, tmp_path: Path) -> None:
    folder = motif.prepare(input=mine, split="cluster", out=tmp_path / "prepared")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "tokenizer_sha256": "0" * 64}))
    with pytest.raises(UserError, match="written with another tokenizer than the model's"):
        motif.finetune(checkpoint=parent, data__path=folder, out=tmp_path / "m", **FEW)


def hidden(monkeypatch: pytest.MonkeyPatch, method: str) -> list[bool]:
    """Whether a sequence comes without its condition, one after the other as the process's method is asked."""
    seen: list[bool] = []
    true = getattr(MixtureFlow, method)

    def spy(self: MixtureFlow, network: Any, batch: SequenceBatch, *rest: Any) -> Any:
        assert batch.condition is not None
        seen.extend(batch.condition.isnan().any(1).tolist())
        return true(self, network, batch, *rest)

    monkeypatch.setattr(MixtureFlow, method, spy)
    return seen


def test_conditions_belong_to_conditional_checkpoints(
    parent: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = mine.read_text().splitlines()[1::2]
    file = tmp_path / "in.csv"
    file.write_text("\n".join(["seq,kind", *(f"{s},{'AB'[n % 2]}" for n, s in enumerate(sequences))]) + "\n")
    columns = "sequence:seq,class:kind"
    with pytest.raises(UserError, match="it takes no condition, prepare the data without kind"):
        motif.finetune(checkpoint=parent, input=file, columns=columns, out=tmp_path / "m", **FEW)
    prepared = motif.prepare(input=file, columns=columns, split="cluster", out=tmp_path / "prepared")
    few = {"trainer.steps": 8, "trainer.validate_every": 8, "process.limit": 30}
    # Training hides the share that is asked for; what is judged keeps its condition.
    learnt, judged = hidden(monkeypatch, "loss"), hidden(monkeypatch, "likelihood")
    conditional = motif.train(
        data__path=prepared, model="tiny", out=tmp_path / "conditional", condition_dropout=0.5, **few
    )
    assert 0 < sum(learnt) < len(learnt) and judged and not any(judged)
    # One class alone is welcome: the parent knows the others.
    file.write_text("\n".join(["seq,kind", *(f"{s},B" for s in sequences)]) + "\n")
    learnt.clear()
    judged.clear()
    words = {"input": file, "columns": columns, "condition_dropout": 1.0, **FEW, "trainer.steps": 10}
    out = motif.finetune(checkpoint=conditional, out=tmp_path / "child", **words)
    assert learnt and all(learnt) and judged and not any(judged)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["condition"] == [{"name": "kind", "labels": ["A", "B"]}]
    file.write_text("\n".join(["seq,kind", *(f"{s},C" for s in sequences)]) + "\n")
    with pytest.raises(UserError, match="no class 'C' was trained, known are A, B"):
        motif.finetune(checkpoint=conditional, input=file, columns=columns, out=tmp_path / "other", **FEW)
