"""The noise law: a sequence is the same in any batch, layout, resumption, with or without a cache, compiled or not.

End to end through real networks, in fp64 on the CPU; equal logits give equal tokens in any precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.backbones.backbone import Backbone
from core.backbones.mixers import attention, min_gru
from core.backbones.network import BackboneNetwork
from core.backbones.state import State
from core.data import packing
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.ancestral import Ancestral
from core.decoding.base import Sampler, Samples
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.processes._resampling_path import ResamplingPath
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network, Process
from core.processes.insertion import Insertion
from core.processes.mixture_flow import MixtureFlow
from tests.laws.toy_chains import made, variants
from tests.laws.toy_kinds import VOCABULARY, constraints
from tests.laws.toys import neighbours

LIMIT, COUNT = 9, 64
IDS = torch.arange(COUNT)
RULES = ("forbid:AB", "contains:C", "length:2..8")
ATTENTION, RECURRENT = {"name": "attention", "heads": 2}, {"name": "min_gru"}
HYBRID = [ATTENTION, RECURRENT, {"name": "attention", "heads": 2, "window": 3, "sinks": 1}]
BOTH_WAYS = {"name": "bidirectional", "mixer": RECURRENT}


@dataclass(frozen=True)
class Way:
    """A process with a sampler and the mixers of its network."""

    process: Callable[[], Process]
    sampler: Callable[..., Sampler]
    pattern: Sequence[Any]

    def network(self, dtype: torch.dtype = torch.float64, packed: bool = False) -> BackboneNetwork:
        torch.manual_seed(0)
        process = self.process()
        backbone = Backbone(VOCABULARY.total, process.outputs, 16, self.pattern, 3, process.attends, time=process.timed)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return BackboneNetwork(backbone.to(dtype).eval(), packed)

    def run(
        self, ids: Tensor, network: Network, ruled: bool = False, sampler: Sampler | None = None, **options: Any
    ) -> Samples:
        process, noise = self.process(), Noise.start(4, ids)
        rules = asked() if ruled else None
        start = process.prior(process.lengths(noise, tuple(range(2, LIMIT))), noise)
        sampler = sampler or self.sampler(**options)
        with torch.no_grad():
            return sampler.sample(process, network, start, noise, rules)


@functools.cache
def asked() -> ConstraintSet:
    return constraints(*RULES, longest=LIMIT)


def flow(source: Any) -> Callable[[], Process]:
    return lambda: MixtureFlow(VOCABULARY, source=source, limit=LIMIT)


def left_to_right() -> Process:
    return Autoregressive(VOCABULARY, limit=LIMIT)


def chain(key: str, source: str) -> Way:
    return Way(lambda: made(key, source, limit=LIMIT), lambda **o: Stepwise(7, **o), [ATTENTION, BOTH_WAYS])


# One source of each; `test_mixture_paths.py` has them all.
CHAINS = {key: chain(key, source) for key, source in dict(variants(ResamplingPath)).items()}
WAYS = {
    "mask": Way(flow("mask"), lambda **o: Stepwise(7, **o), [ATTENTION, BOTH_WAYS]),
    "uniform": Way(flow("uniform"), lambda **o: Stepwise(7, **o), [ATTENTION, BOTH_WAYS]),
    "prefix": Way(left_to_right, Stepwise, HYBRID),
    "cache": Way(left_to_right, Ancestral, HYBRID),
    "insertion": Way(lambda: Insertion(VOCABULARY, limit=LIMIT), Stepwise, [BOTH_WAYS, ATTENTION]),
    **CHAINS,
}


def rows(samples: Samples) -> list[list[int]]:
    return [row.tolist() for row in samples.tokens]


def alone_is_in_a_batch(name: str) -> None:
    way = WAYS[name]
    for ruled in (False, True):
        together = rows(way.run(IDS, way.network(), ruled))
        assert len(set(map(tuple, together))) > COUNT // 3
        alone = [rows(way.run(IDS[n : n + 1], way.network(), ruled))[0] for n in range(0, COUNT, 5)]
        assert alone == together[::5]
        cut = [*rows(way.run(IDS[:20], way.network(), ruled)), *rows(way.run(IDS[20:], way.network(), ruled))]
        assert cut == together, "a run resumed between two batches"


def packed_is_padded(name: str) -> None:
    way = WAYS[name]
    for ruled in (False, True):
        assert rows(way.run(IDS, way.network(packed=True), ruled)) == rows(way.run(IDS, way.network(), ruled))


def resumed_is_uninterrupted(name: str, first: int = 3) -> None:
    """From the sequences of any step; rows that were finished by then have left the batch."""
    way, process = WAYS[name], WAYS[name].process()
    for ruled in (False, True):
        rules = asked() if ruled else None
        whole = way.run(IDS, way.network(), ruled, trajectory=True)
        middle = whole.trajectory[first - 1]
        # Which rows go on: those whose sequence was longer when it ended, or all of a flow's.
        left = [n for n in range(COUNT) if isinstance(process, MixtureFlow) or len(whole.tokens[n]) >= first]
        assert len(left) == middle.layout.count > COUNT // 4
        noise = Noise.start(4, IDS[left])
        with torch.no_grad():
            rest = Stepwise(7).sample(process, way.network(), middle, noise, rules, first=first)
        assert rows(rest) == [rows(whole)[n] for n in left]


def cache_is_prefix() -> None:
    for pattern in ([ATTENTION], [RECURRENT], HYBRID):
        way = replace(WAYS["cache"], pattern=pattern)
        for ruled in (False, True):
            cached = rows(way.run(IDS, way.network(), ruled))
            assert cached == rows(way.run(IDS, way.network(), ruled, Stepwise()))


def compiled_is_eager(name: str) -> None:
    """`torch.compile` traces what the sampler asks: the forward pass, or the decoding step."""
    way = replace(WAYS[name], pattern=[ATTENTION])
    network = way.network()
    eager = rows(way.run(IDS[:12], network))
    torch.compiler.reset()
    network.backbone.forward = torch.compile(network.backbone.forward, backend="aot_eager", dynamic=True)  # type: ignore[method-assign]
    assert rows(way.run(IDS[:12], network)) == eager


def equal_logits_give_equal_tokens(source: Any, dtype: torch.dtype) -> None:
    """A network that looks its answers up says the same in any batch; then so are the tokens, in any precision."""
    process = MixtureFlow(VOCABULARY, source=source, limit=LIMIT)
    exact = neighbours(VOCABULARY, VOCABULARY.size)
    network = lambda batch, time: exact(batch, time).to(dtype)  # noqa: E731
    way = Way(lambda: process, lambda **o: Stepwise(7, **o), [])
    for ruled in (False, True):
        together = rows(way.run(IDS, network, ruled))
        assert [rows(way.run(IDS[n : n + 1], network, ruled))[0] for n in range(0, COUNT, 5)] == together[::5]


@pytest.mark.parametrize("name", WAYS)
def test_alone_is_in_a_batch(name: str) -> None:
    alone_is_in_a_batch(name)


@pytest.mark.parametrize("name", ["mask", "uniform", "prefix", "insertion", *CHAINS])
def test_packed_is_padded(name: str) -> None:
    packed_is_padded(name)


@pytest.mark.parametrize("name", ["mask", "uniform", "prefix"])
def test_resumed_is_uninterrupted(name: str) -> None:
    resumed_is_uninterrupted(name)


def test_cache_is_prefix() -> None:
    cache_is_prefix()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_equal_logits_give_equal_tokens(source: Any, dtype: torch.dtype) -> None:
    equal_logits_give_equal_tokens(source, dtype)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ["mask", "cache"])
def test_compiled_is_eager(name: str) -> None:
    compiled_is_eager(name)


# --- planted faults ---------------------------------------------------------------------


def _number_in_the_batch(patch: pytest.MonkeyPatch) -> None:
    """Noise by the row's place in the batch instead of its id."""
    true = Noise.bits
    patch.setattr(Noise, "bits", lambda self, *a: true(replace(self, sequences=torch.arange(len(self.sequences))), *a))


