"""Sources: what they learn and store, layouts, and pairs that do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.backbones.network import BackboneNetwork
from core.data.layout import Layout
from core.data.noise import Noise
from core.data.packing import pack, packed_layout
from core.data.sequence_batch import Memory, SequenceBatch
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.processes._source import build_source
from core.processes.autoregressive import Autoregressive
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary
from core.training.model import build_model, build_process

VOCABULARY = Vocabulary(3)
LENGTHS = torch.tensor([3, 1, 4, 2])


def sequences(seed: int) -> SequenceBatch:
    rows = torch.randint(3, (4, 4), generator=torch.Generator().manual_seed(seed))
    return SequenceBatch(rows, Layout.padded(LENGTHS, 4))


def pairs(owner: list[int] | None = None, packed: bool = False) -> SequenceBatch:
    """Data with sources, the sources in reverse order, either side padded or packed."""
    data, source = sequences(1), sequences(2).select(torch.tensor([3, 2, 1, 0]))
    if packed:
        flat = SequenceBatch(pack(source.tokens, source.layout, 12), packed_layout(source.layout, 12))
        data = SequenceBatch(pack(data.tokens, data.layout, 11), packed_layout(data.layout, 11))
        source = flat
    return replace(data, memories={"source": Memory(source, torch.tensor(owner or [3, 2, 1, 0]))})


def even(batch: SequenceBatch, time: Tensor | None) -> Tensor:
    return torch.zeros(*batch.tokens.flatten(1).shape, 3).double()


@pytest.mark.parametrize("packed", [False, True])
def test_pairs_are_found_in_any_layout(packed: bool) -> None:
    process, batch = MixtureFlow(VOCABULARY, "coupled"), pairs(packed=packed)
    noise = Noise.start(0, torch.arange(4))
    start = process.corrupt(batch, torch.zeros(batch.layout.shape), noise)
    wanted, valid = sequences(2).tokens, Layout.padded(LENGTHS, 4).valid
    assert torch.equal(start.tokens[start.layout.valid], wanted[valid])
    half = process.corrupt(batch, torch.full(batch.layout.shape, 0.5), noise)
    padded = process.corrupt(pairs(), torch.full((4, 4), 0.5), noise)
    assert torch.equal(half.tokens[half.layout.valid], padded.tokens[valid])
    assert process.loss(even, batch, noise).mean() == process.loss(even, pairs(), noise).mean()


def test_begin_starts_from_the_given_sequences_and_rows_may_leave() -> None:
    process, given = MixtureFlow(VOCABULARY, "coupled"), sequences(5)
    start = process.begin(given)
    assert torch.equal(start.tokens, given.tokens)
    noise = Noise.start(0, torch.arange(4))
    rows = Stepwise(4).sample(process, even, start, noise).tokens
    assert [len(row) for row in rows] == LENGTHS.tolist()
    narrow = start.select(torch.tensor([1, 3]))
    narrow = replace(narrow, tokens=narrow.tokens[:, :2], layout=Layout.padded(narrow.layout.lengths, 2))
    some = Stepwise(4).sample(process, even, narrow, noise.select(torch.tensor([1, 3]))).tokens
    assert [row.tolist() for row in some] == [rows[1].tolist(), rows[3].tolist()]


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        (sequences(1), "needs the memory 'source'"),
        (pairs([3, 2, -1, 0]), "needs the memory 'source'"),
        (pairs([0, 2, 1, 3]), "sequence 1 has 3 tokens, its source 2"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(batch: SequenceBatch, match: str) -> None:
    with pytest.raises(UserError, match=match):
        MixtureFlow(VOCABULARY, "coupled").loss(even, batch, Noise.start(0, torch.arange(4)))


def test_a_coupled_source_has_no_prior() -> None:
    with pytest.raises(UserError, match="given sequences"):
        MixtureFlow(VOCABULARY, "coupled").prior(LENGTHS, Noise.start(0, torch.arange(4)))


def test_marginal_is_learnt_and_stored() -> None:
    process = MixtureFlow(VOCABULARY, "marginal")
    assert "start.law" in process.state_dict()
    process.fit_tokens(torch.tensor([1, 0, 3]))
    again = MixtureFlow(VOCABULARY, "marginal")
    again.load_state_dict(process.state_dict())
    noise, many = Noise.start(0, torch.arange(2000)), torch.full((2000,), 2)
    shown = again.prior(many, noise).tokens
    assert torch.equal(shown, process.prior(many, noise).tokens)
    # Four standard errors of 4,000 draws.
    assert not bool((shown == 1).any()) and abs(float((shown == 2).double().mean()) - 0.75) < 4 * 0.0069


@pytest.mark.parametrize("source", ["mask", "uniform", "coupled", [0.5, 0.25, 0.25]])
def test_other_sources_add_nothing_to_checkpoints(source: Any) -> None:
    process = MixtureFlow(VOCABULARY, source)
    process.fit_tokens(torch.tensor([1, 0, 3]))
    assert [*process.state_dict()] == ["length_prior.log_probability"]


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ([0.5, 0.5], "has 2 probabilities, the alphabet 3"),
        ([0.5, 0.2, 0.2], "sum to 1, not to 0.9"),
        ([1.5, -0.5, 0.0], "probabilities"),
        ([0.5, 0.5, float("nan")], "probabilities"),
    ],
)
def test_laws_that_are_none_are_refused(source: Any, match: str) -> None:
    with pytest.raises(UserError, match=f"MixtureFlow: .*{match}"):
        build_process({"name": "mixture_flow", "source": source}, VOCABULARY)
    with pytest.raises(ValueError, match="none of mask"):
        build_source("ones", VOCABULARY, None)


def test_fields_draw_from_the_law_on_their_own_tokens() -> None:
    support = torch.tensor([[True, True, False], [False, True, True]])
    process = MixtureFlow(VOCABULARY, [0.1, 0.2, 0.7], support=support)
    tokens = process.prior(torch.full((4000,), 2), Noise.start(1, torch.arange(4000))).tokens
    for field, wanted in enumerate(([1 / 3, 2 / 3, 0], [0, 2 / 9, 7 / 9])):
        share = torch.bincount(tokens[..., field].flatten(), minlength=3).double() / 8000
        # Four standard errors of 8,000 draws.
        assert torch.allclose(share, torch.tensor(wanted).double(), atol=4 * 0.0056)
    with pytest.raises(ValueError, match="every field"):
        MixtureFlow(VOCABULARY, [0.0, 0.0, 1.0], support=support)


def test_the_corrector_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(UserError, match="corrector=0"):
        Stepwise(corrector=1.0).suits(Autoregressive(VOCABULARY))
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="corrector"):
            Stepwise(corrector=wrong)


def test_a_model_reads_the_source_through_an_encoder() -> None:
    """From configuration: the network sees x0 beside x_t, and one step down the gradient lowers the loss."""
    torch.manual_seed(0)
    model = {"width": 16, "depth": 1, "pattern": [{"name": "attention", "heads": 2}]}
    config = {
        "process": {"name": "mixture_flow", "source": "coupled"},
        "model": {**model, "encoders": {"source": {}}, "fusion": {"name": "serial"}},
    }
    built = build_model(config, VOCABULARY)
    assert isinstance(built.network, BackboneNetwork)
    noise, optimizer = Noise.start(0, torch.arange(4)), torch.optim.Adam(built.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = built.process.loss(built.network, pairs(), noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert any(p.grad is not None and bool(p.grad.any()) for p in built.network.encoders.parameters())
