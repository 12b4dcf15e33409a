"""The laws of masks and of batching catch planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.data.layout import Layout
from core.data.mask import MaskSpec
from tests.core.data import test_batching as batching
from tests.core.data import test_layout as layouts

LENGTHS = [3, 1, 5]
CAUSAL, FULL, WINDOW = MaskSpec("causal"), MaskSpec("full"), MaskSpec("causal", 2, 1)
BLOCK = MaskSpec("causal", block=2)


def _future_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MaskSpec, "allows", lambda self, query, key, same, prefix: same)


def _own_sequence_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = MaskSpec.mask_mod

    def changed(self: MaskSpec, layout: Layout) -> Any:
        return true(self, replace(layout, owners=layout.owners.clamp(max=0)))

    patch.setattr(MaskSpec, "mask_mod", changed)


def _sinks_lost(patch: pytest.MonkeyPatch) -> None:
    true = MaskSpec.mask_mod
    patch.setattr(MaskSpec, "mask_mod", lambda self, layout: true(replace(self, sinks=0), layout))


def _block_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = MaskSpec.allows
    patch.setattr(MaskSpec, "allows", lambda self, *rest: true(replace(self, block=None), *rest))


def _blocks_shifted(patch: pytest.MonkeyPatch) -> None:
    true = MaskSpec.allows
    patch.setattr(MaskSpec, "allows", lambda self, query, key, *rest: true(self, query + 1, key + 1, *rest))


def _reset_one_late(patch: pytest.MonkeyPatch) -> None:
    true = MaskSpec.resets
    patch.setattr(MaskSpec, "resets", lambda self, *a, **o: true(self, *a, **o).roll(1, 1))


def _never_reset(patch: pytest.MonkeyPatch) -> None:
    true = MaskSpec.resets
    patch.setattr(MaskSpec, "resets", lambda self, *a, **o: torch.zeros_like(true(self, *a, **o)))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (_future_seen, lambda: layouts.test_dense_against_the_definition(CAUSAL, LENGTHS)),
        (_future_seen, lambda: layouts.test_dense_against_the_definition(WINDOW, LENGTHS)),
        (_block_forgotten, lambda: layouts.test_dense_against_the_definition(BLOCK, LENGTHS)),
        (_block_forgotten, lambda: layouts.test_a_block_is_seen_by_all_of_its_tokens()),
        (_blocks_shifted, lambda: layouts.test_dense_against_the_definition(BLOCK, LENGTHS)),
        (_own_sequence_forgotten, lambda: layouts.test_mask_mod_equals_dense(FULL, LENGTHS)),
        (_sinks_lost, lambda: layouts.test_mask_mod_equals_dense(WINDOW, LENGTHS)),
        (_reset_one_late, lambda: layouts.test_resets_carry_exactly_what_the_mask_shows("causal", LENGTHS)),
        (_never_reset, lambda: layouts.test_resets_carry_exactly_what_the_mask_shows("causal", LENGTHS)),
        (_never_reset, lambda: layouts.test_resets_carry_exactly_what_the_mask_shows("full", LENGTHS)),
    ],
)
def test_masks(fault: Callable, law: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


def unsorted(lengths: np.ndarray, budget: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Batches in order of arrival: as many rows as the longest sequence lets in."""
    size = budget // int(lengths.max())
    return np.array_split(np.arange(len(lengths)), -(-len(lengths) // size))


def one_a_batch(lengths: np.ndarray, budget: int, seed: int, epoch: int) -> list[np.ndarray]:
    return list(np.arange(len(lengths))[:, None])


@pytest.mark.parametrize("fault", [unsorted, one_a_batch])
def test_padding(fault: Callable, motif_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import csv
    import gzip

    with gzip.open(motif_data / "bio/peptides/corpus.csv.gz", "rt", encoding="utf-8") as stream:
        lengths = np.array([len(row["sequence"]) for row in csv.DictReader(stream) if row["split"] == "train"])
    monkeypatch.setitem(batching.ARRANGEMENTS, "bucketed", fault)
    with pytest.raises(AssertionError):
        batching.test_padding_on_the_peptide_corpus("bucketed", 4096, lengths)
