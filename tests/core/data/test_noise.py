"""Counter-based noise: the published generator, and a draw that keeps the tail of its law."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from core.data import noise as noise_module
from core.data.noise import Noise, Purpose, draw, fixed_point, log_total, philox

ONES = 0xFFFFFFFF
# counter, key and result as the authors' own test file gives them (Random123, philox4x32-10)
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter: tuple, key: tuple, words: tuple) -> None:
    found = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in found) == words


def test_a_row_does_not_know_its_batch() -> None:
    sequences, steps = torch.tensor([7, 3, 12, 5]), torch.tensor([0, 4, 2, 9])
    whole = Noise.start(11, sequences).at(steps).uniform(6, Purpose.TOKEN)
    for row in range(4):
        alone = Noise.start(11, sequences[row : row + 1]).at(int(steps[row]))
        assert alone.uniform(6, Purpose.TOKEN).equal(whole[row : row + 1])
        assert alone.uniform(3, Purpose.TOKEN).equal(whole[row : row + 1, :3])
    index = torch.tensor([2, 0, 2])
    chosen = Noise.start(11, sequences).at(steps).select(index)
    assert chosen.uniform(6, Purpose.TOKEN).equal(whole[index])


def test_whoever_asks_otherwise_gets_other_numbers() -> None:
    """Seeds (both words), sequences, steps, slots, places, purposes and lanes are all told apart."""
    found = [
        Noise(seed, torch.tensor([0, 1, 2**31]), torch.full((3,), step), torch.full((3,), slot)).uniform(
            4, purpose, lane
        )
        for seed in (0, 1, 2**32)
        for step in (0, 1)
        for slot in (0, 1, 2)
        for purpose in Purpose
        for lane in (0, 1, 4095)
    ]
    values = torch.stack(found).flatten()
    assert len(values.unique()) == len(values) == 3 * 2 * 3 * len(Purpose) * 3 * 12


def test_forks_have_slots_of_their_own() -> None:
    start = Noise.start(0, torch.tensor([4, 9]))
    forked = start.fork(3).fork(2)
    assert forked.sequences.tolist() == [4] * 6 + [9] * 6
    assert forked.slots.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert len(forked.uniform(1, Purpose.TOKEN).unique()) == 12


def test_uniform_is_uniform() -> None:
    """Mean, variance and the 256 first bytes' chi-square, each within 4 sigma."""
    values = Noise.start(5, torch.arange(1000)).uniform(1000, Purpose.JUMP).flatten()
    count = len(values)
    assert 0 <= values.min() and values.max() < 1
    assert abs(values.mean() - 0.5) < 4 * math.sqrt(1 / 12 / count)
    assert abs(values.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / count)
    counts = torch.bincount((values * 256).long(), minlength=256).double()
    square = ((counts - count / 256) ** 2 / (count / 256)).sum()
    assert abs(square - 255) < 4 * math.sqrt(2 * 255)
    # 53 bits: the numbers fill the finest grid below 1, not that of single precision
    assert ((values * 2**53) % 2 == 1).double().mean() > 0.4


def test_draw_inverts_the_cdf() -> None:
    law = torch.tensor([0.25, 0.0, 0.5, 0.25], dtype=torch.float64).log()
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert draw(law, uniform).tolist() == [0, 0, 2, 2, 3, 3]
    rows = torch.stack([law, law.flip(0)])
    assert draw(rows, torch.tensor([0.3, 0.3], dtype=torch.float64)).tolist() == [2, 1]


def test_draw_never_takes_minus_infinity() -> None:
    law = torch.full((3,), -torch.inf)
    ends = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(law, ends).tolist() == [3, 3, 3]
    for only in range(3):
        one = law.clone()
        one[only] = -80.0
        assert draw(one, ends).tolist() == [only] * 3


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_draw_refuses_what_is_no_law(weight: float) -> None:
    law = torch.tensor([[0.0, 1.0], [weight, -math.inf]])
    with pytest.raises(RuntimeError, match="NaN or .inf: the logits behind it are not finite"):
        draw(law, torch.rand(2).double())
    assert draw(law[:1], torch.rand(1).double()).shape == (1,)


def test_draw_depends_on_the_law_alone() -> None:
    law = torch.randn(40)
    uniform = torch.rand(500, dtype=torch.float64)
    assert draw(law.double(), uniform).equal(draw(law, uniform))
    assert draw(law.double() + 64, uniform).equal(draw(law.double(), uniform))
    assert draw(law[None].expand(500, 40), uniform).equal(draw(law, uniform))


VOCABULARY, DRAWS, CHUNK = 50_000, 10_000_000, 1_000_000


def zipf() -> Tensor:
    law = 1 / torch.arange(1, VOCABULARY + 1, dtype=torch.float64)
    return law / law.sum()


def tail_of_our_draws() -> int:
    """How many of DRAWS draws fall on tokens of probability below 1e-5."""
    law = zipf()
    rare, log_law = law < 1e-5, law.log()
    count = 0
    for start in range(0, DRAWS, CHUNK):
        uniform = Noise.start(0, torch.arange(start, start + CHUNK)).uniform(1, Purpose.TOKEN)[:, 0]
        count += int(rare[draw(log_law, uniform)].sum())
    return count


def tail_of_single_precision_gumbel() -> int:
    """The same count for a race of -log(rand)/p with rand in fp32.

    Racing 50,000 tokens 1e7 times takes hours. Rounding keeps order, so the first of K equally
    likely tokens is the rounded largest of K uniforms; the tail is taken in eight such groups,
    the head as one exact arrival.
    """
    law = zipf()
    groups = law[law < 1e-5].chunk(8)
    sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64)
    chances = torch.stack([group.mean() for group in groups])
    head, count = float(law[law >= 1e-5].sum()), 0
    for _ in range(0, DRAWS, CHUNK):
        largest = torch.rand(CHUNK, len(groups), dtype=torch.float64) ** (1 / sizes)
        rounded = (largest * 2**24).floor() * 2.0**-24
        arrival = (-rounded.log() / chances).amin(1)
        count += int((arrival < torch.empty(CHUNK, dtype=torch.float64).exponential_(head)).sum())
    return count


def check_tail_mass(count: Callable[[], int]) -> None:
    """The law: the drawn tail mass lies within 4 sigma of the true one."""
    law = zipf()
    mass = float(law[law < 1e-5].sum())
    sigma = math.sqrt(mass * (1 - mass) / DRAWS)
    assert abs(count() / DRAWS - mass) <= 4 * sigma


def test_draw_keeps_the_tail() -> None:
    check_tail_mass(tail_of_our_draws)


def test_single_precision_gumbel_loses_the_tail() -> None:
    with pytest.raises(AssertionError):
        check_tail_mass(tail_of_single_precision_gumbel)


def test_coarse_weights_lose_the_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_module, "fixed_point", lambda weights: fixed_point(weights) >> 20)
    with pytest.raises(AssertionError):
        check_tail_mass(tail_of_our_draws)


def test_totals_are_those_of_logsumexp_to_the_bit_whatever_stands_beside() -> None:
    weights = 5 * torch.randn(200, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    total = log_total(weights)
    assert torch.allclose(total, weights.logsumexp(-1), rtol=0, atol=1e-9)
    for width in (1, 17, 5000):
        assert torch.equal(log_total(torch.nn.functional.pad(weights, (0, width), value=-torch.inf)), total)
    assert log_total(torch.full((1, 3), -torch.inf)).tolist() == [-math.inf]
