"""The whole network: layouts agree, decoding agrees, conditioning reaches every sequence and no other."""

import pytest
import torch
from torch import Tensor

from core.backbones import Backbone
from core.data import Layout, MaskSpec, pack, packed_layout, unpack
from core.errors import UserError

LENGTHS = [4, 0, 1, 7]
HYBRID = [{"name": "attention", "heads": 2}, {"name": "min_gru"}, {"name": "attention", "window": 3, "sinks": 1}]
WHOLE = [{"name": "attention"}, {"name": "bidirectional", "mixer": {"name": "min_gru"}}]


def build(pattern: list[dict], mask: MaskSpec, dtype: torch.dtype = torch.float64, **options) -> Backbone:
    model = Backbone(9, 7, 8, pattern, 3, mask, **options).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def batch() -> tuple[Tensor, Layout]:
    return torch.randint(9, (4, 8)), Layout.padded(torch.tensor(LENGTHS), 8)


@pytest.mark.parametrize("shape", ["per token", "per sequence"])
def test_padded_packed_and_alone_agree(shape: str) -> None:
    model = build(WHOLE, MaskSpec("full"), time=True, condition=5)
    tokens, layout = batch()
    condition = torch.randn(4, 5, dtype=torch.float64)
    per_row = torch.rand(4, 1, dtype=torch.float64)
    time = per_row if shape == "per sequence" else torch.rand(4, 8, dtype=torch.float64)
    wide = model(tokens, layout, time, condition)[0]
    twin = packed_layout(layout, 15)
    tight_time = time if shape == "per sequence" else pack(time, layout, 15)
    tight = unpack(model(pack(tokens, layout, 15), twin, tight_time, condition)[0], twin, 8)
    torch.testing.assert_close(tight[layout.valid], wide[layout.valid])
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1)
        short = Layout.padded(torch.tensor([length]), length)
        alone = model(tokens[one, :length], short, time[one, : max(length, 1)][:, :length] if shape == "per token"
                      else time[one], condition[one])[0]  # fmt: skip
        torch.testing.assert_close(alone, wide[one, :length])


def test_a_time_per_row_equals_the_same_time_per_token() -> None:
    model = build(WHOLE, MaskSpec("full"), time=True)
    tokens, layout = batch()
    time = torch.rand(4, 1, dtype=torch.float64)
    torch.testing.assert_close(model(tokens, layout, time)[0], model(tokens, layout, time.expand(4, 8))[0])
    assert not torch.isclose(model(tokens, layout, time)[0], model(tokens, layout, 1 - time)[0])[layout.valid].all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_decoding_equals_reading(dtype: torch.dtype) -> None:
    model = build(HYBRID, MaskSpec("causal"), dtype, condition=2)
    tokens, condition = torch.randint(9, (3, 12)), torch.randn(3, 2, dtype=dtype)
    layout = Layout.padded(torch.full((3,), 12), 12)
    whole = model(tokens, layout, None, condition)[0]
    first = Layout.padded(torch.full((3,), 5), 5)
    logits, state = model(tokens[:, :5], first, None, condition, keep="last")
    pieces = [logits]
    for place in range(5, 12):
        logits, state = model.step(tokens[:, place], state)
        pieces.append(logits[:, None])
    assert whole.dtype == dtype
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    assert state.position.tolist() == [12, 12, 12] and len(state.layers) == 3
    forked, _ = model.step(tokens[:, 0].repeat_interleave(2), state.fork(2))
    torch.testing.assert_close(forked[::2], model.step(tokens[:, 0], state)[0])


def test_drafts_roll_back() -> None:
    model = build(HYBRID, MaskSpec("causal"))
    tokens = torch.randint(9, (2, 14))
    _, state = model(tokens[:, :8], Layout.padded(torch.tensor([8, 8]), 8), keep="last")
    _, drafted = model(tokens[:, 8:], Layout.padded(torch.tensor([6, 6]), 6), state=state, keep="all")
    back = drafted.truncate(torch.tensor([8, 11]))
    _, exact = model(tokens[:, 8:11], Layout.padded(torch.tensor([0, 3]), 3), state=state, keep="last")
    torch.testing.assert_close(model.step(tokens[:, 0], back)[0], model.step(tokens[:, 0], exact)[0])


def test_no_condition_and_nan_rows_are_the_same() -> None:
    model = build(WHOLE, MaskSpec("full"), condition=3)
    tokens, layout = batch()
    condition = torch.randn(4, 3, dtype=torch.float64)
    condition[1::2] = torch.nan
    mixed, bare = model(tokens, layout, None, condition)[0], model(tokens, layout)[0]
    torch.testing.assert_close(mixed[1::2], bare[1::2])
    assert not torch.isclose(mixed[0], bare[0])[:4].all()


@pytest.mark.parametrize("time", [False, True])
def test_a_fresh_model_is_near_uniform_and_learns_everywhere(time: bool) -> None:
    model = Backbone(9, 7, 16, WHOLE, 4, MaskSpec("full"), time=time)
    tokens, layout = batch()
    moment = torch.rand(4, 1) if time else None
    assert model(tokens, layout, moment)[0].abs().max() < 1
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    target = torch.randint(7, (4, 8))
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(tokens, layout, moment)[0][layout.valid], target[layout.valid])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    silent = [name for name, part in model.named_parameters() if part.grad is None or not part.grad.any()]
    assert not silent


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_states_are_at_least_fp32(dtype: torch.dtype) -> None:
    model = build([{"name": "min_gru"}], MaskSpec("causal"), dtype)
    logits, state = model.step(torch.tensor([1]), model.init_state(1))
    wide = torch.promote_types(dtype, torch.float32)
    assert logits.dtype == dtype and {layer.value.dtype for layer in state.layers} == {wide}


def test_padding_ids_need_no_row() -> None:
    model = build(WHOLE, MaskSpec("full"))
    tokens, layout = batch()
    wanted = model(tokens, layout)[0]
    assert torch.equal(model(tokens.masked_fill(~layout.valid, -1), layout)[0][layout.valid], wanted[layout.valid])


def test_inputs_that_the_model_was_not_built_for_are_refused() -> None:
    tokens, layout = batch()
    timed, plain = build(WHOLE, MaskSpec("full"), time=True), build(WHOLE, MaskSpec("full"))
    for model, time, condition in (
        (timed, None, None),
        (plain, torch.rand(4, 1), None),
        (plain, None, torch.rand(4, 2)),
    ):
        with pytest.raises(ValueError):
            model(tokens, layout, time, condition)
    with pytest.raises(UserError, match="names no mixer"):
        Backbone(9, 7, 8, [], 2, MaskSpec("full"))