def _padding_leaks(patch: pytest.MonkeyPatch) -> None:
    """The widest row of the batch reaches the logits."""
    true = BackboneNetwork.forward

    def changed(self: BackboneNetwork, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        found = true(self, batch, time)
        return found + 0.3 * batch.layout.shape[1] * torch.arange(found.shape[-1])

    patch.setattr(BackboneNetwork, "forward", changed)


def _unpacked_one_late(patch: pytest.MonkeyPatch) -> None:
    from core.backbones import network

    true = packing.unpack
    patch.setattr(network, "unpack", lambda values, *a: true(values.roll(1, 1), *a))


def _steps_from_the_resumption(patch: pytest.MonkeyPatch) -> None:
    true = Stepwise.sample

    def changed(self: Stepwise, *a: Any, first: int = 0) -> Samples:
        with pytest.MonkeyPatch.context() as inner:
            at = Noise.at
            inner.setattr(Noise, "at", lambda noise, steps: at(noise, steps - first))
            return true(self, *a, first=first)

    patch.setattr(Stepwise, "sample", changed)


def _positions_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention, "positions_of", lambda layout, state: layout.positions)


def _state_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = min_gru.gated_scan
    patch.setattr(min_gru, "gated_scan", lambda gate, value, reset=None, initial=None: true(gate, value, reset, None))


def _state_not_selected(patch: pytest.MonkeyPatch) -> None:
    """Rows that go on take the states of the first rows."""
    true = State.select
    patch.setattr(State, "select", lambda self, index: true(self, torch.arange(len(index)) % len(self.position)))


def _compiler_changes_the_answer(patch: pytest.MonkeyPatch) -> None:
    true = Backbone.forward

    def changed(self: Backbone, *a: Any, **o: Any) -> Any:
        logits, state = true(self, *a, **o)
        return (logits.flip(-1) if torch.compiler.is_compiling() else logits), state

    patch.setattr(Backbone, "forward", changed)


def _shared_generator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Noise, "uniform", lambda self, sites, *a, **k: torch.rand(len(self.sequences), sites).double())


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    **{
        f"number_in_the_batch_{name}": (_number_in_the_batch, lambda name=name: alone_is_in_a_batch(name))
        for name in WAYS
    },
    "padding_leaks_mask": (_padding_leaks, lambda: alone_is_in_a_batch("mask")),
    "padding_leaks_uniform": (_padding_leaks, lambda: alone_is_in_a_batch("uniform")),
    "unpacked_one_late": (_unpacked_one_late, lambda: packed_is_padded("mask")),
    "unpacked_one_late_prefix": (_unpacked_one_late, lambda: packed_is_padded("prefix")),
    "steps_from_the_resumption": (_steps_from_the_resumption, lambda: resumed_is_uninterrupted("mask")),
    "steps_from_the_resumption_prefix": (_steps_from_the_resumption, lambda: resumed_is_uninterrupted("prefix")),
    "positions_restart": (_positions_restart, cache_is_prefix),
    "state_forgotten": (_state_forgotten, cache_is_prefix),
    "state_not_selected": (_state_not_selected, cache_is_prefix),
    "shared_generator": (_shared_generator, lambda: equal_logits_give_equal_tokens("mask", torch.float32)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_planted_fault_of_the_compiler_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    _compiler_changes_the_answer(monkeypatch)
    with pytest.raises(AssertionError):
        compiled_is_eager("mask")
