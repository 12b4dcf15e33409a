"""Ten thousand peptides of the bundled models under five constraints at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import pipelines as motif
from core.data.noise import Noise
from core.decoding.ancestral import Ancestral
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints.base import violations
from core.guidance.items import rules

PRETRAINED = Path(__file__).parents[2] / "domains" / "bio" / "pretrained"
FIVE = ["length:8..14", "forbid:N-{P}-[ST]", "repeat:2", "composition:KR:0.2..0.5", "contains:K-x(0,3)-L"]
COUNT, BATCH = 10_000, 500
# Few steps: many sites jump together, which is where constraints are hard to keep.
SAMPLERS = {"peptide_flow": Stepwise(4), "peptide_autoregressive": Ancestral()}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_five_constraints_hold_in_ten_thousand_peptides(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = motif.load(PRETRAINED / name)
    began = time.perf_counter()
    asked = rules(FIVE, loaded.task.constraints)
    constraints = ConstraintSet(asked, loaded.tokenizer, range(1, loaded.model.process.limit + 1))
    process, network = loaded.model.process, loaded.model.network
    written: list[str] = []
    for first in range(0, COUNT, BATCH):
        noise = Noise.start(0, torch.arange(first, first + BATCH))
        with torch.no_grad():
            start = process.prior(process.lengths(noise, constraints.feasible_lengths), noise)
            samples = SAMPLERS[name].sample(process, network, start, noise, constraints)
        # As many come out as were started: nothing is drawn and discarded.
        assert len(samples.tokens) == BATCH
        written += [loaded.tokenizer.decode(row.tolist()) for row in samples.tokens]
    seconds = time.perf_counter() - began
    unique = len(set(written)) / COUNT
    with capsys.disabled():
        print(f"\n{name}: {COUNT} peptides, {len(FIVE)} constraints, uniqueness {unique:.4f}, {seconds:.0f} s")
    assert len(written) == COUNT and violations(constraints.constraints, written) == []
    # Sanity only: no sampler that is stuck.
    assert unique > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_without_the_constraints_each_is_broken(name: str) -> None:
    """The planted fault of the law above: the same draws without the set break every one of the five."""
    loaded = motif.load(PRETRAINED / name)
    process, network = loaded.model.process, loaded.model.network
    noise = Noise.start(0, torch.arange(200))
    with torch.no_grad():
        start = process.prior(process.lengths(noise, tuple(range(8, 17))), noise)
        samples = SAMPLERS[name].sample(process, network, start, noise)
    written = [loaded.tokenizer.decode(row.tolist()) for row in samples.tokens]
    bound = [rule.bind(loaded.tokenizer) for rule in rules(FIVE, loaded.task.constraints)]
    assert all(violations([rule], written) for rule in bound)
