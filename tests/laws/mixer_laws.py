"""The laws of sequence mixers as plain functions: each raises AssertionError where a mixer breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from core.backbones.mixers.base import ROLLBACK, SequenceMixer
from core.backbones.state import KeyValue, State
from core.data import Layout, MaskSpec

LENGTHS = (5, 0, 1, 9, 3)
ROOM = 11  # padded width: slack in every row
PREFIX = 2


def tolerance(dtype: torch.dtype) -> float:
    return 1e-10 if dtype == torch.float64 else 1e-5


def near(one: Tensor, other: Tensor, what: str) -> None:
    bound = tolerance(one.dtype)
    assert one.shape == other.shape, f"{what}: {one.shape} against {other.shape}"
    gap = (one - other).abs().max().item() if one.numel() else 0.0
    scale = max(1.0, other.abs().max().item()) if other.numel() else 1.0
    # `not <=` also catches NaN.
    assert not (not gap <= bound * scale), f"{what} differ by {gap:.2e}"


def padded(mixer: SequenceMixer, lengths: Sequence[int] = LENGTHS, room: int = ROOM) -> Layout:
    sizes = torch.tensor(lengths)
    layout = Layout.padded(sizes, room, mixer.mask)
    return layout.with_prefix(torch.full_like(sizes, PREFIX)) if mixer.mask.mode == "prefix" else layout


def packed(mixer: SequenceMixer, lengths: Sequence[int] = LENGTHS, slack: int = 4) -> Layout:
    sizes = torch.tensor(lengths)
    layout = Layout.packed(sizes, sum(lengths) + slack, mixer.mask)
    return layout.with_prefix(torch.full_like(sizes, PREFIX)) if mixer.mask.mode == "prefix" else layout


def tokens(mixer: SequenceMixer, layout: Layout) -> Tensor:
    dtype = next(mixer.parameters()).dtype
    return torch.randn(*layout.shape, mixer.width, dtype=dtype)


def compared(mixer: SequenceMixer, h: Tensor, weight: Tensor, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Output, and the gradients of a weighted sum with respect to input and parameters."""
    h = h.detach().clone().requires_grad_()
    y = run(h)
    wanted = [h, *mixer.parameters()]
    loss = (y * weight).sum()
    if not loss.requires_grad:
        return [y.detach(), *(torch.zeros_like(part) for part in wanted)]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [y.detach(), *(torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True))]


def same(one: list[Tensor], other: list[Tensor], what: str) -> None:
    near(one[0], other[0], f"outputs of {what}")
    for left, right in zip(one[1:], other[1:], strict=True):
        near(left, right, f"gradients of {what}")


def in_chunks(mixer: SequenceMixer, h: Tensor, lengths: Tensor, widths: Sequence[int]) -> Tensor:
    """The rows of `h`, read piece by piece through the state."""
    state: State | None = None
    outputs, start = [], 0
    for width in widths:
        part = (lengths - start).clamp(0, width)
        y, state = mixer(h[:, start : start + width], Layout.padded(part, width, mixer.mask), state, keep="last")
        outputs.append(y)
        start += width
    assert state is not None
    assert torch.equal(state.position, lengths), "position is not the number of tokens read"
    return torch.cat(outputs, 1)


def check_chunks(mixer: SequenceMixer, lengths: Sequence[int] = (38, 0, 1, 40, 21)) -> None:
    """Parallel = chunked at random cuts = step by step, outputs and gradients."""
    room = max(lengths)
    layout = padded(mixer, lengths, room)
    h = tokens(mixer, layout)
    weight = torch.randn_like(h) * layout.valid[..., None]
    whole = compared(mixer, h, weight, lambda x: mixer(x, layout)[0])
    for pieces in (room, 2, 5):
        cuts = sorted((torch.randperm(room - 1)[: pieces - 1] + 1).tolist())
        widths = [end - begin for begin, end in zip([0, *cuts], [*cuts, room], strict=True)]
        chunked = compared(mixer, h, weight, lambda x, widths=widths: in_chunks(mixer, x, layout.lengths, widths))
        same(whole, chunked, f"parallel and {pieces} chunks")


def check_steps(mixer: SequenceMixer, room: int = 37) -> None:
    """`step` by `step` = parallel."""
    layout = padded(mixer, (room, room), room)
    h = tokens(mixer, layout)

    def walk(x: Tensor) -> Tensor:
        state, outputs = mixer.init_state(2), []
        for place in range(room):
            y, state = mixer.step(x[:, place], state)
            outputs.append(y)
        return torch.stack(outputs, 1)

    weight = torch.randn_like(h)
    same(compared(mixer, h, weight, lambda x: mixer(x, layout)[0]), compared(mixer, h, weight, walk), "steps")


