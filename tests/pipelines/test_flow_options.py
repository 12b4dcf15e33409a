"""Options of flows from the command line: sources, the corrector, first-hitting sampling, self-conditioning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from core.data.shards import TokenShards
from pipelines.load import load
from tests.pipelines.conftest import Outcome

STEPS = ("trainer.steps=2", "trainer.validate_every=2", "trainer.warmup_steps=1", "model=tiny", "process.limit=20")


def test_a_marginal_source_is_learnt_and_sampled(
    motif: Callable[..., Outcome], tiny: Path, refused: Callable[..., None], tmp_path: Path
) -> None:
    model, data = tmp_path / "model", f"data.path={tiny / 'prepared'}"
    words = ("process.source=marginal", "process.self_conditioning=true", "process.schedule.name=log_linear")
    assert motif("train", data, *STEPS, *words, f"out={model}").code == 0
    counts = Counter(token for row in TokenShards.open(tiny / "prepared").split("train") for token in row.tolist())
    law = torch.tensor([counts[token] for token in range(20)]).double()
    assert torch.allclose(load(model).model.process.get_buffer("start.law"), law / law.sum())
    drawn = motif(
        "generate", f"checkpoint={model}", "n=4", "sampler=stepwise", "sampler.corrector=1.5", f"out={tmp_path / 'g'}"
    )
    assert drawn.code == 0
    message = "first_hitting needs a mixture_flow with source=mask: use sampler=stepwise"
    refused(message, "generate", f"checkpoint={model}", "sampler=first_hitting")


def test_first_hitting_asks_once_a_token(motif: Callable[..., Outcome], tiny: Path, tmp_path: Path) -> None:
    words = (f"checkpoint={tiny / 'model'}", "n=8", "sampler=first_hitting", "constraints=[length:6,forbid:NG]")
    assert motif("generate", *words, f"out={tmp_path / 'one'}").code == 0
    assert motif("generate", *words, "batch_size=3", f"out={tmp_path / 'two'}").code == 0
    one, two = ((tmp_path / name / "samples.fasta").read_text() for name in ("one", "two"))
    assert one == two and one.count(">") == 8
    assert '"network_calls": 6,' in (tmp_path / "one" / "metrics.json").read_text()


def test_a_law_of_another_alphabet_is_refused(refused: Callable[..., None], tiny: Path) -> None:
    data = f"data.path={tiny / 'prepared'}"
    wrong = "MixtureFlow: the source's law has 2 probabilities, the alphabet 20 tokens"
    refused(wrong, "train", data, *STEPS, "process.source=[0.5,0.5]")
