"""What the flow of numbers refuses, its borders, and how it is built and kept."""

from __future__ import annotations

from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch import Tensor

from core.data import Layout, Noise, SequenceBatch
from core.data.noise import normal
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.processes.base import Likelihood
from core.processes.continuous_flow import ContinuousFlow
from core.tokenizers.base import Vocabulary
from core.training.model import GenerativeModel, build_model

NUMBERS = Vocabulary(0)
CONFIG = {
    "process": {"name": "continuous_flow", "channels": 2, "limit": 5},
    "model": {"width": 16, "depth": 1, "pattern": [{"name": "attention", "heads": 2}]},
}


def made(**model) -> GenerativeModel:
    torch.manual_seed(0)
    built = build_model({**CONFIG, "model": {**CONFIG["model"], **model}}, NUMBERS).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def batch_of(lengths: list[int], dtype: torch.dtype = torch.float32) -> SequenceBatch:
    width = max(lengths, default=0)
    numbers = torch.randn(len(lengths), width, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    return SequenceBatch(numbers, Layout.padded(torch.tensor(lengths, dtype=torch.long), width))


def noise_of(count: int) -> Noise:
    return Noise.start(0, torch.arange(count))


def test_it_learns_the_moments_of_each_channel() -> None:
    process = ContinuousFlow(NUMBERS, 2)
    numbers = torch.tensor([[1.0, 5.0], [3.0, -5.0], [5.0, 3.0], [7.0, 1.0]])
    process.fit_numbers(numbers)
    assert process.location.tolist() == [4.0, 1.0]
    assert process.unit.tolist() == pytest.approx([5**0.5, 14**0.5])
    again = ContinuousFlow(NUMBERS, 2)
    again.load_state_dict(process.state_dict())
    assert torch.equal(again.unit, process.unit) and torch.equal(again.location, process.location)


@pytest.mark.parametrize(
    "numbers,message",
    [
        ([[1.0, 2.0, 3.0]], r"the data have 3 channels, the model 2: train with process\.channels=3"),
        ([[1.0, 2.0], [2.0, 2.0]], "channel 2 of the training data never changes: drop it"),
        ([[float("nan"), 2.0], [2.0, 1.0]], "channel 1 of the training data holds NaN or infinity"),
        ([[1.0, 2.0], [2.0, float("inf")]], "channel 2 of the training data holds NaN or infinity"),
    ],
)
def test_numbers_it_cannot_learn_from_are_refused(numbers: list[list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ContinuousFlow(NUMBERS, 2).fit_numbers(torch.tensor(numbers))


def test_tokens_and_other_channels_are_refused() -> None:
    with pytest.raises(UserError, match="ContinuousFlow writes numbers, this task's sequences are tokens"):
        ContinuousFlow(Vocabulary(20))
    model = made()
    wide = batch_of([2])
    wide = replace(wide, tokens=torch.cat([wide.tokens, wide.tokens], -1))
    with pytest.raises(UserError, match="the data have 4 channels, the model 2"):
        model.process.likelihood(model.network, wide, noise_of(1), 12)
    with pytest.raises(UserError, match="a sequence has 6 tokens, above the model's 5"):
        model.process.fit(torch.tensor([6]))


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="channels 0: a place holds at least one number"):
        ContinuousFlow(NUMBERS, 0)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
        ContinuousFlow(NUMBERS, integrator="midpoint")  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True])
def test_borders_give_no_nan(packed: bool) -> None:
    """Empty, single and whole sequences, everything fixed, none at all; limits on both sides of the exact trace."""
    model = made(packed=packed)
    for lengths in ([0, 1, 4], [1], [0]):
        batch, noise = batch_of(lengths), noise_of(len(lengths))
        dirty = replace(batch, tokens=torch.where(batch.layout.valid[..., None], batch.tokens, torch.nan))
        loss = model.process.loss(model.network, dirty, noise)
        assert bool(torch.isfinite(loss.mean())) and int(loss.count) == max(1, sum(lengths))
        assert torch.equal(loss.mean(), model.process.loss(model.network, batch, noise).mean())
        for limit in (5, 100):
            process = ContinuousFlow(NUMBERS, 2, limit=limit)
            found = process.likelihood(model.network, dirty, noise, 12)
            some = batch.layout.lengths > 0
            assert bool(found.nll[some].isfinite().all()) and bool(found.error.isfinite().all())
            assert bool((found.nll[~some] == torch.inf).all()), "the length prior knows no empty sequence"
        rows = Stepwise(2).sample(model.process, model.network, model.process.prior(batch.layout.lengths, noise), noise)
        assert [tuple(row.shape) for row in rows.tokens] == [(length, 2) for length in lengths]
        assert all(bool(row.isfinite().all()) for row in rows.tokens)
    held = replace(batch_of([2, 3]), fixed=torch.ones(2, 3, 2, dtype=torch.bool))
    assert model.process.loss(model.network, held, noise_of(2)).mean().item() == 0
    nll = model.process.likelihood(model.network, held, noise_of(2), 12).nll
    assert torch.allclose(nll, torch.log(torch.tensor(5.0)).double().expand(2))


