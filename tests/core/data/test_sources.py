"""Sources in shards: each sequence meets its own in every batch, and one without any owns none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.data.batch_loader import BatchLoader
from core.data.sequence_batch import SOURCE, SequenceBatch
from core.data.shards import TokenShards
from core.data.token_store import TokenStore
from core.errors import UserError

ROWS = {"train": [[1, 2, 3], [2], [3, 3]], "valid": [], "test": [[4, 1], [0], [], [5, 5, 5]]}
SOURCES = {"train": [[9, 9], [], [8]], "valid": [], "test": [[7, 6, 5, 4], [6], [5], []]}


@pytest.fixture
def shards(tmp_path: Path) -> TokenShards:
    return TokenShards.write(tmp_path / "shards", ROWS, "a", sources=SOURCES)


def sources_met(batch: SequenceBatch) -> list[list[int]]:
    """The source that each sequence of a batch owns."""
    memory = batch.memories[SOURCE]
    lengths = memory.batch.layout.lengths.tolist()
    rows = [row[:length] for row, length in zip(memory.batch.tokens.tolist(), lengths, strict=True)]
    return [rows[owner] if owner >= 0 else [] for owner in memory.owner.tolist()]


def check_round_trip(shards: TokenShards) -> None:
    """The law of sources: each sequence meets its own in every batch, from any split and any layout."""
    for name in ("train", "test"):
        split = shards.split(name)
        for packed in (False, True):
            loader = BatchLoader(split, 8, packed=packed, fill=77)
            seen = 0
            for rows, batch in zip(loader.batches(0), loader, strict=True):
                assert sources_met(batch) == [SOURCES[name][row] for row in rows]
                assert batch.memories[SOURCE].batch.layout.shape[0] == len(rows) == batch.layout.count
                seen += len(rows)
            assert seen == len(split)


def test_shards_give_each_sequence_its_own(shards: TokenShards) -> None:
    check_round_trip(shards)
    assert sorted(path.name for path in shards.folder.iterdir()) == [
        "meta.json",
        "offsets.npy",
        "source_offsets.npy",
        "sources.bin",
        "tokens.bin",
    ]


@pytest.mark.parametrize("fault", ["sources_of_the_first", "owners_turned", "none_owns_a_row"])
def test_the_law_catches_a_planted_fault(fault: str, shards: TokenShards, monkeypatch: pytest.MonkeyPatch) -> None:
    split, memories = TokenShards.split, BatchLoader._memories
    if fault == "sources_of_the_first":

        def first(self: TokenShards, name: str) -> TokenShards:
            assert self.sources is not None
            return replace(split(self, name), sources=self.sources.part(0, self.counts[name]))

        monkeypatch.setattr(TokenShards, "split", first)
    else:
        change: Callable[[torch.Tensor], torch.Tensor] = (
            (lambda owner: owner.roll(1)) if fault == "owners_turned" else (lambda owner: owner * 0)
        )

        def changed(self: BatchLoader, indices: np.ndarray) -> object:
            found = memories(self, indices)
            return {name: replace(memory, owner=change(memory.owner)) for name, memory in found.items()}

        monkeypatch.setattr(BatchLoader, "_memories", changed)
    with pytest.raises(AssertionError):
        check_round_trip(shards)


def test_shards_without_sources_keep_their_hash_and_give_no_memory(tmp_path: Path, shards: TokenShards) -> None:
    plain = TokenShards.write(tmp_path / "plain", ROWS, "a")
    assert plain.sources is None and plain.sha256 != shards.sha256
    assert "sources" not in json.loads((plain.folder / "meta.json").read_text())
    assert next(iter(BatchLoader(plain.split("train"), 8))).memories == {}
    again = TokenShards.write(shards.folder, ROWS, "a")
    assert again.sources is None and again.sha256 == plain.sha256
    assert not (shards.folder / "sources.bin").exists()


def test_as_many_sources_as_sequences(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as many sources as sequences"):
        TokenShards.write(tmp_path, ROWS, "a", sources={**SOURCES, "train": [[1]]})
    assert not (tmp_path / "meta.json").exists()


def _meta(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        change(meta)
        (folder / "meta.json").write_text(json.dumps(meta))

    return edit


def _flip(folder: Path) -> None:
    data = bytearray((folder / "sources.bin").read_bytes())
    data[0] ^= 1
    (folder / "sources.bin").write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (_flip, "do not match the sha256"),
    "forgotten": (_meta(lambda meta: meta.pop("sources")), "do not match the sha256"),
    "of_another_kind": (_meta(lambda meta: meta.update(sources="yes")), "sources is either true or not there"),
    "lost": (lambda folder: (folder / "sources.bin").unlink(), r"sources\.bin is missing"),
    "offsets_lost": (lambda folder: (folder / "source_offsets.npy").unlink(), r"source_offsets\.npy is missing"),
    "offsets_of_others": (
        lambda folder: np.save(folder / "source_offsets.npy", np.array([0, 10])),
        r"sources\.bin, source_offsets\.npy and meta\.json do not belong together",
    ),
    "offsets_fall": (
        lambda folder: np.save(folder / "source_offsets.npy", np.array([0, 3, 2, 3, 7, 8, 9, 9])),
        "do not match the sha256",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_the_users_error(name: str, shards: TokenShards) -> None:
    damage, message = DAMAGE[name]
    damage(shards.folder)
    with pytest.raises(UserError, match=message) as caught:
        TokenShards.open(shards.folder)
    assert "\n" not in str(caught.value)


def test_long_sources_fit_into_the_budget_too(tmp_path: Path) -> None:
    rows = [[1]] * 40
    shards = TokenShards.write(
        tmp_path, {"train": rows}, "a", sources={"train": [[2] * (1 + n % 8) for n in range(40)]}
    )
    for packed in (False, True):
        for batch in BatchLoader(shards, 16, packed=packed):
            assert int(batch.memories[SOURCE].batch.layout.lengths.sum()) <= 16
    with pytest.raises(UserError, match="the source of sequence 8 has 8 tokens, more than batch_tokens=7: raise it"):
        BatchLoader(shards, 7).batches(0)


def test_a_part_of_a_store_counts_its_own_tokens(shards: TokenShards) -> None:
    store = shards.split("test").sources
    assert isinstance(store, TokenStore)
    assert store.token_counts(10).tolist() == [0, 0, 0, 0, 1, 2, 2, 1, 0, 0]
    assert [row.tolist() for row in store] == SOURCES["test"] and store[-2].tolist() == [5]
