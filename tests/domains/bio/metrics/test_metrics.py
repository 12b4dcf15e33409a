"""Numbers about sample sets, on sets small enough to count by hand."""

import csv
import gzip
import math
import random
from functools import lru_cache

import numpy as np
import pytest

from core.guidance.constraints.base import Constraint
from core.registry import Paper
from domains.base import MetricContext
from domains.bio.alphabet import AMINO_ACIDS, reverse_complement
from domains.bio.metrics import registry
from domains.bio.metrics.novelty import nearest
from domains.bio.tokenizers.dna import Dna

CONTEXT = MetricContext()
SPLITS = ("train", "test")


def peptides(n, seed, letters=AMINO_ACIDS):
    source = random.Random(seed)
    return ["".join(source.choices(letters, k=source.randrange(5, 20))) for _ in range(n)]


def compute(key, samples, reference=(), context=CONTEXT):
    return registry.get(key)().compute(samples, reference, context)


class _NoCysteine(Constraint):
    paper = Paper("ours", "a toy")

    @property
    def name(self):
        return "no_cysteine"

    def compile(self, tokenizer, length):
        return None

    def check(self, value):
        return "C" not in value


def test_validity_asks_for_alphabet_and_constraints():
    samples = ["AAAA", "AAXA", "AA", "AACA", ""]
    assert compute("validity", samples) == {"valid": 3 / 5}
    assert compute("validity", samples, context=MetricContext(constraints=[_NoCysteine()])) == {"valid": 2 / 5}


def test_uniqueness_counts_valid_samples_only():
    assert compute("uniqueness", ["AA", "AA", "AC", "AX"]) == {"unique": 2 / 3}


def test_novelty_counts_distinct_samples_and_their_neighbours():
    values = compute("novelty", ["AAAAA", "AAAAC", "WWWWW", "WWWWW"], ["AAAAA", "CCCCC"])
    assert values == {
        "novel": pytest.approx(2 / 3),
        "novel_below_0.8": pytest.approx(1 / 3),
        "nearest_identity": pytest.approx((1 + 0.8 + 0) / 3),
    }


def test_nearest_is_the_first_of_the_best_whatever_the_chunk(monkeypatch):
    from domains.bio.metrics import novelty

    samples, training = peptides(40, 1, "ACD"), peptides(30, 2, "ACD")
    index, identity = nearest(samples, training)
    monkeypatch.setattr(novelty, "_CELLS", 70)
    novelty._nearest.cache_clear()
    again, same = nearest(samples, training)
    np.testing.assert_array_equal(index, again)
    np.testing.assert_array_equal(identity, same)
    for sample, best, value in zip(samples, index, identity, strict=True):
        exact = [1 - edit_distance(sample, other) / max(len(sample), len(other)) for other in training]
        assert value == pytest.approx(max(exact), abs=1e-6)
        assert int(best) == min(i for i, e in enumerate(exact) if e >= max(exact) - 1e-9)
    with pytest.raises(ValueError, match="no sequences"):
        nearest(samples, [])


def test_the_nearest_of_the_same_sequences_are_sought_once(monkeypatch):
    from domains.bio.metrics import novelty

    samples, training, asked = peptides(20, 3, "ACD") * 2, peptides(30, 4, "ACD"), []
    true = novelty._nearest.__wrapped__
    counted = lru_cache(maxsize=1)(lambda *given: (asked.append(given), true(*given))[1])
    monkeypatch.setattr(novelty, "_nearest", counted)
    values = compute("novelty", samples, training)
    index, identity = nearest(samples, training)
    assert len(asked) == 1 and len(index) == 40
    np.testing.assert_array_equal(identity[:20], identity[20:])
    distinct = [samples.index(sample) for sample in dict.fromkeys(samples)]
    assert identity[distinct].mean() == pytest.approx(values["nearest_identity"])
    nearest(samples, training[1:])
    assert len(asked) == 2


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


DNA = MetricContext(tokenizer=Dna())


def test_a_reverse_complement_counts_once():
    samples = ["AACC", "GGTT", "AACC", "AAAA", "AANN"]
    assert compute("uniqueness", samples, context=DNA) == {"unique": 2 / 4}
    assert compute("validity", samples, context=DNA) == {"valid": 4 / 5}


def test_strand_novelty_looks_at_both_strands():
    a, b, c = dna(60, 1), dna(60, 2), dna(60, 3)
    training = [a, b]
    other = reverse_complement(a)
    values = compute("strand_novelty", [other, a, c, reverse_complement(b[10:30]) + c[:40]], training, DNA)
    # Three distinct samples: one known, one new, one new that shares 20 bases in a row.
    assert values == {"novel": pytest.approx(2 / 3), "novel_20mers": pytest.approx(1 / 3)}
    one_less = reverse_complement(b[10:29]) + c[:40]
    assert compute("strand_novelty", [one_less], training, DNA)["novel_20mers"] == 1


