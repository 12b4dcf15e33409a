import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from core.evaluation import ngram
from core.evaluation.ngram import SMOOTHINGS, NGram


def corpus(n: int, seed: int, vocabulary: int = 3) -> list[list[int]]:
    """A second-order source over three letters with an end."""
    generator = np.random.default_rng(seed)
    table = np.random.default_rng(99).dirichlet(np.full(vocabulary + 1, 0.4), size=(vocabulary + 1, vocabulary + 1))
    table[..., -1] = 0.25
    table[..., :-1] *= 0.75 / table[..., :-1].sum(axis=-1, keepdims=True)
    sequences = []
    for _ in range(n):
        sequence, context = [], (vocabulary, vocabulary)
        while (token := int(generator.choice(vocabulary + 1, p=table[context]))) != vocabulary:
            sequence.append(token)
            context = (context[1], token)
        sequences.append(sequence)
    return sequences


def check_mass(smoothing: str, order: int) -> None:
    """All sequences of at most L tokens, and the mass beyond by the start's conditional law, sum to one."""
    model = NGram(order, 2, smoothing).fit(corpus(300, 0, 2), corpus(80, 1, 2))
    sequences = [list(s) for length in range(15) for s in itertools.product(range(2), repeat=length)]
    mass = float(np.exp(-model.nlls(sequences)).sum())
    assert 0.97 < mass <= 1 + 1e-9
    # Each length's mass never exceeds what the lengths before it left.
    assert abs(model.nll([0, 1]) - model.nlls([[], [0, 1]])[1]) < 1e-12


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_probabilities_sum_to_one(smoothing: str, order: int) -> None:
    check_mass(smoothing, order)


def test_a_planted_fault_breaks_the_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaks(e: ngram.Evidence, scale: np.ndarray, lower: np.ndarray) -> np.ndarray:
        return ngram.witten_bell(e, scale, lower) * 1.05

    broken = ngram.Smoothing(leaks, (1.0,), 1.0, False)
    monkeypatch.setitem(ngram.SMOOTHINGS, "witten_bell", broken)
    with pytest.raises(AssertionError):
        check_mass("witten_bell", 3)


@pytest.mark.parametrize("order", (*range(1, 7), 10))
def test_plain_witten_bell_by_dictionary(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ngram.SMOOTHINGS, "witten_bell", ngram.Smoothing(ngram.witten_bell, (1.0,), 1.0, False))
    train, test = corpus(200, 0), corpus(30, 2)
    model = NGram(order, 3, "witten_bell").fit(train, test)
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for sequence in train:
        tokens = [4, *sequence, 3]
        for i in range(1, len(tokens)):
            for back in range(min(order, i + 1)):
                counts[tuple(tokens[i - back : i])][tokens[i]] += 1

    def law(context: tuple[int, ...], token: int) -> float:
        lower = law(context[1:], token) if context else 1 / 4
        if context not in counts:
            return lower
        seen = counts[context]
        return (seen[token] + len(seen) * lower) / (seen.total() + len(seen))

    for sequence in [*test, []]:
        tokens = [4, *sequence, 3]
        expected = -sum(
            math.log(law(tuple(tokens[max(0, i - order + 1) : i]), tokens[i])) for i in range(1, len(tokens))
        )
        assert model.nll(sequence) == pytest.approx(expected, abs=1e-9)


def test_kneser_ney_counts_kinds_of_predecessor_below_and_true_counts_at_the_start() -> None:
    train = [[0, 1], [0, 1], [2, 1], [0, 0]]
    model = NGram(2, 3, "kneser_ney").fit(train, train)
    unigram, bigram = model._levels
    by_token = dict(zip(unigram.grams.tolist(), unigram.counts.tolist(), strict=True))
    assert by_token == {0: 2, 1: 2, 2: 1, 3: 2}  # 0 after start and 0; 1 after 0 and 2; end after 1 and 0
    start = {
        g % 5: c
        for g, c in zip(bigram.grams.tolist(), bigram.counts.tolist(), strict=True)
        if bigram.contexts[g // 5] % 5 == 4
    }
    assert start == {0: 3, 2: 1}


def test_the_right_order_comes_near_the_source_and_tuning_helps() -> None:
    train, valid, test = corpus(3000, 0), corpus(500, 1), corpus(500, 2)
    perplexities = [NGram(order, 3).fit(train, valid).perplexity(test) for order in (1, 2, 3, 5)]
    assert perplexities[2] < perplexities[1] < perplexities[0]
    assert perplexities[3] < 1.02 * perplexities[2]
    model = NGram(5, 3).fit(train, valid)
    for name in SMOOTHINGS:
        assert model.perplexity(valid) <= NGram(5, 3, name).fit(train, valid).perplexity(valid) + 1e-12
    assert model.smoothing in SMOOTHINGS


def test_perplexity_counts_end_tokens_and_unseen_tokens_stay_finite() -> None:
    model = NGram(4, 5).fit([[0, 1], [1]], [[0]])
    assert model.perplexity([[0, 1], []]) == pytest.approx(math.exp((model.nll([0, 1]) + model.nll([])) / 4))
    assert math.isfinite(model.nll([4, 3, 4]))


def test_orders_above_every_length_are_legal() -> None:
    train, valid = [[0, 1], [1], [0]], [[0, 1]]
    found = [NGram(order, 3, "witten_bell").fit(train, valid).nll([0, 1]) for order in (3, 9)]
    # The search for the parameters sweeps over more levels, all without a count.
    assert found[0] == pytest.approx(found[1], abs=0.01)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="orders"):
        NGram(17, 3)
    with pytest.raises(ValueError, match="smoothing"):
        NGram(2, 3, "none")
    with pytest.raises(ValueError, match="ids must"):
        NGram(2, 3).fit([[0, 3]], [[0]])
    with pytest.raises(ValueError, match="not fitted"):
        NGram(2, 3).nll([0])
    with pytest.raises(ValueError, match="tune on"):
        NGram(2, 3).fit([[0]], [])
