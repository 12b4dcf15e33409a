"""Adapters: they start as the parent, learn alone, and leave a checkpoint that loads as any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.data.noise import Noise
from core.errors import UserError
from core.tokenizers.base import Vocabulary
from core.training import lora
from core.training.lora import LowRank, add_adapters, merge_adapters
from core.training.model import GenerativeModel, build_model
from tests.laws.toys import batch_of

MIXERS: dict[str, dict[str, Any]] = {
    "attention": {"name": "attention", "heads": 2},
    "min_gru": {"name": "min_gru"},
    "bidirectional": {"name": "bidirectional", "mixer": {"name": "min_gru"}},
}
every_mixer = pytest.mark.parametrize("mixer", MIXERS)


def made(mixer: str = "attention") -> GenerativeModel:
    process = "autoregressive" if mixer == "min_gru" else "mixture_flow"
    config = {"process": {"name": process, "limit": 8}, "model": {"width": 8, "depth": 2, "pattern": [MIXERS[mixer]]}}
    model = build_model(config, Vocabulary(5)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def loss_of(model: GenerativeModel) -> torch.Tensor:
    batch = batch_of(torch.tensor([[0, 1, 2, 3], [4, 2, 0, 0], [1, 1, 0, 2]]))
    return model.process.loss(model.network, batch, Noise.start(0, torch.arange(3))).mean()


def moved(model: torch.nn.Module) -> None:
    """Adapters as training would leave them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LowRank):
                module.a.normal_()
                module.b.normal_()


def check_start_is_the_parent(mixer: str) -> None:
    model = made(mixer)
    before = loss_of(model)
    add_adapters(model, 2, 4.0)
    assert torch.equal(loss_of(model), before)


def check_merged_is_unmerged(mixer: str) -> None:
    model = made(mixer)
    parent, before = loss_of(model), {name: value.clone() for name, value in model.state_dict().items()}
    add_adapters(model, 2, 4.0)
    moved(model)
    unmerged = loss_of(model)
    assert (unmerged - parent).abs() > 1e-3, "the adapters do nothing"
    merge_adapters(model)
    assert (loss_of(model) - unmerged).abs() < 1e-6
    assert model.state_dict().keys() == before.keys()
    again = made(mixer)
    again.load_state_dict(model.state_dict())
    assert (loss_of(again) - unmerged).abs() < 1e-6


def check_adapters_learn_alone(mixer: str) -> None:
    model = made(mixer)
    add_adapters(model, 2, 4.0)
    loss_of(model).backward()
    own = {id(p) for module in model.modules() if isinstance(module, LowRank) for p in module.parameters()}
    with_gradient = {id(p) for p in model.parameters() if p.grad is not None}
    assert own and with_gradient == own
    # At the start only B can move, and it does.
    assert all(bool(m.b.grad.any()) for m in model.modules() if isinstance(m, LowRank) and m.b.grad is not None)


LAWS: dict[str, Callable[[str], None]] = {
    "start": check_start_is_the_parent,
    "merge": check_merged_is_unmerged,
    "gradients": check_adapters_learn_alone,
}


@every_mixer
@pytest.mark.parametrize("law", LAWS)
def test_law_holds(law: str, mixer: str) -> None:
    LAWS[law](mixer)


def _fault_start(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lora.LowRank, "forward", lambda self, weight: weight + self.scale * (self.b @ self.a) + 1e-9)


def _fault_merge(patch: pytest.MonkeyPatch) -> None:
    true = lora.parametrize.remove_parametrizations
    patch.setattr(
        lora.parametrize,
        "remove_parametrizations",
        lambda module, name, leave_parametrized: true(module, name, leave_parametrized=False),
    )


def _fault_gradients(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GenerativeModel, "requires_grad_", lambda self, flag: self)


FAULTS = {"start": _fault_start, "merge": _fault_merge, "gradients": _fault_gradients}


@pytest.mark.parametrize("law", LAWS)
def test_law_catches_a_planted_fault(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[law](monkeypatch)
    with pytest.raises(AssertionError):
        LAWS[law]("attention")


@every_mixer
def test_every_linear_map_of_the_mixers_is_adapted_and_no_other(mixer: str) -> None:
    model = made(mixer)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    wanted = {name for name in linear if ".mixer." in name or ".channel." in name}
    add_adapters(model, 2, 4.0)
    found = {name.partition(".parametrizations")[0] for name, m in model.named_modules() if isinstance(m, LowRank)}
    assert found == wanted and wanted < linear


def test_the_maps_of_fusions_are_adapted() -> None:
    fused = {"encoders": {"source": {"depth": 1}}, "fusion": {"name": "hierarchical", "heads": 2}}
    settings = {"width": 8, "depth": 1, "pattern": [MIXERS["attention"]], **fused}
    model = build_model({"process": {"name": "autoregressive"}, "model": settings}, Vocabulary(5))
    add_adapters(model, 2, 4.0)
    found = {name.partition(".parametrizations")[0] for name, m in model.named_modules() if isinstance(m, LowRank)}
    wanted = {"readers.source.query", "readers.source.key", "readers.source.value", "readers.source.out", "ask"}
    assert {f"network.backbone.blocks.0.fusion.{name}" for name in (*wanted, "offers.source")} <= found


def test_an_adapter_adds_its_scaled_product() -> None:
    weight = torch.randn(3, 5).double()
    adapter = LowRank(weight, 2, 6.0)
    moved(adapter)
    torch.testing.assert_close(adapter(weight), weight + 6.0 / 2 * adapter.b @ adapter.a)


def test_state_of_unmerged_adapters_comes_back() -> None:
    one, other = made(), made()
    add_adapters(one, 2, 4.0)
    moved(one)
    add_adapters(other, 2, 4.0)
    other.load_state_dict(one.state_dict())
    assert torch.equal(loss_of(one), loss_of(other))


def test_all_parameters_learn_again_after_a_merge() -> None:
    model = made()
    add_adapters(model, 1, 1.0)
    merge_adapters(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("rank", "alpha"), [(0, 1.0), (2, 0.0), (2, float("nan"))])
def test_bad_settings_are_refused(rank: int, alpha: float) -> None:
    with pytest.raises(UserError, match="adapt.rank"):
        add_adapters(made(), rank, alpha)
