"""Clusters of near-duplicates: none is parted, and unlike sequences are not joined."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from core.data import clusters as module
from core.data.clusters import clusters, held_out, joined, linked
from core.errors import UserError

ALPHABETS = {"residues": (20, 25), "bases": (4, 150)}
every_alphabet = pytest.mark.parametrize("alphabet", ALPHABETS)


def families(alphabet: str, count: int = 12, members: int = 5) -> list[list[int]]:
    """`count` random sequences and, behind each, its mutants: one token in 25 is another."""
    letters, length = ALPHABETS[alphabet]
    source = random.Random(0)
    found = []
    for _ in range(count):
        parent = [source.randrange(letters) for _ in range(length)]
        for member in range(members):
            places = set(source.sample(range(length), max(1, length // 25))) if member else set()
            found.append([source.randrange(letters) if place in places else t for place, t in enumerate(parent)])
    return found


def check_families_are_found(alphabet: str) -> None:
    groups = clusters(families(alphabet)).reshape(12, 5)
    assert (groups == groups[:, :1]).all(), "a family is parted"
    assert len(set(groups[:, 0].tolist())) == 12, "two families are joined"


@every_alphabet
def test_families_are_found(alphabet: str) -> None:
    check_families_are_found(alphabet)


@pytest.mark.parametrize("faults", [("_ALIKE", 1.0), ("_ALIKE", 0.001), ("_CHANCE", 1e9)], ids=str)
def test_another_threshold_is_caught(faults: tuple[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, *faults)
    with pytest.raises(AssertionError):
        check_families_are_found("bases")


def test_chains_fragments_and_short_sequences() -> None:
    whole = list(range(20))
    shifted = [*whole[6:], *range(20, 26)]
    further = [*shifted[6:], *range(26, 32)]
    # The first and the last share less than half, but the middle one is like both.
    assert len(set(clusters([whole, shifted, further]).tolist())) == 1
    assert len(set(clusters([whole, further]).tolist())) == 2
    assert len(set(clusters([whole, whole[5:15]]).tolist())) == 1
    assert clusters([[1], [1], [2], []]).tolist() == [0, 0, 1, 2]
    assert clusters([]).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_whole_clusters_are_held_out_in_about_the_share(seed: int) -> None:
    sizes = [30, *[5] * 8, *[2] * 10, *[1] * 10]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    groups = groups[np.random.default_rng(seed).permutation(len(groups))]
    splits = held_out(groups, 0.2, seed)
    for one, other in itertools.combinations(range(3), 2):
        assert not set(groups[splits == one]) & set(groups[splits == other])
    assert (splits[groups == 0] == 0).all(), "the largest cluster is trained on"
    for split in (1, 2):
        assert 0.15 * len(groups) <= (splits == split).sum() <= 0.2 * len(groups)
    assert np.array_equal(splits, held_out(groups, 0.2, seed))


def test_large_clusters_still_leave_something_held_out() -> None:
    splits = held_out(np.repeat([0, 1, 2], [50, 40, 30]), 0.1, 0)
    assert set(splits.tolist()) == {0, 1, 2}


def test_too_few_clusters_are_refused() -> None:
    with pytest.raises(UserError, match=r"form 2 group\(s\) of near-duplicates"):
        held_out(np.array([0, 0, 1, 1]), 0.2, 0)


def test_whatever_shares_an_item_is_linked() -> None:
    items = ["ab", "c", "", "bd", "e", "dc", "", "e"]
    assert linked(items).tolist() == [0, 0, 1, 0, 2, 0, 3, 2]
    assert linked([]).tolist() == []


def test_joined_groups_part_neither_grouping() -> None:
    one, other = np.array([0, 0, 1, 2, 3, 4]), np.array([5, 1, 1, 2, 0, 2])
    found = joined(one, other)
    assert [sorted(np.flatnonzero(found == group)) for group in dict.fromkeys(found.tolist())] == [
        [0, 1, 2],
        [3, 5],
        [4],
    ]
    assert len(joined(one[:0], other[:0])) == 0
