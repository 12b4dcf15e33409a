"""The laws of sequence mixers, for every registered member and by what it declares."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml

from core.backbones.mixers import base, registry
from core.backbones.mixers._build import build_mixer
from core.backbones.mixers.base import SequenceMixer
from core.backbones.state import KeyValue, Recurrent, State
from core.data import MaskSpec
from tests.laws import mixer_laws as laws

CONFIGS = Path(__file__).parents[2] / "configs" / "mixer"
WIDTH = 8
MASKS = [
    MaskSpec(mode, window, sinks)
    for mode, (window, sinks) in product(("causal", "full", "prefix"), ((None, 0), (3, 0), (3, 2)))
]
MASKS += [
    MaskSpec("causal", block=3),
    MaskSpec("causal", 5, 2, 3),
    MaskSpec("causal", block=1),
    MaskSpec("prefix", block=4),
]
MEMBERS = registry.members()


def build(key: str, mask: MaskSpec, dtype: torch.dtype = torch.float64) -> SequenceMixer:
    """The member with the options of its YAML, small, every parameter random."""
    options = yaml.safe_load((CONFIGS / f"{key}.yaml").read_text())
    mixer = build_mixer({**options, "window": None, "sinks": 0}, WIDTH, mask).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(std=0.5)
    return mixer


def honoured(key: str) -> list[MaskSpec]:
    return [mask for mask in MASKS if mask.features <= MEMBERS[key].capabilities.masks]


def name(key: str, mask: MaskSpec) -> str:
    window = f"-w{mask.window}s{mask.sinks}" if mask.window else ""
    return f"{key}-{mask.mode}{window}" + (f"-b{mask.block}" if mask.block else "")


CASES = [pytest.param(key, mask, id=name(key, mask)) for key in MEMBERS for mask in honoured(key)]
DECODERS = [
    pytest.param(key, mask, id=name(key, mask))
    for key, member in MEMBERS.items()
    if member.capabilities.state != "none"
    for mask in honoured(key)
    if mask.mode == "causal"
]
# A block of one token is the causal mask.
STEPPERS = [case for case in DECODERS if case.values[1].block in (None, 1)]
BLOCKWISE = [case for case in DECODERS if case.values[1].block]
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])


@PRECISIONS
@pytest.mark.parametrize("law", [laws.check_chunks, laws.check_steps, laws.check_rollback], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), STEPPERS)
def test_decoding(key: str, mask: MaskSpec, law: Callable, dtype: torch.dtype) -> None:
    law(build(key, mask, dtype))


@PRECISIONS
@pytest.mark.parametrize(("key", "mask"), BLOCKWISE)
def test_blocks(key: str, mask: MaskSpec, dtype: torch.dtype) -> None:
    laws.check_blocks(build(key, mask, dtype))


@pytest.mark.parametrize("law", [laws.check_state, laws.check_forgotten], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), STEPPERS)
def test_state(key: str, mask: MaskSpec, law: Callable) -> None:
    law(build(key, mask))


@PRECISIONS
@pytest.mark.parametrize("law", [laws.check_packed, laws.check_padding], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), CASES)
def test_layouts(key: str, mask: MaskSpec, law: Callable, dtype: torch.dtype) -> None:
    law(build(key, mask, dtype))


@pytest.mark.parametrize("law", [laws.check_visibility, laws.check_permutation], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), CASES)
def test_dependence(key: str, mask: MaskSpec, law: Callable) -> None:
    law(build(key, mask))


@pytest.mark.parametrize(("key", "mask"), CASES)
def test_saved(key: str, mask: MaskSpec) -> None:
    laws.check_saved(build(key, mask), lambda: build(key, mask))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("key", MEMBERS)
def test_compiled(key: str) -> None:
    torch.compiler.reset()
    laws.check_compiled(build(key, honoured(key)[0]))


@pytest.mark.parametrize("key", MEMBERS)
def test_refusals(key: str) -> None:
    laws.check_refusals(lambda mask: build(key, mask), MASKS, MEMBERS[key].capabilities.masks)


@pytest.mark.parametrize("key", MEMBERS)
def test_declaration(key: str) -> None:
    check_declaration(MEMBERS[key], lambda mask: build(key, mask))


@pytest.mark.parametrize("key", MEMBERS)
def test_paper_is_named(key: str) -> None:
    assert MEMBERS[key].paper.title


# --- the frozen table: what a family must declare, whatever a member would rather ----------


FAMILIES: dict[type[State], Callable[[base.Capabilities], bool]] = {
    Recurrent: lambda has: has.state == "constant" and has.packed and "causal" in has.masks and has.cost <= 1.5,
    KeyValue: lambda has: has.packed and has.masks == {"causal", "full", "prefix", "window", "sinks", "block"},
}


def check_declaration(member: type[SequenceMixer], make: Callable[[MaskSpec], SequenceMixer]) -> None:
    """The kind of state decides the family; one that cannot decode must see whole sequences."""
    has = member.capabilities
    assert has.packed
    if has.state == "none":
        assert "full" in has.masks, "neither decodes nor sees whole sequences"
        try:
            make(MaskSpec("full")).init_state(1)
        except ValueError:
            return
        raise AssertionError("declares no state, but has one")
    mixer = make(MaskSpec("causal"))
    assert FAMILIES[type(mixer.init_state(1))](has), f"{has} is less than the family must declare"
    if has.state in ("constant", "ring"):
        laws.check_size(mixer)
    if "window" in has.masks:
        laws.check_size(make(MaskSpec("causal", 3, 2)))
