"""Laws of self-conditioning: the network reads its own last answer, row by row; with planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.backbones.network import BackboneNetwork
from core.data.noise import Noise
from core.data.packing import pack, packed_layout
from core.data.sequence_batch import SequenceBatch
from core.decoding.base import Sampler
from core.decoding.first_hitting import FirstHitting
from core.decoding.stepwise import Stepwise
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions import substitute
from core.tokenizers.base import Vocabulary
from core.training.model import build_model
from tests.laws.toys import batch_of, neighbours

VOCABULARY = Vocabulary(5)
SAMPLERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "mask": ("mask", lambda **options: Stepwise(16, **options)),
    "uniform": ("uniform", lambda **options: Stepwise(7, **options)),
    "corrected": ("mask", lambda **options: Stepwise(7, corrector=2.0, **options)),
    "first_hitting": ("mask", FirstHitting),
}


def model(source: str = "mask", recalls: bool = True) -> tuple[MixtureFlow, BackboneNetwork]:
    """Random weights, the recalling ones too."""
    config = {
        "process": {"name": "mixture_flow", "source": source, "limit": 9, "self_conditioning": recalls},
        "model": {"width": 16, "depth": 2, "pattern": [{"name": "attention", "heads": 2}]},
    }
    torch.manual_seed(0)
    built = build_model(config, VOCABULARY).double().eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    recall = built.network.backbone.recall
    if recall is not None:
        # What was said matters much, or a loss of it could go unseen.
        torch.nn.init.normal_(recall.weight, std=5.0)
    assert isinstance(built.process, MixtureFlow)
    return built.process, built.network


class Heard:
    """A network whose answer leans on what it is told that it said; keeps questions and answers by sequence."""

    def __init__(self) -> None:
        self.plain = neighbours(VOCABULARY, VOCABULARY.size)
        self.told: list[Tensor | None] = []
        self.said: list[Tensor] = []

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        logits = self.plain(batch, time)
        self.told.append(batch.estimate)
        if batch.estimate is not None:
            logits = logits + 3 * batch.estimate
        self.said.append(logits.softmax(-1))
        return logits


def each_answer_is_heard_at_the_next_question() -> None:
    """One sequence: its n-th question holds its answer before, the first none."""
    heard, process = Heard(), MixtureFlow(VOCABULARY, "uniform", self_conditioning=True)
    noise = Noise.start(0, torch.arange(1))
    Stepwise(5).sample(process, heard, process.prior(torch.tensor([6]), noise), noise)
    # A step in which no site moves asks nothing.
    assert len(heard.told) >= 3 and heard.told[0] is None
    for told, said in zip(heard.told[1:], heard.said, strict=False):
        assert told is not None and torch.allclose(told, said, atol=1e-12)


def rows_stand_alone_and_resume(name: str) -> None:
    source, make = SAMPLERS[name]
    process, network = model(source)
    noise = Noise.start(4, torch.arange(24))
    sampler: Sampler = make()
    start = process.prior(3 + noise.sequences % 4, noise)
    with torch.no_grad():
        together = [row.tolist() for row in sampler.sample(process, network, start, noise).tokens]
        for n in range(0, 24, 5):
            row = torch.tensor([n])
            alone = sampler.sample(process, network, start.select(row), noise.select(row)).tokens[0]
            assert alone.tolist() == together[n]
        network.packed = True
        assert [row.tolist() for row in sampler.sample(process, network, start, noise).tokens] == together
        network.packed = False
        alike = noise.select((noise.sequences % 4 == 3).nonzero()[:, 0])
        first = process.prior(torch.full_like(alike.sequences, 6), alike)
        whole = make(trajectory=True).sample(process, network, first, alike)
        rest = make().sample(process, network, whole.trajectory[2], alike, first=3)
        assert torch.equal(torch.stack(rest.tokens), torch.stack(whole.tokens))


def half_of_training_hears_the_first_answer() -> None:
    heard, process = Heard(), MixtureFlow(VOCABULARY, self_conditioning=True)
    batch, noise = batch_of(torch.randint(5, (4000, 3))), Noise.start(1, torch.arange(4000))
    loss = process.loss(heard, batch, noise)
    first, told = heard.said[0], heard.told[1]
    assert len(heard.told) == 2 and heard.told[0] is None and told is not None
    hears = told.flatten(1).any(1)
    # Four standard errors of 4,000 draws.
    assert abs(float(hears.double().mean()) - 0.5) < 4 * 0.5 / 4000**0.5
    assert torch.allclose(told[hears], first[hears], atol=1e-12)
    # Time and recalling are independent.
    plain = MixtureFlow(VOCABULARY).loss(heard.plain, batch, noise)
    shares = [(plain.values[rows] != 0).double().mean() for rows in (hears, ~hears)]
    assert abs(float(shares[0] - shares[1])) < 4 * (0.25 * 4 / (4000 * 3)) ** 0.5
    assert torch.allclose(loss.values[~hears], plain.values[~hears])
    assert not torch.allclose(loss.values[hears], plain.values[hears])


@pytest.mark.parametrize("name", SAMPLERS)
def test_rows_stand_alone_and_resume(name: str) -> None:
    rows_stand_alone_and_resume(name)


def test_each_answer_is_heard_at_the_next_question() -> None:
    each_answer_is_heard_at_the_next_question()


def test_half_of_training_hears_the_first_answer() -> None:
    half_of_training_hears_the_first_answer()


def test_nothing_recalled_changes_nothing() -> None:
    """Off by default; zeros say nothing, in any layout; and the first answer's gradient is cut."""
    assert not MixtureFlow(VOCABULARY).recalls
    plain = build_model({"process": {"name": "mixture_flow"}, "model": _SMALL}, VOCABULARY)
    assert not [name for name in plain.state_dict() if "recall" in name]
    process, network = model()
    batch = process.prior(torch.tensor([4, 0, 2]), Noise.start(0, torch.arange(3)))
    silent = replace(batch, estimate=torch.zeros(3, 4, 5).double())
    spoken = replace(batch, estimate=torch.rand(3, 4, 5).double())
    assert torch.equal(network(batch, None), network(silent, None))
    padded, layout = network(spoken, None), batch.layout
    assert not torch.allclose(padded[layout.valid], network(batch, None)[layout.valid])
    assert spoken.estimate is not None
    dense = SequenceBatch(pack(batch.tokens, layout), packed_layout(layout), estimate=pack(spoken.estimate, layout))
    assert torch.allclose(network(dense, None)[0], padded[layout.valid])
    with pytest.raises(ValueError, match="without recalls"):
        model(recalls=False)[1](spoken, None)