def check_blocks(mixer: SequenceMixer, lengths: Sequence[int] = (38, 0, 1, 40, 21)) -> None:
    """Parallel = whole blocks at a time, outputs and gradients; a state is neither read nor left inside a block."""
    block = mixer.mask.block
    assert block is not None
    count = -(-max(lengths) // block)
    layout = padded(mixer, lengths, count * block)
    h = tokens(mixer, layout)
    weight = torch.randn_like(h) * layout.valid[..., None]
    whole = compared(mixer, h, weight, lambda x: mixer(x, layout)[0])
    for widths in ([block] * count, [2 * block, (count - 2) * block]):
        chunked = compared(mixer, h, weight, lambda x, widths=widths: in_chunks(mixer, x, layout.lengths, widths))
        same(whole, chunked, f"parallel and {len(widths)} chunks of whole blocks")
    pieces = [Layout.padded(torch.full((len(h),), size * block), size * block, mixer.mask) for size in (3, 1)]
    h, again = tokens(mixer, pieces[0]), tokens(mixer, pieces[1])
    _, start = mixer(h, pieces[0], keep="last")
    _, drafted = mixer(tokens(mixer, pieces[1]), pieces[1], start, keep="last")
    taken = mixer(again, pieces[1], drafted.truncate(start.position))[0]
    near(taken, mixer(again, pieces[1], start)[0], "a block taken back")
    if block == 1:
        return
    try:
        mixer.step(h[:, 0], start)
    except ValueError:
        pass
    else:
        raise AssertionError("a step of one token was accepted inside a block")
    short = Layout.padded((pieces[1].lengths - 1).index_fill(0, torch.tensor([1]), block), block, mixer.mask)
    _, inside = mixer(again, short, start, keep="last")
    spoilt = mixer(again, pieces[1], inside)[0].isnan().all(-1).all(-1)
    assert spoilt.tolist() == [row != 1 for row in range(len(h))], "a row goes on inside a block as if it could"


def check_packed(mixer: SequenceMixer) -> None:
    """Packed = padded = each sequence alone, with empty and length-1 sequences and slack."""
    wide, tight = padded(mixer), packed(mixer)
    h = tokens(mixer, wide)
    weight = torch.randn_like(h)
    row = tight.owners[0].clamp_min(0), tight.offsets[0]
    keep = tight.valid[0][:, None]

    def alone(x: Tensor) -> Tensor:
        rows = torch.zeros_like(x)
        for index, length in enumerate(LENGTHS):
            y, _ = mixer(x[index : index + 1, :length], padded(mixer, (length,), length))
            rows = rows.index_put((torch.tensor([index]), torch.arange(length)), y[0])
        return rows

    def together(x: Tensor) -> Tensor:
        # Slack holds another token's values: reading it shows.
        y, _ = mixer(x[row][None], tight)
        assert not y[0, ~tight.valid[0]].any(), "slack is not zero"
        rows = torch.zeros_like(x)
        return rows.index_put((row[0][keep[:, 0]], row[1][keep[:, 0]]), y[0, keep[:, 0]])

    reference = compared(mixer, h, weight, alone)
    same(reference, compared(mixer, h, weight, lambda x: mixer(x, wide)[0]), "padded and alone")
    same(reference, compared(mixer, h, weight, together), "packed and alone")


def check_padding(mixer: SequenceMixer) -> None:
    """What stands in padding neither matters nor leaks, and its rows come back as zeros."""
    for layout in (padded(mixer), packed(mixer)):
        hole = ~layout.valid[..., None]
        h = tokens(mixer, layout)
        weight = torch.randn_like(h)
        clean = compared(mixer, h.masked_fill(hole, 0), weight, lambda x, layout=layout: mixer(x, layout)[0])
        assert not clean[0].masked_select(hole).any(), "padding is not zero"
        for garbage in (torch.nan, torch.inf, 1e30):
            dirty = compared(mixer, h.masked_fill(hole, garbage), weight, lambda x, layout=layout: mixer(x, layout)[0])
            same(clean, dirty, f"padding of zeros and of {garbage}")


def check_visibility(mixer: SequenceMixer) -> None:
    """A token depends on exactly what its mask shows: the past alone, its own sequence alone."""
    for layout in (padded(mixer), packed(mixer)):
        h = tokens(mixer, layout).requires_grad_()
        y, _ = mixer(h, layout)
        found = torch.zeros(*layout.shape, layout.shape[1], dtype=torch.bool)
        mixing = torch.randn(mixer.width, dtype=h.dtype)
        for query in range(layout.shape[1]):
            (gradient,) = torch.autograd.grad((y[:, query] @ mixing).sum(), h, retain_graph=True)
            found[:, query] = gradient.ne(0).any(-1)
        wanted = mixer.mask.dense(layout)
        assert not (found & ~wanted).any(), "a gradient reaches what the mask hides"
        assert not (wanted & ~found).any(), "no gradient reaches what the mask shows"


def check_permutation(mixer: SequenceMixer) -> None:
    """The order of the rows does not matter."""
    layout, order = padded(mixer), torch.randperm(len(LENGTHS))
    h = tokens(mixer, layout)
    near(mixer(h, layout)[0][order], mixer(h[order], layout.select(order))[0], "permuted rows")


def _every(state: State) -> list[Tensor]:
    return [value for entry in fields(state) if isinstance(value := getattr(state, entry.name), Tensor)]


def check_state(mixer: SequenceMixer) -> None:
    """select and fork take rows; a state is never changed in place; a state row stands alone."""
    lengths = (20, 0, 37)
    h = tokens(mixer, padded(mixer, lengths, 37))
    _, state = mixer(h, padded(mixer, lengths, 37), keep="last")
    assert state is not None
    copies = [value.clone() for value in _every(state)]
    more = torch.randn(3, mixer.width, dtype=h.dtype)
    after, _ = mixer.step(more, state)
    for before, value in zip(copies, _every(state), strict=True):
        assert torch.equal(before, value), "a step changed the state it was given"
    for index in (torch.tensor([2, 0]), torch.tensor([1]), torch.tensor([0, 0, 2])):
        near(mixer.step(more[index], state.select(index))[0], after[index], "selected rows")
    forked, _ = mixer.step(more.repeat_interleave(2, 0), state.fork(2))
    near(forked, after.repeat_interleave(2, 0), "forked rows")
    for value in (*_every(state.fork(2)), *_every(state.select(torch.arange(3).repeat(2)))):
        assert len(value) == 6, "the leading axis of a state is not N"
    assert state.nbytes == sum(value.nbytes for value in _every(state))


def check_rollback(mixer: SequenceMixer, read: int = 30) -> None:
    """After `keep="all"` every one of the last tokens can be taken back, row by row, exactly."""
    drafts = torch.tensor([ROLLBACK, 0, 1, 7])
    rows = len(drafts)
    h = tokens(mixer, padded(mixer, [read + ROLLBACK] * rows, read + ROLLBACK))
    first = Layout.padded(torch.full((rows,), read), read, mixer.mask)
    _, start = mixer(h[:, :read], first, keep="last")
    _, drafted = mixer(h[:, read:], Layout.padded(drafts, ROLLBACK, mixer.mask), start, keep="all")
    again = torch.randn(rows, 5, mixer.width, dtype=h.dtype)
    tail = Layout.padded(torch.full((rows,), 5), 5, mixer.mask)
    for taken in range(ROLLBACK + 1):
        left = (drafts - taken).clamp_min(0)
        try:
            back = drafted.truncate(read + left)
        except ValueError as error:
            raise AssertionError(f"rollback by {taken} was refused: {error}") from error
        assert torch.equal(back.position, read + left)
        _, exact = mixer(h[:, read:], Layout.padded(left, ROLLBACK, mixer.mask), start, keep="last")
        near(mixer(again, tail, back)[0], mixer(again, tail, exact)[0], f"rollback by {taken}")


def check_forgotten(mixer: SequenceMixer) -> None:
    """A point that the state has forgotten, or not yet reached, is refused, never made up."""
    h = tokens(mixer, padded(mixer, (64,), 64))
    _, state = mixer(h, padded(mixer, (64,), 64), keep="last")
    assert state is not None
    refused = [65] if isinstance(state, KeyValue) and mixer.mask.window is None else [65, 64 - ROLLBACK - 1]
    for length in refused:
        try:
            state.truncate(torch.tensor([length]))
        except ValueError:
            continue
        raise AssertionError(f"truncation from 64 to {length} was accepted")
    state.truncate(torch.tensor([64]))


def check_size(mixer: SequenceMixer) -> None:
    """A constant state and a ring do not grow with what has been read."""
    sizes = []
    for length in (3, 80):
        _, state = mixer(tokens(mixer, padded(mixer, (length,), length)), padded(mixer, (length,), length), keep="last")
        sizes.append(state.nbytes)
    assert sizes[0] == sizes[1], f"the state grew from {sizes[0]} to {sizes[1]} bytes"


def check_saved(mixer: SequenceMixer, build: Callable[[], SequenceMixer]) -> None:
    """state_dict holds all that the output depends on."""
    twin = build().to(next(mixer.parameters()).dtype)
    twin.load_state_dict(copy.deepcopy(mixer.state_dict()))
    h, layout = tokens(mixer, padded(mixer)), padded(mixer)
    assert torch.equal(mixer(h, layout)[0], twin(h, layout)[0]), "a reloaded mixer answers differently"


def check_compiled(mixer: SequenceMixer) -> None:
    """torch.compile changes nothing."""
    compiled = torch.compile(mixer, backend="aot_eager")
    for layout in (padded(mixer), packed(mixer)):
        h = tokens(mixer, layout)
        weight = torch.randn_like(h)
        plain = compared(mixer, h, weight, lambda x, layout=layout: mixer(x, layout)[0])
        same(plain, compared(mixer, h, weight, lambda x, layout=layout: compiled(x, layout)[0]), "compiled")


def check_refusals(build: Callable[[MaskSpec], SequenceMixer], masks: Sequence[MaskSpec], declared: frozenset) -> None:
    """Masks beyond the declaration are refused when the mixer is built, the others accepted."""
    for mask in masks:
        try:
            build(mask)
            built = True
        except ValueError:
            built = False
        assert built == (mask.features <= declared), f"{mask} is {'accepted' if built else 'refused'}"