def test_no_sequences_cost_nothing() -> None:
    model, noise = made(), noise_of(0)
    start = model.process.prior(torch.zeros(0, dtype=torch.long), noise)
    assert Stepwise(2).sample(model.process, model.network, start, noise).network_calls == 0


def test_likelihood_takes_gradients_where_none_are_kept() -> None:
    """Inside no_grad, and for a network that looks at nothing, whose flow is a translation."""
    model, batch = made(), batch_of([2, 3])
    with torch.no_grad():
        found = model.process.likelihood(model.network, batch, noise_of(2), 24)
    assert bool(found.nll.isfinite().all()) and not found.nll.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    process = ContinuousFlow(NUMBERS, 2, limit=5)
    still = lambda batch, time: torch.full_like(batch.tokens, 0.5)  # noqa: E731
    nll = process.likelihood(still, batch, noise_of(2), 24).nll - process.length_prior.nll(batch.layout.lengths)
    law = torch.distributions.Normal(0.5, 1.0).log_prob(batch.tokens.double())
    assert torch.allclose(nll, -torch.where(batch.layout.valid[..., None], law, 0.0).sum((1, 2)))


def test_the_network_reads_numbers_and_answers_their_channels() -> None:
    model = made()
    embedding = model.network.backbone.embedding
    assert isinstance(embedding, torch.nn.Linear) and embedding.in_features == 2
    seen: list[Tensor] = []
    embedding.register_forward_hook(lambda module, given, said: seen.append(given[0]))
    batch = batch_of([2, 3], torch.float64)
    said = model.network(batch, torch.full((2, 3), 0.5))
    assert said.shape == (2, 3, 2) and seen[0].dtype == torch.float32
    assert bool((seen[0][0, 2] == 0).all())
    far = replace(batch, tokens=100 * batch.tokens)
    assert not torch.allclose(model.network(far, torch.full((2, 3), 0.5)), said)


def test_training_moves_every_weight() -> None:
    torch.manual_seed(0)
    model, batch = build_model(CONFIG, NUMBERS), batch_of([2, 3, 5, 4])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for step in range(3):
        optimiser.zero_grad()
        model.process.loss(model.network, batch, noise_of(4).at(step)).mean().backward()
        optimiser.step()
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_samples_and_prior_are_in_the_units_of_the_data() -> None:
    process = ContinuousFlow(NUMBERS, 1)
    process.fit_numbers(torch.tensor([[100.0], [104.0]]))
    start = process.prior(torch.full((2000,), 3), noise_of(2000))
    assert start.tokens.dtype == torch.float64
    assert abs(float(start.tokens.mean()) - 102) < 4 * 2 / 6000**0.5
    assert abs(float(start.tokens.std()) - 2) < 4 * 2 / 12000**0.5
    assert process.grid(4) == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    assert process.lengths(noise_of(100), (2, 3)).unique().tolist() == [2, 3]


def test_reports_name_each_kind_of_likelihood() -> None:
    none = torch.zeros(1).double()
    kinds = {"exact": "NLL (exact)", "bound": "ELBO (bound)", "estimate": "NLL (estimate)"}
    for kind, label in kinds.items():
        assert Likelihood(none, kind, none, torch.ones(1, dtype=torch.long)).label == label


def test_normal_numbers_are_finite_at_both_ends() -> None:
    ends = normal(torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64))
    assert float(ends[0]) < -8 and abs(float(ends[1])) < 1e-15 and 8 < float(ends[2]) < 9
