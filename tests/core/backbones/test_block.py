"""One layer: what stands beside the mixer."""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from core.backbones.block import Block
from core.backbones.mixers.min_gru import MinGRU
from core.backbones.swi_glu import SwiGLU
from core.data import Layout, MaskSpec


def test_channel_mixer_is_its_formula() -> None:
    mixer = SwiGLU(12).double()
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    gate, value, out = (part.weight for part in (mixer.gate, mixer.value, mixer.out))
    torch.testing.assert_close(mixer(x), (silu(x @ gate.T) * (x @ value.T)) @ out.T)
    assert mixer.hidden == 32 and SwiGLU(128).hidden == 344


def test_a_block_adds_both_branches_to_its_input() -> None:
    block = Block(MinGRU(8, MaskSpec("causal")), conditioned=False, dropout=0.5).double().eval()
    layout = Layout.padded(torch.tensor([4, 2]), 4, MaskSpec("causal"))
    h = torch.randn(2, 4, 8, dtype=torch.float64)
    middle = h + block.mixer(block.mixer_norm(h, layout, None)[0], layout)[0]
    wanted = middle + block.channel(block.channel_norm(middle, layout, None)[0])
    torch.testing.assert_close(block(h, layout)[0], wanted)
    with torch.no_grad():
        for branch in (block.mixer, block.channel):
            branch.out.weight.zero_()
    torch.testing.assert_close(block(h, layout)[0], h)


def test_dropout_acts_in_training_alone() -> None:
    block = Block(MinGRU(8, MaskSpec("causal")), conditioned=False, dropout=0.9)
    layout = Layout.padded(torch.tensor([4]), 4, MaskSpec("causal"))
    h = torch.randn(1, 4, 8)
    assert not torch.equal(block.train()(h, layout)[0], block(h, layout)[0])
    assert torch.equal(block.eval()(h, layout)[0], block(h, layout)[0])
