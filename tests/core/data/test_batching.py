"""Batches: every sequence once an epoch, little padding, the same again from (seed, epoch)."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from core.data.batch_loader import BatchLoader
from core.data.batching import bucketed_batches, divisible, packed_batches
from core.data.datamodule import ShardDataModule
from core.data.shards import TokenShards
from core.errors import UserError

ARRANGEMENTS = {"bucketed": bucketed_batches, "packed": packed_batches}
arranged = pytest.mark.parametrize("name", ARRANGEMENTS)


@pytest.fixture(scope="module")
def peptide_lengths(motif_data: Path) -> np.ndarray:
    with gzip.open(motif_data / "bio/peptides/corpus.csv.gz", "rt", encoding="utf-8") as stream:
        rows = [len(row["sequence"]) for row in csv.DictReader(stream) if row["split"] == "train"]
    assert len(rows) == 11_625
    return np.array(rows)


def width(name: str, lengths: np.ndarray, batch: np.ndarray, budget: int) -> int:
    """Places a batch takes, padding included."""
    return budget if name == "packed" else len(batch) * int(lengths[batch].max())


@arranged
@pytest.mark.parametrize("budget", [2048, 4096, 16384])
def test_padding_on_the_peptide_corpus(name: str, budget: int, peptide_lengths: np.ndarray) -> None:
    batches = ARRANGEMENTS[name](peptide_lengths, budget, seed=1, epoch=0)
    places = sum(width(name, peptide_lengths, batch, budget) for batch in batches)
    padding = 1 - peptide_lengths.sum() / places
    assert 0 <= padding <= 0.05, f"{padding:.2%}"
    assert len(batches) <= max(40, 1.25 * peptide_lengths.sum() / budget)


@arranged
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("count", [0, 1, 2, 7, 80, 1000])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_sequence_once_within_the_budget(name: str, count: int, seed: int, world: int) -> None:
    sizes = np.random.default_rng(seed).integers(0, 31, count)
    batches = ARRANGEMENTS[name](sizes, 30, seed, epoch=2)
    # Batches of one sequence each cannot be dealt out evenly; any other set can.
    if len(batches) + world <= len(sizes):
        batches = divisible(batches, world)
        assert len(batches) % world == 0
    assert sorted(np.concatenate([*batches, np.zeros(0, dtype=np.int64)]).tolist()) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch)
        used = sizes[batch].sum() if name == "packed" else len(batch) * sizes[batch].max()
        assert used <= 30


@arranged
def test_deterministic_in_seed_and_epoch(name: str, peptide_lengths: np.ndarray) -> None:
    arrange = ARRANGEMENTS[name]

    def plan(seed: int, epoch: int) -> list[tuple[int, ...]]:
        return [tuple(batch) for batch in arrange(peptide_lengths, 4096, seed, epoch)]

    assert plan(1, 0) == plan(1, 0)
    assert len({frozenset(map(frozenset, plan(*key))) for key in ((1, 0), (1, 1), (2, 0))}) == 3


@arranged
def test_too_long_a_sequence(name: str) -> None:
    with pytest.raises(UserError, match="sequence 2 has 9 tokens, more than batch_tokens=8"):
        ARRANGEMENTS[name](np.array([3, 9]), 8, 0, 0)


def test_first_fit_decreasing() -> None:
    bins = packed_batches(np.array([4, 8, 1, 4, 2, 1]), 10, 0, 0)
    assert sorted(sorted(np.array([4, 8, 1, 4, 2, 1])[bin_].tolist()) for bin_ in bins) == [[1, 1, 4, 4], [2, 8]]


def test_more_devices_than_sequences() -> None:
    with pytest.raises(UserError, match="use fewer devices"):
        divisible([np.array([0])], 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lengths = np.random.default_rng(3).integers(0, 12, 200)
    rows = [[number] * int(length) for number, length in enumerate(lengths)]
    TokenShards.write(tmp_path, {"train": rows, "valid": rows[:20], "test": rows[:7]}, "a")
    return tmp_path


def rows_of(loader: BatchLoader) -> list[list[int]]:
    """The sequences of an epoch, sorted."""
    rows = []
    for batch in loader:
        tokens, owners = batch.tokens, batch.layout.owners
        rows += [tokens[owners == owner].tolist() for owner in range(batch.layout.count)]
        assert (tokens[owners < 0] == 999).all()
    return sorted(rows)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch(folder: Path, packed: bool, world: int) -> None:
    shards = TokenShards.open(folder).split("train")
    ranks = [BatchLoader(shards, 64, packed=packed, fill=999, rank=rank, world=world) for rank in range(world)]
    assert len({len(loader) for loader in ranks}) == 1
    assert sorted(sum((rows_of(loader) for loader in ranks), [])) == sorted(row.tolist() for row in shards)


@pytest.mark.parametrize("packed", [False, True])
def test_resumed_inside_an_epoch(folder: Path, packed: bool) -> None:
    shards = TokenShards.open(folder).split("train")
    loader, again = (BatchLoader(shards, 64, packed=packed, seed=4, epoch=lambda: 3) for _ in range(2))
    whole = [batch.tokens for batch in loader]
    stream = iter(loader)
    for _ in range(5):
        next(stream)
    again.load_state_dict(loader.state_dict())
    rest = [batch.tokens for batch in again]
    assert len(rest) == len(whole) - 5
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[5:], strict=True))
    assert len(list(again)) == len(whole)


def test_resumed_under_other_conditions(folder: Path) -> None:
    shards = TokenShards.open(folder).split("train")
    state = BatchLoader(shards, 64).state_dict()
    with pytest.raises(UserError, match="world=1, now 2|batches="):
        BatchLoader(shards, 64, world=2).load_state_dict(state)
    with pytest.raises(UserError, match="batches="):
        BatchLoader(shards, 128).load_state_dict(state)


def test_datamodule_splits(folder: Path) -> None:
    data = ShardDataModule(folder, 64, fill=999)
    shards = TokenShards.open(folder)
    for split, loader in (
        ("train", data.train_dataloader()),
        ("valid", data.val_dataloader()),
        ("test", data.test_dataloader()),
    ):
        assert rows_of(loader) == sorted(row.tolist() for row in shards.split(split))
    with pytest.raises(UserError, match="another tokenizer"):
        ShardDataModule(folder, 64, tokenizer_sha256="b")
