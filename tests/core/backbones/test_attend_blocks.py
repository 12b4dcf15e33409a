"""A stack of layers under a block mask: a block is written as a whole, before the next begins."""

from __future__ import annotations

import pytest
import torch

from core.backbones.backbone import Backbone
from core.backbones.mixers._build import build_mixer
from core.data import Layout, MaskSpec
from core.errors import UserError

BLOCK, LENGTHS = 4, (11, 0, 4, 12)


def build(window: int | None = None) -> Backbone:
    pattern = [{"name": "attention", "heads": 2, "window": window}]
    model = Backbone(9, 7, 8, pattern, 3, MaskSpec("causal", block=BLOCK)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def check_blocks(window: int | None, size: int = BLOCK) -> None:
    """Read in pieces of `size` tokens, each row gives the logits of one pass over all of it."""
    model, lengths = build(window), torch.tensor(LENGTHS)
    tokens = torch.randint(9, (len(LENGTHS), 12))
    whole, _ = model(tokens, Layout.padded(lengths, 12, model.mask))
    state, found = None, []
    for start in range(0, 12, size):
        piece = Layout.padded((lengths - start).clamp(0, size), size, model.mask)
        logits, state = model(tokens[:, start : start + size], piece, state=state, keep="last")
        found.append(logits)
    seen = torch.arange(12) < lengths[:, None]
    assert torch.allclose(torch.cat(found, 1)[seen], whole[seen], rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [None, 5])
def test_blocks_one_after_the_other_are_the_whole(window: int | None) -> None:
    check_blocks(window)
    check_blocks(window, 3 * BLOCK)


def test_a_cut_inside_a_block_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="whole blocks of 4 tokens, not 2"):
        check_blocks(None, 2)
    with pytest.raises(ValueError, match="whole blocks of 4 tokens, not 1"):
        build().step(torch.tensor([1]), build().init_state(1))
    monkeypatch.setattr("core.backbones.mixers.attention.Attention._torn", lambda self, before, layout: None)
    with pytest.raises(AssertionError):
        check_blocks(None, 2)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "min_gru"}, "block"),
        ({"name": "attention", "window": 3}, "a window of 3 would hide tokens of a query's own block of 4"),
    ],
)
def test_what_cannot_honour_blocks_is_the_users_error(entry: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_mixer(entry, 8, MaskSpec("causal", block=BLOCK))
