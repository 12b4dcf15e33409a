"""What memories, pointers and relations are for: toys that a network without them cannot solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from core.backbones.backbone import Backbone
from core.backbones.memories import registry
from core.data import Layout, MaskSpec, Memory, Noise, Relations, SequenceBatch
from core.tokenizers.base import Vocabulary
from core.training.model import GenerativeModel, build_model

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _unchecked_shapes() -> Any:
    """Shapes were checked by the quick tests; here they would cost half the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def trained(module: torch.nn.Module, loss: Callable[[int], Tensor], steps: int, rate: float) -> None:
    """Adam with a linear decay."""
    optimiser = torch.optim.Adam(module.parameters(), rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        loss(step).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    module.eval()


def rows_of(tokens: Tensor, lengths: Tensor | None = None) -> SequenceBatch:
    lengths = torch.full((len(tokens),), tokens.shape[1]) if lengths is None else lengths
    return SequenceBatch(tokens, Layout.padded(lengths, tokens.shape[1]))


def fitted(model: GenerativeModel, draw: Callable[[int], SequenceBatch], steps: int, rate: float) -> None:
    noise = Noise.start(0, torch.arange(64))
    trained(model, lambda step: model.process.loss(model.network, draw(64), noise).mean(), steps, rate)


def decoded(model: GenerativeModel, batch: SequenceBatch, steps: int) -> Tensor:
    """The likeliest token, step by step on the State; memories are read from there."""
    start = rows_of(torch.full((batch.layout.count, 1), model.process.vocabulary.bos))
    logits, state = model.network.read(replace(start, memories=batch.memories))
    found = []
    for _ in range(steps):
        found.append(logits.argmax(-1))
        logits, state = model.network.step(found[-1], state)
    return torch.stack(found, 1)


# --- two noisy copies ---------------------------------------------------------------------

LETTERS, LENGTH = 8, 8
ERASED = LETTERS


def copies(count: int) -> SequenceBatch:
    """Random letters, beside two copies; each place is erased in one of the two."""
    tokens = torch.randint(LETTERS, (count, LENGTH))
    kept = torch.rand(count, LENGTH) < 0.5
    owner = torch.arange(count)
    memories = {
        "first": Memory(rows_of(torch.where(kept, tokens, ERASED)), owner),
        "second": Memory(rows_of(torch.where(kept, ERASED, tokens)), owner),
    }
    return replace(rows_of(tokens), memories=memories)


def recovered(fusion: str, names: tuple[str, ...]) -> float:
    """Share of the letters that a small encoder-decoder recovers from the memories named."""
    pattern = [{"name": "attention", "heads": 2}]
    config: dict[str, Any] = {
        "process": {"name": "autoregressive", "limit": LENGTH},
        "model": {
            "width": 32,
            "depth": 1,
            "pattern": pattern,
            "encoders": {name: {"vocabulary": LETTERS + 1} for name in names},
            "fusion": {"name": fusion, "heads": 2, "rotary": True},
        },
    }
    model = build_model(config, Vocabulary(LETTERS))

    def given(count: int) -> SequenceBatch:
        batch = copies(count)
        return replace(batch, memories={name: batch.memories[name] for name in names})

    fitted(model, given, 500, 5e-3)
    batch = given(500)
    return (decoded(model, batch, LENGTH) == batch.tokens).double().mean().item()


@pytest.mark.parametrize("fusion", registry.keys())
def test_two_noisy_copies_give_the_original(fusion: str) -> None:
    assert recovered(fusion, ("first", "second")) >= 0.95


def test_one_noisy_copy_does_not() -> None:
    """A half is there, and of the other half one letter in eight is guessed: 0.5625."""
    assert recovered("parallel", ("first",)) < 0.6


# --- sorting by pointing --------------------------------------------------------------------

NUMBERS = 32


def shuffled(count: int, least: int, most: int) -> SequenceBatch:
    """Different numbers in any order, beside pointers to them in ascending order."""
    lengths = torch.randint(least, most + 1, (count,))
    numbers = torch.rand(count, NUMBERS).argsort(-1)[:, :most]
    held = torch.arange(most) < lengths[:, None]
    order = numbers.masked_fill(~held, NUMBERS).argsort(-1)
    first = Vocabulary(0).total
    memory = Memory(rows_of(numbers.masked_fill(~held, 0), lengths), torch.arange(count))
    return replace(rows_of(first + order, lengths), memories={"numbers": memory})


def test_a_pointer_head_sorts_also_at_lengths_that_it_has_not_seen() -> None:
    pattern = [{"name": "attention", "heads": 2, "rotary": False}]
    config: dict[str, Any] = {
        "process": {"name": "autoregressive", "limit": 20},
        "model": {
            "width": 32,
            "depth": 1,
            "pattern": pattern,
            "encoders": {"numbers": {"vocabulary": NUMBERS}},
            "fusion": {"name": "parallel", "heads": 2, "pointer": "numbers"},
        },
    }
    model = build_model(config, Vocabulary(0))
    fitted(model, lambda count: shuffled(count, 2, 10), 800, 5e-3)
    for length in (10, 12):
        batch = shuffled(500, length, length)
        found = decoded(model, batch, length + 1)
        assert (found[:, :-1] == batch.tokens).double().mean() >= 0.95, f"{length} numbers"
        assert (found[:, -1] == model.process.vocabulary.eos).double().mean() >= 0.95, f"the end of {length} numbers"


# --- paths along edges ----------------------------------------------------------------------

NODES, HOPS = 8, 3
ASKED = 2


def schemas(count: int) -> tuple[Tensor, Layout, Tensor, Tensor]:
    """Tokens of table A, column B and others; their layout with edges both ways; where B is; whether A leads to B.

    A leads to B over at most HOPS edges. Half of the answers are yes, and the tokens alone say nothing about them.
    """
    links = (torch.rand(4 * count, NODES, NODES) < 1.3 / NODES).double()
    reach = torch.eye(NODES, dtype=torch.double).expand_as(links)
    for _ in range(HOPS):
        reach = (reach + reach @ links).clamp_max(1)
    wanted = torch.arange(4 * count) % 2 == 0
    fits = (reach[:, 0] > 0) == wanted[:, None]
    fits[:, 0] = False
    # Where nothing can be reached, or everything, there is no such question.
    possible = fits.any(1)
    kept = torch.cat([(possible & (wanted == answer)).nonzero()[: count // 2, 0] for answer in (True, False)])
    links, fits, wanted = links[kept], fits[kept], wanted[kept]
    place = (fits * torch.rand(len(kept), NODES)).argmax(1)
    tokens = torch.zeros(count, NODES, dtype=torch.long)
    tokens[:, 0] = 1
    tokens[torch.arange(count), place] = ASKED
    onward = links.nonzero()
    edges = torch.cat([onward, onward[:, [0, 2, 1]]])
    types = torch.arange(2).repeat_interleave(len(onward))
    layout = Layout.padded(torch.full((count,), NODES), NODES).with_relations(Relations(edges, types))
    return tokens, layout, place, wanted.long()


def answered(mixer: str) -> float:
    """Share of right answers of a network of this mixer."""
    model = Backbone(3, 2, 32, [{"name": mixer, "heads": 2, "rotary": False}], HOPS + 1, MaskSpec("full"))

    def logits(count: int) -> tuple[Tensor, Tensor]:
        tokens, layout, place, answer = schemas(count)
        return model(tokens, layout)[0][torch.arange(count), place], answer

    trained(model, lambda _: cross_entropy(*logits(128)), 300, 5e-3)
    with torch.no_grad():
        found, answer = logits(1000)
    return (found.argmax(-1) == answer).double().mean().item()


def test_relations_find_paths_that_plain_attention_cannot() -> None:
    assert answered("relation_attention") >= 0.95
    assert abs(answered("attention") - 0.5) <= 0.05
