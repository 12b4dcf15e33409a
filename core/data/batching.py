"""Which sequences go into which batch: every epoch each one exactly once, from (seed, epoch) alone."""

from __future__ import annotations

import numpy as np

from core.errors import UserError

# Bins are filled inside windows of this many budgets of tokens: large enough that one part-filled
# bin a window is under 2 % of the tokens, small enough that batches differ between epochs.
_WINDOW = 64
_PADDING = 0.05


def bucketed_batches(lengths: np.ndarray, budget: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Batches of like lengths, each at most `budget` tokens with its padding, in random order.

    A batch also ends where the next length would push its padding over 5 %, which large budgets
    meet among the few longest sequences. Raises `UserError` for a sequence longer than the budget.
    """
    random = _generator(lengths, budget, seed, epoch)
    order = random.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    batches, start, tokens = [], 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        # Lengths ascend, so the sequence at hand is the width; an empty one still takes a row.
        places = (place - start + 1) * max(1, length)
        if places > budget or (places - tokens - length > _PADDING * places and tokens):
            batches.append(order[start:place])
            start, tokens = place, 0
        tokens += length
    if start < len(order):
        batches.append(order[start:])
    return [batches[place] for place in random.permutation(len(batches))]


def packed_batches(lengths: np.ndarray, budget: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Bins of at most `budget` tokens by first-fit decreasing, in random order.

    Raises `UserError` for a sequence longer than the budget.
    """
    random = _generator(lengths, budget, seed, epoch)
    order = random.permutation(len(lengths))
    window = lengths[order].cumsum() // (_WINDOW * budget)
    batches = []
    for part in np.split(order, np.flatnonzero(np.diff(window)) + 1) if len(order) else []:
        batches += _first_fit_decreasing(part, lengths, budget)
    return [batches[place] for place in random.permutation(len(batches))]


def divisible(batches: list[np.ndarray], world: int) -> list[np.ndarray]:
    """The same sequences in a number of batches that `world` ranks can share evenly.

    The batches of most sequences are halved; nothing is dropped or repeated.
    """
    batches = list(batches)
    while len(batches) % world:
        largest = max(range(len(batches)), key=lambda place: len(batches[place]))
        whole = batches[largest]
        if len(whole) < 2:
            raise UserError(f"{len(batches)} single sequences cannot be shared by {world} devices: use fewer devices")
        batches[largest] = whole[: len(whole) // 2]
        batches.append(whole[len(whole) // 2 :])
    return batches


def _generator(lengths: np.ndarray, budget: int, seed: int, epoch: int) -> np.random.Generator:
    if len(lengths) and lengths.max() > budget:
        place = int(lengths.argmax())
        raise UserError(f"sequence {place + 1} has {lengths[place]} tokens, more than batch_tokens={budget}: raise it")
    return np.random.default_rng([seed, epoch])


def _first_fit_decreasing(part: np.ndarray, lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Put each sequence, longest first, into the first bin that still holds it."""
    room = np.zeros(len(part), dtype=np.int64)
    bins: list[list[int]] = []
    for index in part[np.argsort(-lengths[part], kind="stable")]:
        fits = room[: len(bins)] >= lengths[index]
        chosen = int(fits.argmax()) if fits.any() else len(bins)
        if chosen == len(bins):
            bins.append([])
            room[chosen] = budget
        bins[chosen].append(int(index))
        room[chosen] -= lengths[index]
    return [np.asarray(bin_, dtype=np.int64) for bin_ in bins]
