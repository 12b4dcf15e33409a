"""Laws of a sequence mixer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from core.backbones.mixers.base import SequenceMixer
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.packing import pack, packed_layout, unpack
from core.errors import as_user_error
from pipelines.check._law import near, require
from pipelines.check._toys import randomise

_WIDTH = 16


def laws(member: type[SequenceMixer]) -> Iterator[str]:
    masks = [mask for mask in (MaskSpec("causal"), MaskSpec("full")) if mask.features <= member.capabilities.masks]
    yield require(bool(masks), "it honours the causal or the full mask")
    for mask in masks:
        mixer, mode = _random_mixer(member, mask), mask.mode
        layout = Layout.padded(torch.tensor([7, 0, 1, 4]), 9, mixer.mask)
        h = torch.randn(4, 9, _WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        y, _ = mixer(h, layout)
        yield require(y.shape == h.shape, f"{mode}: forward keeps the shape")
        yield require(not bool(y[~layout.valid].any()), f"{mode}: rows of padding come back as zeros")
        dirty, _ = mixer(h.masked_fill(~layout.valid[..., None], torch.nan), layout)
        yield require(near(y, dirty), f"{mode}: what stands in padding does not matter")
        for row, length in enumerate(layout.lengths.tolist()):
            part = Layout.padded(layout.lengths[row : row + 1], length, mixer.mask)
            require(near(mixer(h[row : row + 1, :length], part)[0][0], y[row, :length]), "a sequence mixes alone")
        yield f"ok  {mode}: a sequence mixes the same alone and in a batch"
        if member.capabilities.packed:
            dense = packed_layout(layout, int(layout.lengths.sum()) + 2)
            together, _ = mixer(pack(h, layout, dense.shape[1]), dense)
            yield require(near(unpack(together, dense, 9), y), f"{mode}: packed is padded")
        yield require(_sees_only_its_mask(mixer, h, layout), f"{mode}: no gradient reaches what the mask hides")
    if member.capabilities.state != "none" and MaskSpec("causal") in masks:
        yield from _decoding(_random_mixer(member, MaskSpec("causal")))


def _random_mixer(member: type[SequenceMixer], mask: MaskSpec) -> SequenceMixer:
    with as_user_error(member.__name__):
        mixer = member(_WIDTH, mask).double().eval()
    randomise(mixer)
    return mixer


def _sees_only_its_mask(mixer: SequenceMixer, h: Float[Tensor, "B L D"], layout: Layout) -> bool:
    visible = mixer.mask.dense(layout)
    h = h.clone().requires_grad_()
    y, _ = mixer(h, layout)
    for query in range(layout.shape[1]):
        (gradient,) = torch.autograd.grad(y[:, query].sum(), h, retain_graph=True)
        if bool((gradient.ne(0).any(-1) & ~visible[:, query]).any()):
            return False
    return True


def _decoding(mixer: SequenceMixer) -> Iterator[str]:
    h = torch.randn(3, 9, _WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole, _ = mixer(h, Layout.padded(torch.full((3,), 9), 9, mixer.mask))
    state = mixer.init_state(3)
    outputs = []
    for place in range(9):
        y, state = mixer.step(h[:, place], state)
        outputs.append(y)
    yield require(near(torch.stack(outputs, 1), whole), "step by step is parallel")
    first, state = mixer(h[:, :5], Layout.padded(torch.full((3,), 5), 5, mixer.mask), keep="last")
    second, _ = mixer(h[:, 5:], Layout.padded(torch.full((3,), 4), 4, mixer.mask), state)
    yield require(near(torch.cat([first, second], 1), whole), "chunked is parallel")
    assert state is not None
    order = torch.tensor([2, 0, 0])
    chosen, _ = mixer.step(h[order, 5], state.select(order))
    yield require(near(chosen, whole[order, 5]), "a state's rows stand alone")
