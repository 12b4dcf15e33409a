"""The judge of classes: separable sets, unequal sets, words it never saw, real sites."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from core.evaluation.kmer_classifier import KmerClassifier


def words(rng: np.random.Generator, n: int, law: list[float]) -> list[str]:
    return ["".join(rng.choice(list("ACGT"), size=40, p=law)) for _ in range(n)]


A, B = [0.55, 0.15, 0.15, 0.15], [0.15, 0.15, 0.15, 0.55]


def test_it_tells_separable_classes_apart_and_knows_their_names() -> None:
    rng = np.random.default_rng(0)
    judge = KmerClassifier.fit({"x": words(rng, 60, A), "y": words(rng, 60, B)}, 2)
    assert judge.labels == ("x", "y")
    assert (judge.predict(words(rng, 200, A)) == 0).mean() > 0.98
    assert (judge.predict(words(rng, 200, B)) == 1).mean() > 0.98


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    rng = np.random.default_rng(1)
    near = [0.3, 0.25, 0.25, 0.2]
    judge = KmerClassifier.fit({"common": words(rng, 1500, near), "rare": words(rng, 50, near[::-1])}, 1)
    assert (judge.predict(words(rng, 400, near[::-1])) == 1).mean() > 0.6


def test_words_that_training_never_held_say_nothing() -> None:
    judge = KmerClassifier.fit({"x": ["AAAAAA", "AAAAAC"], "y": ["GGGGGG", "GGGGGT"]}, 3)
    plain = judge.predict(["AAAA", "GGGG"])
    assert plain.tolist() == [0, 1]
    assert judge.predict(["AAAATTTT", "GGGGTTCT"]).tolist() == [0, 1]


def test_three_classes() -> None:
    rng = np.random.default_rng(2)
    laws = {"a": A, "t": B, "g": [0.15, 0.15, 0.55, 0.15]}
    judge = KmerClassifier.fit({name: words(rng, 60, law) for name, law in laws.items()}, 2)
    for place, law in enumerate(laws.values()):
        assert (judge.predict(words(rng, 100, law)) == place).mean() > 0.95


@pytest.mark.parametrize("classes", [{}, {"x": ["ACGT"]}, {"x": ["ACGT"], "y": []}])
def test_too_few_classes_are_refused(classes: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        KmerClassifier.fit(classes, 2)


@pytest.mark.slow
def test_real_sites_are_told_apart_as_well_as_a_published_judge_does(motif_data: Path) -> None:
    """Test chromosome 1, never used in the choice of the penalty; 0.888 was measured by other code."""
    with gzip.open(motif_data / "bio/dna/dhs_hepg2_k562.csv.gz", "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))

    def sites(split: str, cell: str) -> list[str]:
        return [row["sequence"] for row in rows if (row["split"], row["cell"]) == (split, cell)]

    judge = KmerClassifier.fit({cell: sites("train", cell) for cell in ("HepG2", "K562")}, 6)
    right = [judge.predict(sites("test", cell)) == place for place, cell in enumerate(judge.labels)]
    assert np.concatenate(right).mean() >= 0.88