_SMALL = {"width": 8, "depth": 1, "pattern": [{"name": "attention", "heads": 2}]}


# --- planted faults ---------------------------------------------------------------------


def _never_taken_along(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(substitute, "_recalling", lambda batch, rows, logits: batch)


def _answers_go_to_other_rows(patch: pytest.MonkeyPatch) -> None:
    true = substitute._recalling
    patch.setattr(substitute, "_recalling", lambda batch, rows, logits: true(batch, rows, logits.flip(0)))


def _rows_not_asked_forget(patch: pytest.MonkeyPatch) -> None:
    true = substitute._recalling
    forget = lambda batch, rows, logits: true(replace(batch, estimate=None), rows, logits)  # noqa: E731
    patch.setattr(
        substitute, "_recalling", lambda *asked: forget(*asked) if asked[0].layout.count > 1 else true(*asked)
    )


def _lost_where_rows_leave(patch: pytest.MonkeyPatch) -> None:
    true = SequenceBatch.select
    patch.setattr(SequenceBatch, "select", lambda self, index: replace(true(self, index), estimate=None))


def _all_hear(patch: pytest.MonkeyPatch) -> None:
    true = Noise.uniform
    still = lambda self, sites, purpose, lane=0: true(self, sites, purpose, lane) * (lane == 0)  # noqa: E731
    patch.setattr(Noise, "uniform", still)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (_never_taken_along, each_answer_is_heard_at_the_next_question),
        (_answers_go_to_other_rows, lambda: rows_stand_alone_and_resume("mask")),
        (_rows_not_asked_forget, lambda: rows_stand_alone_and_resume("mask")),
        (_lost_where_rows_leave, each_answer_is_heard_at_the_next_question),
        (_all_hear, half_of_training_hears_the_first_answer),
    ],
)
def test_planted_faults_are_caught(
    fault: Callable[[pytest.MonkeyPatch], None], law: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()
