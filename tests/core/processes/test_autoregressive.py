"""The training loss by hand, borders and refusals."""

from __future__ import annotations

import pytest
import torch

from core.data.layout import Layout
from core.data.noise import Noise, Purpose
from core.data.packing import pack, packed_layout
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.processes.autoregressive import Autoregressive
from core.processes.base import TokenLoss
from core.tokenizers.base import Vocabulary
from tests.laws.toys import neighbours

VOCABULARY = Vocabulary(3)
TABLE = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([3, 0, 1, 5])


def network(batch: SequenceBatch, time: torch.Tensor | None) -> torch.Tensor:
    return TABLE[batch.tokens]


def sequences(packed: bool = False) -> SequenceBatch:
    rows = torch.randint(3, (4, 5), generator=torch.Generator().manual_seed(1))
    layout = Layout.padded(LENGTHS, 5)
    rows = torch.where(layout.valid, rows, VOCABULARY.pad)
    return SequenceBatch(pack(rows, layout), packed_layout(layout)) if packed else SequenceBatch(rows, layout)


@pytest.mark.parametrize("packed", [False, True])
def test_loss_is_the_mean_cross_entropy_of_tokens_and_ends(packed: bool) -> None:
    law, wanted = TABLE.log_softmax(-1), []
    whole = sequences()
    for row, length in zip(whole.tokens.tolist(), LENGTHS.tolist(), strict=True):
        chain = [VOCABULARY.bos, *row[:length], VOCABULARY.eos]
        wanted += [-float(law[a, b]) for a, b in zip(chain, chain[1:], strict=False)]
    loss = Autoregressive(VOCABULARY).loss(network, sequences(packed), Noise.start(0, torch.arange(4)))
    assert int(loss.count) == len(wanted) == 13
    assert loss.values[loss.weights > 0].tolist() == pytest.approx(wanted, abs=1e-12)
    assert set(loss.weights.unique().tolist()) <= {0.0, 1.0} and bool((loss.values[loss.weights == 0] == 0).all())
    assert float(loss.mean()) == pytest.approx(sum(wanted) / 13, abs=1e-12)


def test_a_mean_is_over_the_count() -> None:
    half = torch.tensor([[1.0, 3.0]])
    assert float(TokenLoss(half, torch.tensor([[1.0, 0.5]]), torch.tensor(5)).mean()) == 0.5


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_is_what_draws_a_number_below_the_share(packed: bool) -> None:
    """A share that is itself one of the numbers: that place stays, all below it are hidden."""
    noise, shown = Noise.start(3, torch.arange(4)), []
    uniform = noise.uniform(6, Purpose.CORRUPT)
    share = float(uniform[3, 2])
    process = Autoregressive(VOCABULARY, context_dropout=share)
    whole = process.corrupt(sequences(), torch.zeros(4, 5), noise)
    wanted = (uniform < share) & whole.layout.valid & (whole.tokens != VOCABULARY.bos)

    def seeing(batch: SequenceBatch, time: torch.Tensor | None) -> torch.Tensor:
        shown.append(batch.tokens)
        return network(batch, time)

    process.loss(seeing, sequences(packed), noise)
    hidden = shown[0] == VOCABULARY.mask
    assert torch.equal(hidden[0] if packed else hidden, wanted[whole.layout.valid] if packed else wanted)
    assert bool(hidden.any()) and not bool(wanted[3, 2])


def test_a_batch_without_sequences_has_no_loss() -> None:
    empty = SequenceBatch(torch.zeros(0, 0, dtype=torch.long), Layout.padded(torch.arange(0), 0))
    assert float(Autoregressive(VOCABULARY).loss(network, empty, Noise.start(0, torch.arange(0))).mean()) == 0


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="a share lies in"):
        Autoregressive(VOCABULARY, context_dropout=share)


def test_limits_are_at_least_one_and_kept() -> None:
    with pytest.raises(ValueError, match="limit 0: a sequence holds at least one token"):
        Autoregressive(VOCABULARY, limit=0)
    process = Autoregressive(VOCABULARY, limit=1)
    assert process.grid(7) == [(0.0, 1.0), (1.0, 2.0)]
    process.fit(torch.tensor([1, 0]))
    with pytest.raises(UserError, match="has 2 tokens, above the model's 1"):
        process.fit(torch.tensor([2]))
    open_, closed = (process.append(torch.zeros(1, 4), position).logits.isfinite().tolist() for position in (0, 1))
    assert open_ == [[True] * 4] and closed == [[False] * 3 + [True]]


def test_the_prior_is_empty_and_a_step_asks_for_the_next_token() -> None:
    process, noise = Autoregressive(VOCABULARY), Noise.start(0, torch.arange(3))
    assert process.lengths(noise, (5, 6)).tolist() == [0, 0, 0]
    start = process.prior(torch.tensor([4, 0, 2]), noise)
    assert start.tokens.shape == start.layout.shape == (3, 0) and start.layout.lengths.tolist() == [0, 0, 0]
    asked = neighbours(VOCABULARY, process.outputs)
    batch = sequences()
    found = process.transition(asked, batch, 2.0, 3.0).logits
    for n, length in enumerate(LENGTHS.tolist()):
        read = torch.tensor([[VOCABULARY.bos, *batch.tokens[n, :length].tolist()]])
        alone = SequenceBatch(read, Layout.padded(torch.tensor([length + 1]), length + 1))
        assert torch.equal(found[n], asked(alone, None)[0, -1])
