"""Landscapes that are known whole: the real tables, and their best sequences by enumeration."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from core.errors import UserError
from core.evaluation.hypervolume import hypervolume, nondominated
from core.guidance.items import targets
from core.guidance.objectives.base import Scoreboard
from domains.bio.alphabet import DNA, reverse_complement
from domains.bio.objectives import gb1, registry
from domains.bio.objectives._lookup import _read
from domains.bio.objectives.planted_motif import PlantedMotif
from domains.bio.objectives.tfbind8 import FACTORS, Tfbind8
from domains.bio.tokenizers.dna import Dna
from domains.data_sets import named_set

EVERY = ["".join(word) for word in itertools.product("ACGT", repeat=8)]
MOLECULES = sorted(set(map(DNA.canonical, EVERY)))
# Factors, points of the exact front, its hypervolume above 0.
FRONTS = [
    (("SIX6", "CRX"), 18, 0.98684),
    (("EGR2", "POU3F4"), 14, 0.92807),
    (("SIX6", "CRX", "EGR2"), 75, 0.92586),
    (("HOXD13", "GFI1", "PAX4", "NKX2-5"), 85, 0.93915),
]


@pytest.fixture(scope="module")
def binding(motif_data: Path) -> Iterator[dict[str, Tfbind8]]:
    yield {factor: Tfbind8(factor) for factor in FACTORS}
    _read.cache_clear()


@pytest.mark.parametrize(("factors", "points", "volume"), FRONTS)
def test_the_exact_fronts_of_binding(factors, points, volume, binding):
    utilities = np.stack([binding[factor].score(MOLECULES) for factor in factors], axis=1)
    assert utilities.min(axis=0).tolist() == [0.0] * len(factors) and utilities.max(axis=0).tolist() == [1.0] * len(
        factors
    )
    front = utilities[nondominated(utilities)]
    assert len(front) == points and hypervolume(front, 0.0) == pytest.approx(volume, abs=5e-6)


def test_binding_is_the_measured_score_between_the_weakest_and_the_strongest(binding, motif_data):
    with gzip.open(motif_data / "bio" / "dna" / "tfbind8.csv.gz", "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    few = rows[::97]
    for factor in FACTORS:
        column = np.array([float(row[f"{factor}_REF_R1"]) for row in rows])
        expected = ((column - column.min()) / np.ptp(column))[::97]
        for strand in ("kmer", "revcomp"):
            assert np.allclose(binding[factor].score([row[strand] for row in few]), expected, rtol=0, atol=1e-12)


def test_binding_is_known_for_8_bases_alone(binding):
    assert np.isfinite(binding["GFI1"].score(EVERY)).all() and len(MOLECULES) == 32896
    assert np.isnan(binding["CRX"].score(["ACGTACG", "ACGTACGTA", "ACGTACGN", "acgtacgt", ""])).all()


def test_both_strands_of_a_molecule_are_one_call(binding):
    tokenizer = Dna()
    board = Scoreboard(targets(["tfbind8:CRX", "tfbind8:NKX2-5:min"], registry, tokenizer), tokenizer.canonical)
    scores = board.score(["AAAAAAAC", "GTTTTTTT", "ACGTACGT"])
    assert np.array_equal(scores[0], scores[1]) and board.calls == 2


def test_an_unknown_factor_is_refused_by_name(binding):
    with pytest.raises(UserError, match="tfbind8 factor: unknown 'NKX25': did you mean 'NKX2-5'"):
        targets(["tfbind8:NKX25"], registry)


def test_fitness_over_the_four_sites(motif_data):
    objective = gb1.Gb1()
    every = ["".join(word) for word in itertools.product("ACDEFGHIKLMNPQRSTVWY", repeat=4)]
    scores = objective.score(every)
    assert np.isfinite(scores).sum() == 149361 and np.nanmin(scores) >= 0
    assert every[int(np.nanargmax(scores))] == "FWAA" and np.nanmax(scores) == pytest.approx(8.762, abs=5e-4)
    assert np.nanpercentile(scores, 99.9) == pytest.approx(4.61, abs=5e-3)
    assert objective.score(["VDGV"]).tolist() == [1.0]
    _read.cache_clear()


def test_the_whole_domain_is_read_by_its_four_sites(motif_data):
    text = (motif_data / "bio" / "proteins" / "wildtypes.fasta").read_text()
    assert gb1.WILD_TYPE in text.splitlines() and "".join(gb1.WILD_TYPE[site] for site in gb1.SITES) == "VDGV"
    best, elsewhere = gb1._domain("FWAA"), "A" + gb1._domain("FWAA")[1:]
    assert [n for n, (a, b) in enumerate(zip(best, gb1.WILD_TYPE, strict=True)) if a != b] == [38, 39, 40, 53]
    scores = gb1.Gb1().score([best, gb1.WILD_TYPE, elsewhere, best[:-1], "FWA", "FWAX", ""])
    assert scores[:2].tolist() == gb1.Gb1().score(["FWAA", "VDGV"]).tolist() and np.isnan(scores[2:]).all()


@pytest.mark.parametrize("item", ["tfbind8:SIX6", "gb1"])
def test_a_missing_or_changed_table_is_one_line(item, tmp_path, monkeypatch):
    monkeypatch.setenv("MOTIF_DATA", str(tmp_path))
    entry = named_set(item.partition(":")[0])
    with pytest.raises(UserError, match=f"data set {entry['name']}: .* is missing; set MOTIF_DATA to the folder"):
        targets([item], registry)
    file = tmp_path / entry["path"]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="does not match its sha256"):
        targets([item], registry)


def test_named_tables_are_the_files_that_were_handed_over(motif_data):
    stated = (motif_data / "bio" / "README.md").read_text()
    for name in ("tfbind8", "gb1"):
        entry = named_set(name)
        assert f"{entry['sha256']}  {entry['path'].removeprefix('bio/')}" in stated and entry["licence"] in stated
        assert yaml.safe_dump(entry["columns"]).startswith("sequence: ")


@pytest.mark.parametrize(("seed", "width"), [("0", "3"), ("1", "4"), ("2", "6"), ("5", "1")])
def test_a_planted_motif_is_met_by_its_best_word_alone(seed, width):
    objective = PlantedMotif(seed, width)
    words = ["".join(word) for word in itertools.product("ACGT", repeat=6)]
    scores = objective.score(words)
    met = {word for word in words if objective.best in word or objective.best in reverse_complement(word)}
    assert {word for word, score in zip(words, scores, strict=True) if score > 1 - 1e-12} == met
    assert scores.max() == pytest.approx(1) and scores.min() >= 0
    assert np.allclose(scores, objective.score(list(map(reverse_complement, words))), rtol=0, atol=1e-12)
    assert np.isnan(objective.score(["A" * (int(width) - 1), "NNNNNN"])).all()


def test_a_planted_motif_is_the_best_window_of_its_matrix():
    objective, words = PlantedMotif("7", "5"), ["".join(word) for word in itertools.product("ACGT", repeat=5)]
    single = dict(zip(words, objective.score(words), strict=True))
    best, weights = objective.best, objective._weights
    for word in words[::37]:
        forward = sum(weights[place, "ACGT".index(base)] for place, base in enumerate(word))
        backward = sum(weights[place, "ACGT".index(base)] for place, base in enumerate(reverse_complement(word)))
        assert single[word] == pytest.approx(max(forward, backward), abs=1e-12)
    long = words[11] + best + words[600]
    windows = [long[first : first + 5] for first in range(len(long) - 4)]
    assert objective.score([long])[0] == pytest.approx(max(single[window] for window in windows), abs=1e-12)
    assert weights.min(axis=1).sum() == pytest.approx(0, abs=1e-12) and weights.max(axis=1).sum() == pytest.approx(1)


def test_planted_motifs_of_several_seeds_are_met_together():
    asked = [PlantedMotif(seed, "6") for seed in "012"]
    assert len({objective.best for objective in asked}) == 3
    joined = "".join(objective.best for objective in asked)
    assert all(objective.score([joined])[0] == pytest.approx(1) for objective in asked)


@pytest.mark.parametrize("item", ["planted_motif:x", "planted_motif:0:0", "planted_motif:0:33", "planted_motif:-1"])
def test_a_planted_motif_refuses_bad_arguments(item):
    with pytest.raises(UserError, match="planted_motif (seed|width): .* is not a whole number"):
        targets([item], registry)