def test_strand_novelty_catches_a_planted_fault(monkeypatch):
    monkeypatch.setattr("domains.bio.families.reverse_complement", lambda sequence: sequence)
    monkeypatch.setattr("domains.bio.alphabet.reverse_complement", lambda sequence: sequence)
    with pytest.raises(AssertionError):
        test_strand_novelty_looks_at_both_strands()


def test_the_nearest_dna_may_stand_on_the_other_strand():
    samples, training = [dna(30, 1)], [dna(30, n) for n in range(5, 9)]
    training[2] = reverse_complement(samples[0][:-1] + "A")
    index, identity = nearest(samples, training, Dna())
    assert index.tolist() == [2] and identity[0] >= 1 - 1 / 30 - 1e-6
    assert nearest(samples, training)[1][0] < 0.8


def dna(n, seed):
    return "".join(random.Random(seed).choices("ACGT", k=n))


def test_gc_distance_is_of_shares():
    values = compute("gc_distance", ["GC", "AT"], ["GA", "GA", "AC"], DNA)
    assert values == pytest.approx({"gc_mean": 0.5, "gc_wasserstein": 0.5})


def test_hexamers_of_real_sites_are_as_far_as_was_measured(motif_data):
    rows = list(csv.DictReader(gzip.open(motif_data / "bio" / "dna" / "dhs_hepg2_k562.csv.gz", "rt")))
    parts = {split: [r["sequence"] for r in rows if (r["cell"], r["split"]) == ("HepG2", split)] for split in SPLITS}
    # Measured on these files by another program when they were collected.
    assert compute("hexamer_spectrum", parts["test"], parts["train"], DNA)["kmer_js_6"] == pytest.approx(
        4.8e-3, abs=5e-5
    )


def test_diversity_is_the_mean_distance_of_pairs():
    values = compute("diversity", ["AAAA", "AAAA", "CCCC"], ["AAAA", "AAAC"])
    assert values == {"diversity": pytest.approx(2 / 3)}


def test_kmer_spectrum_is_zero_for_alike_one_for_disjoint_and_grows_as_samples_get_fewer():
    real = peptides(400, 0)
    assert compute("kmer_spectrum", real, real) == pytest.approx({"kmer_js_2": 0, "kmer_js_3": 0}, abs=1e-12)
    assert compute("kmer_spectrum", ["ACAC"], ["DEDE"] * 4) == pytest.approx({"kmer_js_2": 1, "kmer_js_3": 1})
    few, many = compute("kmer_spectrum", peptides(20, 1), real), compute("kmer_spectrum", peptides(200, 1), real)
    assert few["kmer_js_3"] > many["kmer_js_3"] > 0
    other_law = compute("kmer_spectrum", peptides(200, 1, "ACDEFGHIKL"), real)
    assert other_law["kmer_js_2"] > 3 * many["kmer_js_2"]


def test_length_distance_in_residues():
    values = compute("length_distance", ["AA", "AAAA"], ["AAA", "AAAAA"])
    assert values == {"length_wasserstein": 1.0, "length_ks": 0.5}


def test_composition_distance_in_bits():
    assert compute("composition_distance", ["AAC", "C"], ["CA"])["composition_js"] == pytest.approx(0)
    half = compute("composition_distance", ["A"], ["AC"])["composition_js"]
    assert half == pytest.approx(
        0.5 * math.log2(1 / 0.75) + 0.25 * math.log2(0.5 / 0.75) + 0.25 * math.log2(0.5 / 0.25)
    )


@pytest.mark.parametrize("key", registry.keys())
def test_every_metric_is_deterministic_and_does_not_fall_over(key):
    # These are proteins and DNA.
    samples, real = peptides(30, 3, "ACGT"), peptides(80, 4, "ACGT")
    once, again = compute(key, samples, real), compute(key, samples, real)
    assert once == again and all(isinstance(value, float) and math.isfinite(value) for value in once.values())
    assert registry.get(key).paper.title
    for few in ([], ["A"]):
        for reference in ([], ["A"]):
            assert set(compute(key, few, reference)) == set(once)


def test_class_agreement_judges_the_class_that_was_asked_for():
    classes = {"rich": ["GCGCGGCCGCGC", "GGCCGCGGGCCG"] * 5, "poor": ["ATATTTAATATA", "AATTATATTAAT"] * 5}
    samples = ["GCGGCCGCGGCC"] * 3 + ["ATTATATATTAA"]
    asked = MetricContext(label="rich", classes=classes)
    assert compute("class_agreement", samples, context=asked) == {"class_agreement": 0.75}
    other = MetricContext(label="poor", classes=classes)
    assert compute("class_agreement", samples, context=other) == {"class_agreement": 0.25}


def test_class_agreement_says_nothing_without_a_class_or_another_one():
    alone = MetricContext(label="rich", classes={"rich": ["GCGCGC"]})
    for context in (CONTEXT, alone, MetricContext(classes={"a": ["ACGTACGT"], "b": ["AAAATTTT"]})):
        assert compute("class_agreement", ["ACGTACGT"], context=context) == {}
