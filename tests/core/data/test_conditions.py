"""Conditions: what is stored comes into batches by the same description everywhere, and gaps stay gaps."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.data import conditions
from core.data.batch_loader import BatchLoader
from core.data.conditions import Column, Conditions
from core.data.noise import Noise
from core.data.shards import TokenShards
from core.errors import UserError

NAN = math.nan
COLUMNS = (Column("cell", ("HepG2", "K562")), Column("activity"))
VALUES = np.array([[0, 1.0], [1, 3.0], [1, NAN], [NAN, 5.0], [NAN, NAN]])
ROWS = [[1, 2, 3], [2], [3, 3], [4, 1], [0]]


@pytest.fixture
def shards(tmp_path: Path) -> TokenShards:
    splits = {"train": ROWS[:3], "valid": [], "test": ROWS[3:]}
    return TokenShards.write(tmp_path / "shards", splits, "a", COLUMNS, VALUES)


def fitted() -> Conditions:
    return Conditions.fitted(COLUMNS, VALUES)


def test_classes_are_one_hot_and_scalars_standardised() -> None:
    found = fitted()
    assert found.width == 4
    high = 2 / found.columns[1].deviation
    expected = [[1, 0, -high, 1], [0, 1, 0, 1], [0, 1, 0, 0], [0, 0, high, 1], [NAN] * 4]
    torch.testing.assert_close(found.encode(VALUES), torch.tensor(expected), equal_nan=True)
    (scalar,) = (column for column in found.columns if not column.labels)
    assert (scalar.mean, scalar.low, scalar.high) == (3.0, 1.0, 5.0)
    assert scalar.deviation == pytest.approx(math.sqrt(8 / 3))


def test_the_class_column_is_found_among_others() -> None:
    assert fitted().class_channels == range(0, 2)
    assert Conditions(COLUMNS[::-1]).class_channels == range(2, 4)
    assert Conditions(COLUMNS[1:]).class_channels is None


def check_round_trip(shards: TokenShards) -> None:
    """The law of conditions: each sequence meets its own in every batch, from any split and any layout."""
    description = Conditions.of(json.loads(json.dumps(fitted().config())))
    assert description is not None
    wanted = description.encode(VALUES)
    for name, start in (("train", 0), ("test", 3)):
        split = shards.split(name)
        for packed in (False, True):
            loader = BatchLoader(split, 8, packed=packed, conditions=description)
            for rows, batch in zip(loader.batches(0), loader, strict=True):
                assert batch.condition is not None
                assert torch.equal(batch.condition.nan_to_num(-7), wanted[rows + start].nan_to_num(-7))


def test_shards_give_each_sequence_its_own(shards: TokenShards) -> None:
    check_round_trip(shards)


def test_the_law_catches_a_planted_fault(shards: TokenShards, monkeypatch: pytest.MonkeyPatch) -> None:
    true = TokenShards.split
    monkeypatch.setattr(TokenShards, "split", lambda self, name: replace(true(self, name), conditions=self.conditions))
    with pytest.raises(AssertionError):
        check_round_trip(shards)


def test_without_a_description_or_without_columns_there_is_no_condition(tmp_path: Path, shards: TokenShards) -> None:
    assert next(iter(BatchLoader(shards, 8))).condition is None
    plain = TokenShards.write(tmp_path / "plain", {"train": ROWS}, "a")
    assert next(iter(BatchLoader(plain, 8, conditions=fitted()))).condition is None


def test_shards_without_columns_keep_their_hash(tmp_path: Path, shards: TokenShards) -> None:
    plain = TokenShards.write(tmp_path / "plain", {"train": ROWS[:3], "valid": [], "test": ROWS[3:]}, "a")
    assert not (plain.folder / "conditions.npy").exists() and plain.sha256 != shards.sha256
    again = TokenShards.write(shards.folder, {"train": ROWS[:3], "valid": [], "test": ROWS[3:]}, "a")
    assert not again.columns and again.sha256 == plain.sha256


def _relabel(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    meta["columns"][0]["labels"].reverse()
    (folder / "meta.json").write_text(json.dumps(meta))


DAMAGE = {
    "changed": (lambda folder: np.save(folder / "conditions.npy", VALUES + 1), "do not match the sha256"),
    "labels_swapped": (_relabel, "do not match the sha256"),
    "cut": (lambda folder: np.save(folder / "conditions.npy", VALUES[:3]), "not a float64 array of 5 sequences"),
    "missing": (lambda folder: (folder / "conditions.npy").unlink(), "not an array of conditions"),
    "pickled": (
        lambda folder: np.save(folder / "conditions.npy", np.array([{}], dtype=object), allow_pickle=True),
        "not an array of conditions",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_the_users_error(name: str, shards: TokenShards) -> None:
    damage, message = DAMAGE[name]
    damage(shards.folder)
    with pytest.raises(UserError, match=message):
        TokenShards.open(shards.folder)


def test_other_data_are_read_by_name() -> None:
    """Columns and labels in another order, and one column that is missing."""
    found = fitted().matching((Column("cell", ("K562", "HepG2")),), np.array([[0.0], [1.0], [NAN]]))
    np.testing.assert_array_equal(found, [[1, NAN], [0, NAN], [NAN, NAN]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((Column("cell", ("HepG2", "A549")),), "no class 'A549' was trained, known are HepG2, K562"),
        ((Column("cel", ("HepG2",)),), "no condition 'cel': did you mean 'cell'"),
        ((Column("activity", ("x",)),), "a class on one side and a scalar on the other"),
    ],
)
def test_foreign_columns_are_refused(columns: tuple[Column, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitted().matching(columns, np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (Column("cell", ("only",)), [0.0, 0.0], "every sequence is only"),
        (Column("cell", ("a", "b")), [0.0, NAN], "no training sequence is b"),
        (Column("x"), [1.0, 1.0, NAN], "do not differ"),
        (Column("x"), [NAN], "do not differ"),
    ],
)
def test_what_cannot_be_learnt_is_refused(column: Column, values: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Conditions.fitted((column,), np.array(values)[:, None])


@pytest.mark.parametrize(
    ("wanted", "row"),
    [
        ({"class": "K562"}, [1, NAN]),
        ({"cell": "HepG2", "activity": "3"}, [0, 3]),
        ({"activity": "2.5"}, [NAN, 2.5]),
    ],
)
def test_asking(wanted: dict[str, str], row: list[float]) -> None:
    found, outside = fitted().ask(wanted)
    assert torch.equal(found, fitted().encode(np.array([row], dtype=float))) and not outside


def test_a_scalar_outside_what_was_trained_is_told() -> None:
    for text, told in (("5", []), ("5.5", ["activity 5.5 is outside the trained 1 to 5"])):
        assert fitted().ask({"activity": text})[1] == told


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"class": "A549"}, "no class 'A549' was trained, known are HepG2, K562"),
        ({"activty": "1"}, "was not trained on it: did you mean 'activity'"),
        ({"activity": "high"}, "'high' is no number"),
        ({"activity": "inf"}, "'inf' is no number"),
    ],
)
def test_asking_for_what_there_is_not(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitted().ask(wanted)


@pytest.mark.parametrize("config", [[], [{}], [{"name": 1}], "x", {"name": "x"}, [{"name": "x", "deviation": 0.0}]])
def test_a_description_of_something_else_is_refused(config: object) -> None:
    with pytest.raises(UserError, match="not a list of class and scalar columns"):
        Conditions.of(config)


def shares(description: Conditions, share: float) -> tuple[float, float, float]:
    """Of 20,000 sequences: how many are unconditional, and lack the class alone or the scalar alone."""
    count = 20_000
    row, _ = description.ask({"cell": "K562", "activity": "4"} if len(description.columns) > 1 else {"cell": "K562"})
    found = description.dropped(row.expand(count, -1), Noise.start(0, torch.arange(count)), share)
    gone = found.isnan().any(1)
    assert torch.equal(gone, found.isnan().all(1))
    kept = found[~gone]
    scalar = (kept[:, 3] == 0).sum() if kept.shape[1] > 2 else 0
    return float(gone.float().mean()), float((kept[:, :2] == 0).all(1).sum() / count), float(scalar / count)


def check_dropout(share: float) -> None:
    """Within four standard errors of 20,000 draws."""
    both = fitted()
    alone = Conditions(both.columns[:1])
    error = 4 * math.sqrt(0.25 / 20_000)
    assert abs(shares(alone, share)[0] - share) < error
    whole, no_class, no_scalar = shares(both, share)
    assert abs(whole - (share + (1 - share) * share**2)) < error
    assert abs(no_class - (1 - share) * share * (1 - share)) < error
    assert abs(no_scalar - (1 - share) * share * (1 - share)) < error


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_dropout_takes_the_share(share: float) -> None:
    check_dropout(share)


def test_dropout_of_another_share_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    true = conditions.Conditions.dropped
    monkeypatch.setattr(conditions.Conditions, "dropped", lambda self, c, noise, share: true(self, c, noise, share / 2))
    with pytest.raises(AssertionError):
        check_dropout(0.5)
