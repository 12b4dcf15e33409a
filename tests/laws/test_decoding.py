"""Laws of the samplers: a sequence is the same however it is drawn."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest, norm

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.ancestral import Ancestral
from core.decoding.base import Truncation
from core.decoding.stepwise import Stepwise
from core.processes.autoregressive import Autoregressive
from core.processes.base import Process
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions import append
from core.tokenizers.base import Vocabulary
from tests.laws.toy_drift import ToyDrift, moments, velocity
from tests.laws.toy_edit import ToyEdit
from tests.laws.toy_insert import LAW, ToyInsert, policy
from tests.laws.toy_kinds import TOKENIZER, fit
from tests.laws.toy_runs import NAMES, Run, rules_for
from tests.laws.toys import ToyLaw, kernel_matrix, neighbours

VOCABULARY = Vocabulary(5)


def network_for(process: Process, packed: bool = False) -> BackboneNetwork:
    torch.manual_seed(0)
    backbone = Backbone(
        VOCABULARY.total,
        process.outputs,
        16,
        [{"name": "attention", "heads": 2}],
        2,
        process.attends,
        time=process.timed,
    )
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return BackboneNetwork(backbone.double().eval(), packed)


def flow_samples(ids: torch.Tensor, source: Any = "mask", packed: bool = False, steps: int = 7) -> list[list[int]]:
    process = MixtureFlow(VOCABULARY, source=source, limit=9)
    noise = Noise.start(4, ids)
    start = process.prior(process.lengths(noise, tuple(range(1, 10))), noise)
    with torch.no_grad():
        samples = Stepwise(steps).sample(process, network_for(process, packed), start, noise)
    return [row.tolist() for row in samples.tokens]


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_alone_in_a_batch_and_packed_are_the_same(source: str) -> None:
    together = flow_samples(torch.arange(64), source)
    assert [flow_samples(torch.tensor([n]), source)[0] for n in range(0, 64, 7)] == together[::7]
    assert flow_samples(torch.arange(64), source, packed=True) == together


def test_resumed_is_uninterrupted() -> None:
    process = MixtureFlow(VOCABULARY, limit=9)
    noise = Noise.start(1, torch.arange(16))
    start = process.prior(torch.full((16,), 9), noise)
    network = network_for(process)
    with torch.no_grad():
        whole = Stepwise(6, trajectory=True).sample(process, network, start, noise)
        rest = Stepwise(6).sample(process, network, whole.trajectory[2], noise, first=3)
    assert torch.equal(torch.stack(rest.tokens), torch.stack(whole.tokens))


def test_decoding_state_and_whole_prefix_are_the_same() -> None:
    process = Autoregressive(VOCABULARY, limit=12)
    network = network_for(process)
    noise = Noise.start(2, torch.arange(40))
    start = process.prior(torch.zeros(40, dtype=torch.long), noise)
    with torch.no_grad():
        cached = Ancestral().sample(process, network, start, noise)
        whole = Stepwise().sample(process, network, start, noise)
    assert [row.tolist() for row in cached.tokens] == [row.tolist() for row in whole.tokens]
    assert max(len(row) for row in cached.tokens) <= 12


def test_network_is_called_only_when_a_row_can_change() -> None:
    process = MixtureFlow(VOCABULARY, limit=3)
    noise = Noise.start(0, torch.arange(1))
    start = process.prior(torch.tensor([3]), noise)
    with torch.no_grad():
        samples = Stepwise(1000).sample(process, network_for(process), start, noise)
    assert samples.network_calls <= 3


# --- the toys of every kind -------------------------------------------------------------

IDS = torch.arange(24)


def rows_stand_alone(name: str) -> None:
    """Alone, in a batch, in another order and with more padding: the same sequences, to the last bit."""
    for rules in (None, rules_for(name)):
        together = Run(name, rules=rules).sequences(IDS)
        assert [Run(name, rules=rules).sequences(IDS[n : n + 1])[0] for n in range(0, 24, 5)] == together[::5]
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        assert Run(name, rules=rules).sequences(IDS[order]) == [together[n] for n in order.tolist()]
        assert Run(name, rules=rules, wide=3).sequences(IDS) == together


def resumed_is_uninterrupted(name: str) -> None:
    for rules in (None, rules_for(name)):
        run, stopped = Run(name, rules=rules), 0
        for n in range(24):
            noise = Noise.start(4, IDS[n : n + 1])
            whole = run.sampler(trajectory=True).sample(*run.parts(), run.start(noise), noise, rules)
            # A sequence that ended in the first two steps leaves nothing to resume.
            if len(whole.trajectory) > 1 and whole.trajectory[1].layout.count:
                rest = run.sampler().sample(*run.parts(), whole.trajectory[1], noise, rules, first=2)
                assert torch.equal(rest.tokens[0], whole.tokens[0])
                stopped += 1
        assert stopped > 2


def every_sequence_obeys(name: str) -> None:
    rules = rules_for(name)
    sequences = Run(name, rules=rules).sequences(torch.arange(300))
    assert len(sequences) == 300
    for sequence in sequences:
        flat = torch.tensor(sequence).flatten().tolist()
        given = torch.tensor(sequence) if name == "drift" else TOKENIZER.decode(flat)
        assert all(rule.check(given) for rule in rules.constraints)


@pytest.mark.parametrize("name", NAMES)
def test_rows_stand_alone(name: str) -> None:
    rows_stand_alone(name)


@pytest.mark.parametrize("name", NAMES)
def test_resumed_is_uninterrupted_whatever_the_kind(name: str) -> None:
    resumed_is_uninterrupted(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_sequence_obeys(name: str) -> None:
    every_sequence_obeys(name)


def inserted_law(weigh_lengths: bool, draws: int = 20_000) -> dict[tuple[int, ...], float]:
    """How often each sequence comes out of the toy insertion process."""
    process = ToyInsert(Vocabulary(2), limit=5)
    network = lambda batch, time: distinct(batch, weigh_lengths)  # noqa: E731
    noise = Noise.start(9, torch.arange(draws))
    start = process.prior(torch.zeros(draws, dtype=torch.long), noise)
    rows = Stepwise().sample(process, network, start, noise).tokens
    return {key: n / draws for key, n in Counter(tuple(row.tolist()) for row in rows).items()}


def distinct(batch: SequenceBatch, weigh_lengths: bool) -> torch.Tensor:
    """The policy asked once for each distinct row."""
    rows = torch.cat([batch.tokens, batch.layout.lengths[:, None]], 1)
    asked, place = torch.unique(rows, dim=0, return_inverse=True)
    layout = Layout.padded(asked[:, -1], batch.layout.shape[1])
    return policy(SequenceBatch(asked[:, :-1], layout), None, weigh_lengths)[place]


def test_insertion_gives_the_law_whose_reversal_it_is() -> None:
    found = inserted_law(True)
    assert set(found) == set(LAW)
    counts = [found[key] * 20_000 for key in LAW]
    assert chisquare(counts, [q * 20_000 for q in LAW.values()]).pvalue > 1e-5


def test_insertion_without_the_weight_of_lengths_does_not() -> None:
    """Known by enumeration: .679, .0905, .068, .163 instead of .5, .1, .1, .3."""
    found = inserted_law(False)
    assert [found[key] for key in LAW] == pytest.approx([0.679, 0.0905, 0.068, 0.163], abs=0.013)


def test_edits_give_the_law_of_all_paths() -> None:
    """Two steps from a given sequence, by the product of the one-step kernels."""
    process, network, draws = ToyEdit(Vocabulary(2)), neighbours(Vocabulary(2), 3), 20_000

    def step(now: dict[tuple[int, ...], float], t: float, s: float) -> dict[tuple[int, ...], float]:
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for held, mass in now.items():
            row = SequenceBatch(
                torch.tensor([held], dtype=torch.long), Layout.padded(torch.tensor([len(held)]), len(held))
            )
            law = process.transition(network, row, t, s).law(row)[0].exp()
            for chosen in itertools.product(range(3), repeat=len(held)):
                p = float(torch.stack([law[i, v] for i, v in enumerate(chosen)]).prod()) if held else 1.0
                after[tuple(v for v in chosen if v < 2)] += mass * p
        return after

    wanted = step(step({(1, 0, 1): 1.0}, 0.0, 0.5), 0.5, 1.0)
    row = SequenceBatch(torch.tensor([[1, 0, 1]]), Layout.padded(torch.tensor([3]), 3))
    rows = Stepwise(2).sample(process, network, row.fork(draws), Noise.start(3, torch.arange(draws))).tokens
    assert fit(wanted, [tuple(row.tolist()) for row in rows]) > 1e-5


def test_drift_gives_the_law_of_the_closed_form() -> None:
    process, draws = ToyDrift(Vocabulary(0)), 10_000
    noise = Noise.start(2, torch.arange(draws))
    start = process.prior(torch.full((draws,), 2), noise)
    numbers = torch.stack(Stepwise(5).sample(process, velocity, start, noise).tokens)
    mean, variance = moments(process, 5)
    for column in numbers.flatten(1).unbind(1):
        assert kstest(column.numpy(), norm(mean, variance**0.5).cdf).pvalue > 1e-5


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_fields_give_the_law_of_their_sites(source: Any) -> None:
    """Two tokens of two fields are four sites of one joint law."""
    law, draws = ToyLaw(size=2, length=4, seed=6), 20_000
    support = torch.ones(2, 2, dtype=torch.bool)
    process = MixtureFlow(law.vocabulary, source=source, support=support).double()
    noise = Noise.start(11, torch.arange(draws))
    start = process.prior(torch.full((draws,), 2), noise)
    rows = torch.stack(Stepwise(3).sample(process, law.network(source), start, noise).tokens)
    assert rows.shape == (draws, 2, 2)
    states = law.states(source)
    now = ((states == law.vocabulary.mask) if source == "mask" else states >= 0).all(1).double()
    now = now / now.sum()
    for t, s in process.grid(3):
        now = now @ kernel_matrix(process, law, law.network(source), t, s)
    wanted = {tuple(state): p for state, p in zip(states.tolist(), now.tolist(), strict=True)}
    assert fit(wanted, [tuple(row) for row in rows.flatten(1).tolist()]) > 1e-5


def _width_in_the_noise(patch: pytest.MonkeyPatch) -> None:
    true = Noise.uniform
    patch.setattr(Noise, "uniform", lambda self, sites, *a: (true(self, sites, *a) + 0.1 * sites) % 1)


def _rows_in_the_noise(patch: pytest.MonkeyPatch) -> None:
    true = Noise.uniform
    patch.setattr(Noise, "uniform", lambda self, *a: (true(self, *a) + 0.01 * len(self.sequences)) % 1)


def _steps_counted_from_the_start(patch: pytest.MonkeyPatch) -> None:
    true = Noise.at
    calls = itertools.count()
    patch.setattr(Noise, "at", lambda self, steps: true(self, next(calls)))


def _unread_prompt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(append, "caught_up", lambda running, batch, rules: running)


def _unruled(patch: pytest.MonkeyPatch) -> None:
    true = Stepwise.sample
    patch.setattr(Stepwise, "sample", lambda self, a, b, c, d, rules: true(self, a, b, c, d))


@pytest.mark.parametrize("name", NAMES)
def test_planted_faults_in_the_noise_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for fault, law in (
        (_rows_in_the_noise, rows_stand_alone),
        (_steps_counted_from_the_start, resumed_is_uninterrupted),
    ):
        with monkeypatch.context() as patch:
            fault(patch)
            with pytest.raises(AssertionError):
                law(name)


@pytest.mark.parametrize("name", ["mask", "uniform", "fields", "edit", "drift"])
def test_planted_dependence_on_padding_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _width_in_the_noise(monkeypatch)
    with pytest.raises(AssertionError):
        rows_stand_alone(name)


@pytest.mark.parametrize("name", NAMES)
def test_planted_loss_of_the_rules_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _unruled(monkeypatch)
    with pytest.raises(AssertionError):
        every_sequence_obeys(name)


def test_planted_unread_prompt_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    _unread_prompt(monkeypatch)
    with pytest.raises(AssertionError):
        resumed_is_uninterrupted("append")


def test_truncation() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64))

    def law(**options: Any) -> list[float]:
        return (logits + Truncation(**options).log_weights(logits)).softmax(-1)[0].round(decimals=4).tolist()

    assert law() == [0.5, 0.3, 0.15, 0.05]
    assert law(top_k=2) == [0.625, 0.375, 0, 0]
    assert law(top_p=0.7) == [0.625, 0.375, 0, 0]
    assert law(min_p=0.2) == [0.5263, 0.3158, 0.1579, 0]
    assert law(temperature=0.5)[0] == pytest.approx(0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), abs=1e-4)


def test_planted_fault_a_shared_generator_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "uniform", lambda self, sites, *a, **k: torch.rand(len(self.sequences), sites).double())
    with pytest.raises(AssertionError):
        test_alone_in_a_batch_and_packed_are_the_same("mask")


@pytest.mark.parametrize("name", ["mask", "uniform", "fields", "edit", "drift"])
def test_sequences_without_tokens_stay_empty(name: str) -> None:
    process, network = Run(name).parts()
    noise = Noise.start(0, torch.arange(3))
    for lengths in ([0, 0, 0], [0, 1, 2]):
        start = process.prior(torch.tensor(lengths), noise)
        found = Stepwise(3).sample(process, network, start, noise).tokens
        assert len(found[0]) == 0 and all(len(row) <= length for row, length in zip(found, lengths, strict=True))
