"""Groups of near-duplicates, and splits that never cut one: for sequences of any token alphabet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from core.errors import UserError

# Two sequences are alike where the one with fewer n-grams has this share of its own in the other.
_ALIKE = 0.5
# Random n-grams that a sequence may be expected to share with another of the longest length.
_CHANCE = 0.01
_EDGE = -1


def clusters(sequences: Sequence[Sequence[int]]) -> Int[np.ndarray, " N"]:
    """The cluster of each sequence, numbered from 0.

    Alike are two sequences that share at least half of the n-grams of the one with fewer, ends
    counted; a cluster is whatever chains of alike sequences join. n grows with the longest sequence
    until few n-grams are shared by chance.
    """
    letters = max(2, len({token for sequence in sequences for token in sequence}))
    longest = max((len(sequence) for sequence in sequences), default=0)
    n = 2
    while letters**n * _CHANCE < longest:
        n += 1
    places: dict[tuple[int, ...], int] = {}
    columns: list[int] = []
    ends = [0]
    for sequence in sequences:
        padded = [_EDGE] * (n - 1) + list(sequence) + [_EDGE] * (n - 1)
        grams = {tuple(padded[start : start + n]) for start in range(len(padded) - n + 1)}
        columns += [places.setdefault(gram, len(places)) for gram in grams]
        ends.append(len(columns))
    shape = (len(sequences), max(1, len(places)))
    has = csr_matrix((np.ones(len(columns), dtype=np.int32), columns, ends), shape=shape)
    shared = (has @ has.T).tocoo()
    sizes = np.diff(ends)
    alike = shared.data >= _ALIKE * np.minimum(sizes[shared.row], sizes[shared.col])
    graph = csr_matrix((alike, (shared.row, shared.col)), shape=shared.shape)
    graph.eliminate_zeros()
    return connected_components(graph, directed=False)[1].astype(np.int64)


def linked(items: Iterable[Iterable[Hashable]]) -> Int[np.ndarray, " N"]:
    """Groups of whatever shares an item, directly or through others, numbered from 0."""
    count, first = 0, dict[Hashable, int]()
    edges: set[tuple[int, int]] = set()
    for row, own in enumerate(items):
        count = row + 1
        edges.update((row, first.setdefault(item, row)) for item in own)
    ends = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)
    graph = csr_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def joined(groups: Int[np.ndarray, " N"], others: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The finest grouping that parts no group of either."""
    # Numbers of the two never meet.
    return linked(zip(groups.tolist(), (-1 - others).tolist(), strict=True))


def held_out(groups: Int[np.ndarray, " N"], share: float, seed: int) -> Int[np.ndarray, " N"]:
    """0 train, 1 validation, 2 test for each sequence: about `share` for either of the latter, whole groups only.

    The largest group is always trained on. Raises `UserError` for fewer than three groups.
    """
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 3:
        raise UserError(
            f"the sequences form {len(names)} group(s) of near-duplicates, and three are needed to hold some out: "
            "add other sequences, or give the file a column split of train, valid and test"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[order != sizes.argmax()]
    room = {1: share * len(groups), 2: share * len(groups)}
    chosen = np.zeros(len(names), dtype=np.int64)
    for split in (2, 1):
        for group in order:
            if not chosen[group] and sizes[group] <= room[split]:
                chosen[group] = split
                room[split] -= int(sizes[group])
        if not (chosen == split).any():
            left = [group for group in order if not chosen[group]]
            chosen[min(left, key=lambda group: sizes[group])] = split
    return chosen[np.searchsorted(names, groups)]
