"""How often rounding changes a sequence of the bundled models: never in fp64, rarely in fp32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pipelines as motif
from core.backbones.network import BackboneNetwork
from core.data.noise import Noise
from core.decoding.ancestral import Ancestral
from core.decoding.base import Sampler
from core.decoding.stepwise import Stepwise

PRETRAINED = Path(__file__).parents[2] / "domains" / "bio" / "pretrained"
COUNT, STEPS = 128, 8
LENGTHS = tuple(range(5, 17))
MOST = 0.01  # frozen: sequences that fp32 may change

Draw = Callable[..., list[list[int]]]


def drawer(name: str, dtype: torch.dtype) -> Draw:
    """Sequences of some ids by a sampler; `packed` drops the padding before the backbone reads."""
    model = motif.load(PRETRAINED / name).model
    backbone = copy.deepcopy(model.network.backbone).to(dtype)
    process = model.process

    def draw(ids: torch.Tensor, sampler: Sampler, packed: bool = False) -> list[list[int]]:
        noise = Noise.start(0, ids)
        with torch.no_grad():
            start = process.prior(process.lengths(noise, LENGTHS), noise)
            samples = sampler.sample(process, BackboneNetwork(backbone, packed), start, noise)
        return [row.tolist() for row in samples.tokens]

    return draw


def alone(draw: Draw, sampler: Sampler) -> list[list[int]]:
    return [draw(torch.tensor([n]), sampler)[0] for n in range(COUNT)]


def batches(draw: Draw, sampler: Sampler, **options: Any) -> list[list[int]]:
    return [row for ids in torch.arange(COUNT).split(64) for row in draw(ids, sampler, **options)]


def flips(name: str, dtype: torch.dtype) -> dict[str, float]:
    """The share of sequences that differ from those drawn 64 together and padded."""
    draw = drawer(name, dtype)
    if name == "peptide_flow":
        found = batches(draw, Stepwise(STEPS))
        others = {"alone": alone(draw, Stepwise(STEPS)), "packed": batches(draw, Stepwise(STEPS), packed=True)}
    else:
        found = batches(draw, Ancestral())
        others = {"alone": alone(draw, Ancestral()), "without cache": batches(draw, Stepwise())}
    return {other: sum(a != b for a, b in zip(rows, found, strict=True)) / COUNT for other, rows in others.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["peptide_flow", "peptide_autoregressive"])
def test_flip_rates(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    rates = {dtype: flips(name, dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)}
    with capsys.disabled():
        for dtype, found in rates.items():
            told = ", ".join(f"{other} {rate:.2%}" for other, rate in found.items())
            print(f"\n{name}, {dtype}: sequences changed of {COUNT}: {told}", end="")
        print()
    assert set(rates[torch.float64].values()) == {0.0}
    assert max(rates[torch.float32].values()) < MOST
