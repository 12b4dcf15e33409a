"""Ehrlich functions as objectives: written states in, values or NaN out."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import UserError
from core.evaluation.ehrlich_function import SYMBOLS, EhrlichFunction
from core.guidance.items import targets
from core.guidance.objectives import registry
from core.guidance.objectives.ehrlich import Ehrlich
from core.guidance.pareto import ParetoArchive

SETTINGS = ("8", "20", "3", "4", "2", "5", "1.5")
FUNCTION = EhrlichFunction(8, 20, 3, 4, 2, 5, 1.5)


def written(rows: np.ndarray) -> list[str]:
    return ["".join(SYMBOLS[state] for state in row) for row in rows]


def test_values_are_the_function_and_motifs_its_factors() -> None:
    rows = np.concatenate([FUNCTION.draw(50), FUNCTION.optimum()[None]])
    values = Ehrlich(*SETTINGS).score(written(rows))
    assert np.array_equal(values, FUNCTION(rows)) and values[-1] == 1.0
    parts = [Ehrlich(*SETTINGS, str(number)).score(written(rows)) for number in (1, 2, 3)]
    assert np.allclose(np.prod(parts, axis=0), values, rtol=1e-12, atol=0) and all(part[-1] == 1.0 for part in parts)


def test_what_the_function_is_not_defined_for_has_no_value_and_enters_no_archive() -> None:
    best = "".join(written(FUNCTION.optimum()[None]))
    after = np.flatnonzero(~FUNCTION.allowed[FUNCTION.optimum()[-2]])
    assert len(after), "this function bans something after the last state but one"
    banned = best[:-1] + SYMBOLS[after[0]]
    sequences = [best, banned, best[:-1], best + "A", best[:-1] + "I", best[:-1] + "a", best[:-1] + "ä", ""]
    values = Ehrlich(*SETTINGS).score(sequences)
    assert values[0] == 1.0 and np.isnan(values[1:]).all()
    archive = ParetoArchive(1)
    assert archive.add(values[:, None], sequences) == 1 and archive.items == [best]


def test_the_front_of_all_motifs_is_one_point() -> None:
    asked = targets([f"ehrlich:8:20:3:4:2:5:0:{number}" for number in (1, 2, 3)], registry)
    rows = np.concatenate([FUNCTION.draw(50), FUNCTION.optimum()[None]])
    archive = ParetoArchive(3)
    archive.add(np.stack([target.objective.score(written(rows)) for target in asked], axis=1), written(rows))
    assert np.unique(archive.utilities, axis=0).tolist() == [[1.0, 1.0, 1.0]] and archive.hypervolume(0.0) == 1.0


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("ehrlich:2", "ehrlich states: '2' is not a whole number in 3..32"),
        ("ehrlich:x", "ehrlich states: 'x' is not"),
        ("ehrlich:4:0", "ehrlich length: '0' is not a whole number in 1..4096"),
        ("ehrlich:4:8:2:4:3", "objective 'ehrlich:4:8:2:4:3': quantization: 3 does not divide"),
        ("ehrlich:4:8:3:4:4", "3 motifs of 4 states need a length of 12"),
        ("ehrlich:4:8:2:4:4:-1", "ehrlich seed: '-1' is not a whole number"),
        ("ehrlich:4:8:2:4:4:0:5", "ehrlich epistasis: 5 is outside 0..4"),
        ("ehrlich:4:8:2:4:4:0:0:3", "ehrlich motif: '3' is not a whole number in 1..2"),
        ("ehrlich:4:8:2:4:4:0:0:1:9", "objective 'ehrlich:4:8:2:4:4:0:0:1:9'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(item: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        targets([item], registry)
    assert "\n" not in str(caught.value)
