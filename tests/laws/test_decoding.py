"""Laws of the samplers: a sequence is the same however it is drawn."""

from __future__ import annotations

import pytest
import torch

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.ancestral import Ancestral
from core.decoding.base import Truncation
from core.decoding.stepwise import Stepwise
from core.processes.autoregressive import Autoregressive
from core.processes.base import Process
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary

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


def flow_samples(ids: torch.Tensor, source: str = "mask", packed: bool = False, steps: int = 7) -> list[list[int]]:
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
        middle = SequenceBatch(whole.trajectory[2], start.layout)
        rest = Stepwise(6).sample(process, network, middle, noise, first=3)
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


def test_truncation() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64))

    def law(**options: float) -> list[float]:
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
