import math

import numpy as np
import pytest

from core.evaluation.kmers import kmer_counts, kmer_js


def test_counts_overlap_and_short_sequences_have_none() -> None:
    assert kmer_counts(["AAA", "AB", "A", ""], 2) == {"AA": 2, "AB": 1}
    with pytest.raises(ValueError, match="k must"):
        kmer_counts(["A"], 0)


def test_divergence_is_0_alike_1_disjoint_symmetric_and_nan_on_nothing() -> None:
    assert kmer_js(["ABAB"], ["ABAB", "ABAB"], 2) == 0.0
    assert kmer_js(["AAAA"], ["CCCC"], 3) == 1.0
    assert kmer_js(["AAC"], ["ACC"], 1) == pytest.approx(kmer_js(["ACC"], ["AAC"], 1), abs=1e-15)
    assert math.isnan(kmer_js(["A"], ["ACC"], 3))


def test_divergence_by_hand() -> None:
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    expected = float(np.sum(p * np.log2(p / 0.5) + q * np.log2(q / 0.5)) / 2)
    assert kmer_js(["AAAC"], ["ACCC"], 1) == pytest.approx(expected, abs=1e-12)
