"""A guide and a search from the command line: what they change, what they cost, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pipelines as motif
from core.errors import UserError
from pipelines.load import Loaded


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, source = tmp_path_factory.mktemp("classes"), random.Random(0)
    rows = (f"{''.join(source.choices('DEKR', k=source.randint(4, 10)))},{source.choice('ab')}" for _ in range(120))
    (folder / "in.csv").write_text("\n".join(["sequence,kind", *rows]) + "\n", encoding="utf-8")
    return motif.prepare(input=folder / "in.csv", columns="sequence:sequence,class:kind", out=folder / "prepared")


@pytest.fixture(scope="module", params=["autoregressive", "mixture_flow"])
def conditional(request: pytest.FixtureRequest, prepared: Path) -> Loaded:
    """A model that hears its condition clearly: random weights in place of trained ones."""
    steps = {"trainer.steps": 1, "trainer.validate_every": 1, "trainer.warmup_steps": 1}
    settings = {"model": "tiny", "process": request.param, "process.limit": 10, **steps}
    loaded = motif.load(motif.train(data__path=prepared, out=prepared.parent / request.param, **settings))
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.model.network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    return loaded


def drawn(loaded: Loaded, out: Path, **options: Any) -> Any:
    if loaded.config["process"]["name"] == "mixture_flow":
        options = {"sampler": "stepwise", **options}
        options |= {"sampler__steps": 8} if options["sampler"] == "stepwise" else {}
    return loaded.generate(**{"n": 8, "condition": "class:a", "out": out, **options})


def test_no_weight_is_the_conditional_model(conditional: Loaded, tmp_path: Path) -> None:
    plain = drawn(conditional, tmp_path / "plain")
    guided = {
        weight: drawn(conditional, tmp_path / f"w{weight}", guide="classifier_free", guide__weight=weight)
        for weight in (0.0, 4.0)
    }
    assert guided[0.0].metrics["samples"] == plain.metrics["samples"] != guided[4.0].metrics["samples"]
    assert guided[0.0].metrics["network_calls"] == 2 * plain.metrics["network_calls"]
    other = drawn(conditional, tmp_path / "other", guide="classifier_free", guide__weight=4.0, condition="class:b")
    assert other.metrics["samples"] != guided[4.0].metrics["samples"]
    split = drawn(conditional, tmp_path / "split", guide="classifier_free", guide__weight=4.0, batch_size=5)
    assert split.metrics["samples"] == guided[4.0].metrics["samples"]
    assert "Classifier-Free Diffusion Guidance" in motif.cite(tmp_path / "w4.0")


def test_constraints_hold_under_a_guide(conditional: Loaded, tmp_path: Path) -> None:
    asked = {"constraints": ["length:5..8", "forbid:DE"], "guide": "classifier_free", "guide__weight": 3.0}
    result = drawn(conditional, tmp_path / "run", **asked)
    assert result.metrics["constraints"]["violated"] == 0
    assert all(5 <= len(sequence) <= 8 and "DE" not in sequence for sequence in map(str, result.sequences))


def test_what_a_guide_cannot_do_is_refused(conditional: Loaded, tmp_path: Path) -> None:
    for options, message in (
        ({"condition": "null"}, "guide=classifier_free needs something to guide towards: add condition="),
        ({"guide__weight": "nan"}, "guide classifier_free: weight nan: a finite number is needed"),
        ({"sampler": "beam"}, "sampler=beam takes no guide: drop guide=classifier_free"),
    ):
        with pytest.raises(UserError, match=message):
            drawn(conditional, tmp_path / "run", **{"guide": "classifier_free", **options})
    assert not list(tmp_path.iterdir())


def test_an_unknown_guide_names_the_nearest(refused: Callable[..., None], tiny: Path) -> None:
    words = (f"checkpoint={tiny / 'model'}", "guide=classifier_fre")
    refused("unknown guide 'classifier_fre': did you mean 'classifier_free'?", "generate", *words)


@pytest.mark.parametrize("sampler", ["beam", "diverse_beam"])
def test_a_search_writes_the_best_of_its_list(sampler: str, conditional: Loaded, tmp_path: Path) -> None:
    options = {"sampler": sampler, "sampler__width": 24, "constraints": ["length:5..8", "forbid:DE"]}
    if conditional.config["process"]["name"] != "autoregressive":
        with pytest.raises(UserError, match=f"sampler={sampler} needs an autoregressive checkpoint"):
            drawn(conditional, tmp_path / "run", **options)
        return
    result = drawn(conditional, tmp_path / "run", n=6, **options)
    sequences = list(map(str, result.sequences))
    assert len(set(sequences)) == 6 and result.metrics["constraints"]["violated"] == 0
    again = drawn(conditional, tmp_path / "again", n=3, seed=5, batch_size=2, **options)
    assert list(map(str, again.sequences)) == sequences[:3]
    with pytest.raises(UserError, match=f"sampler={sampler} finds .* sequences, 100 are asked for"):
        drawn(conditional, tmp_path / "short", n=100, **options)
    assert not list(tmp_path.glob("short*"))
