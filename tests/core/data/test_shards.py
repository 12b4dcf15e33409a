"""Token shards: what is written is read, and nothing damaged or foreign passes."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.data.shards import TokenShards
from core.errors import UserError

SPLITS = {"train": [[1, 2, 3], [], [65535, 0]], "valid": [], "test": [[7], [8, 9]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TokenShards.write(tmp_path / "shards", SPLITS, "a" * 64)
    return tmp_path / "shards"


def test_round_trip(folder: Path) -> None:
    shards = TokenShards.open(folder, "a" * 64)
    assert [row.tolist() for row in shards] == SPLITS["train"] + SPLITS["test"]
    for name, rows in SPLITS.items():
        split = shards.split(name)
        assert [row.tolist() for row in split] == rows
        assert split.lengths.tolist() == [len(row) for row in rows]
    assert shards[-1].tolist() == [8, 9]
    assert isinstance(shards.store.tokens, np.memmap)
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "offsets.npy", "tokens.bin"]


def test_tokens_are_little_endian_uint16(folder: Path) -> None:
    assert (folder / "tokens.bin").read_bytes()[:6] == b"\x01\x00\x02\x00\x03\x00"
    assert json.loads((folder / "meta.json").read_text())["counts"] == {"train": 3, "valid": 0, "test": 2}


def test_all_empty(tmp_path: Path) -> None:
    shards = TokenShards.write(tmp_path, {"train": [[], []]}, "a")
    assert len(shards) == 2 and shards[1].tolist() == []


def test_writing_again_replaces(folder: Path) -> None:
    TokenShards.write(folder, {"train": [[5]]}, "b")
    assert [row.tolist() for row in TokenShards.open(folder)] == [[5]]


def test_a_write_cut_short_is_not_opened(folder: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield [1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenShards.write(folder, {"train": rows()}, "b")
    with pytest.raises(UserError, match=r"meta\.json is missing"):
        TokenShards.open(folder)


@pytest.mark.parametrize("sequence", [[-1], [65536]])
def test_ids_that_do_not_fit(tmp_path: Path, sequence: list[int]) -> None:
    with pytest.raises(ValueError, match="0 to 65535"):
        TokenShards.write(tmp_path, {"train": [sequence]}, "a")


def _flip_token(folder: Path) -> None:
    data = bytearray((folder / "tokens.bin").read_bytes())
    data[0] ^= 1
    (folder / "tokens.bin").write_bytes(data)


def _cut(name: str, count: int):  # type: ignore[no-untyped-def]
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-count])


def _meta(**change: object):  # type: ignore[no-untyped-def]
    def edit(folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**meta, **change}))

    return edit


def _offsets(*values: int, dtype: type = np.int64):  # type: ignore[no-untyped-def]
    return lambda folder: np.save(folder / "offsets.npy", np.array(values, dtype=dtype))


DAMAGE = {
    "token_flipped": (_flip_token, "sha256"),
    "half_a_token_cut": (_cut("tokens.bin", 1), "whole number"),
    "token_cut": (_cut("tokens.bin", 2), "belong together"),
    "offsets_cut": (_cut("offsets.npy", 8), "not an array of offsets"),
    "offsets_of_floats": (_offsets(0, 8, dtype=np.float64), "flat int64"),
    "offsets_fall": (_offsets(0, 3, 2, 5, 6, 8), "sha256"),
    "offsets_of_others": (_offsets(0, 8), "belong together"),
    "offsets_pickled": (
        lambda folder: np.save(folder / "offsets.npy", np.array([{}], dtype=object), allow_pickle=True),
        "not an array of offsets",
    ),
    "offsets_are_html": (lambda folder: (folder / "offsets.npy").write_text("<html>"), "not an array of offsets"),
    "meta_is_html": (lambda folder: (folder / "meta.json").write_text("<html>"), "not JSON"),
    "meta_is_a_list": (lambda folder: (folder / "meta.json").write_text("[]"), "schema None"),
    "newer_schema": (_meta(schema=2), "schema 2, expected 1"),
    "counts_negative": (_meta(counts={"train": -1}), "counts"),
    "counts_text": (_meta(counts="3"), "counts"),
    "no_tokenizer": (_meta(tokenizer_sha256=None), "tokenizer_sha256 is missing"),
    "no_tokens": (lambda folder: (folder / "tokens.bin").unlink(), r"tokens\.bin is missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_the_users_error(folder: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        TokenShards.open(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_foreign_folders_tokenizers_and_splits(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder of token shards"):
        TokenShards.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="another tokenizer"):
        TokenShards.open(folder, "b" * 64)
    with pytest.raises(UserError, match="no split 'dev', only train, valid, test"):
        TokenShards.open(folder).split("dev")


def test_an_empty_split_is_refused_by_name(tmp_path: Path) -> None:
    shards = TokenShards.write(tmp_path, {"train": [[1]], "valid": []}, "x")
    shards.require("train")
    with pytest.raises(UserError, match="the split valid is empty"):
        shards.require("train", "valid")
    with pytest.raises(UserError, match="no split 'test'"):
        shards.require("test")
