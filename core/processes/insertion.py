"""One token at a time, anywhere in the sequence."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot, pad, softplus

from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose, log_total
from core.data.packing import unpack
from core.data.sequence_batch import SequenceBatch
from core.processes._quadrature import averaged, evenly
from core.processes._sites import moving, per_site, site_uniform
from core.processes.base import Likelihood, Network, Process, TokenLoss
from core.processes.transitions.edit import edited
from core.processes.transitions.insert import Insert
from core.registry import Paper
from core.tokenizers.base import Vocabulary

# A stop this far above or below all insertions together is beyond what a draw resolves.
_CERTAIN = 60.0


class Insertion(Process):
    """A sequence grows from nothing by single tokens at any place, until a stop is drawn.

    Backwards, one token after another is dropped, each time a uniform one. The network reads a
    start token and what is left: behind token g stand the logits of slot g, one softmax over all
    slots and tokens; the start's last column is the logit of stopping.

    A sequence of L tokens passes through L + 1 states, of which training sees one. So that every
    state counts as often as it is passed through, an example weighs L + 1; unweighted, the optimum
    writes another law than the data's. The loss is per token, ends included: it is taken over the
    sum of these weights, not over the sequences, since batches hold sequences of like length.

    Likelihood: an upper bound of -log p, p being the sum over all ways to write a sequence. With an
    order of insertion drawn uniformly, and inserting r states that read the same counted as one
    (any of the places in a run of one token), Jensen's inequality gives

        -log p(x) <= E sum_k [-log P(s_k+1 | s_k) + log(r_k / (k + 1))] - log P(stop | x),

    r_k being the length in s_k+1 of the run that the new token joins: a uniform deletion undoes the
    step with probability r_k / (k + 1). It is tight where the model's order is the uniform one given
    what it wrote: at the optimum of training, order by order.

    Fixed tokens are never dropped. A start may hold fixed tokens and close gaps between them
    (`SequenceBatch.closed`). With all gaps open, the optimum then draws x with probability
    proportional to q(x) times the chance that a uniform subset of x reads as the start; closed gaps
    are masked, which renormalises locally.

    limit: tokens at which only the stop remains. threshold: probability of stopping from which
    generation stops at once, and below which it goes on; None draws the stop.
    """

    paper = Paper(
        "S052",
        "Insertion Language Models",
        "2505.05755",
        "examples weigh length + 1; the stop is drawn, its threshold optional; a bound on the likelihood",
    )
    likelihood_kind = "bound"
    attends = MaskSpec("full")
    fills_gaps = True

    def __init__(self, vocabulary: Vocabulary, limit: int = 100, threshold: float | None = None) -> None:
        super().__init__(vocabulary, limit)
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold}: a probability lies in (0, 1)")
        self.threshold = threshold

    @property
    def outputs(self) -> int:
        return self.vocabulary.size + 1

    def fit(self, lengths: Int[Tensor, " N"], condition: Float[Tensor, "N C"] | None = None) -> None:
        """Nothing to learn: the stop carries the length. `UserError` for one above the limit."""
        self.refuse_long(lengths)

    def lengths(
        self, noise: Noise, allowed: tuple[int, ...], condition: Float[Tensor, "N C"] | None = None
    ) -> Int[Tensor, " N"]:
        return torch.zeros_like(noise.sequences)

    # --- path ---------------------------------------------------------------------------

    def corrupt(self, batch: SequenceBatch, time: Float[Tensor, "B S"], noise: Noise) -> SequenceBatch:
        """What is left of the batch: of D sites that may go, floor(t (D + 1)) stay, any subset as likely.

        `ValueError` for a packed batch: what is left of a sequence begins elsewhere.
        """
        if batch.layout.is_packed:
            raise ValueError("sites that leave need a padded batch: unpack first")
        return replace(_shown(batch, self._kept(batch, time, noise)), targets=batch.tokens)

    def _kept(self, batch: SequenceBatch, time: Float[Tensor, "N L"], noise: Noise) -> Bool[Tensor, "N L"]:
        mobile = moving(batch)
        uniform = site_uniform(batch, noise, Purpose.CORRUPT).masked_fill(~mobile, 2.0)
        rank = uniform.argsort(1).argsort(1)
        stays = rank < (time * (mobile.sum(1, keepdim=True) + 1)).floor()
        return batch.layout.valid & (stays | ~mobile)

    def prior(self, lengths: Int[Tensor, " N"], noise: Noise) -> SequenceBatch:
        layout = Layout.padded(torch.zeros_like(lengths), 0, self.attends)
        return SequenceBatch(torch.zeros(len(lengths), 0, dtype=torch.long, device=lengths.device), layout)

    # --- policy -------------------------------------------------------------------------

    def _logits(self, network: Network, shown: SequenceBatch) -> tuple[Float[Tensor, "N G V"], Float[Tensor, " N"]]:
        """Of every insertion, -inf in slots behind the end, and of stopping against all of them."""
        start = torch.full_like(shown.layout.lengths[:, None], self.vocabulary.bos)
        tokens = torch.cat([start, shown.tokens], 1)
        layout = Layout.padded(shown.layout.lengths + 1, tokens.shape[1], self.attends)
        read = replace(shown, tokens=tokens, layout=layout, targets=None, weights=None, fixed=None, closed=None)
        logits = network(read, None)
        return logits[..., :-1].masked_fill(~layout.valid[..., None], -torch.inf), logits[:, 0, -1]

    # --- training and likelihood --------------------------------------------------------

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        batch = _padded(batch)
        return self.state_loss(network, batch, self._kept(batch, per_site(batch, evenly(noise)), noise))

    def state_loss(self, network: Network, batch: SequenceBatch, kept: Bool[Tensor, "N L"]) -> TokenLoss:
        """The loss where the sites `kept` are left: first whether to stop, then the share of each site dropped."""
        insertion, stop = self._logits(network, _shown(batch, kept))
        dropped = batch.layout.valid & ~kept
        missing = dropped.sum(1, keepdim=True)
        outcome = kept.cumsum(1) * insertion.shape[2] + batch.tokens
        paid = -insertion.flatten(1).log_softmax(-1).gather(1, torch.where(dropped, outcome, 0))
        paid = torch.where(dropped, paid / missing.clamp_min(1), 0.0)
        end = torch.where(missing == 0, softplus(-stop)[:, None], softplus(stop)[:, None])
        states = moving(batch).sum(1, keepdim=True) + 1
        values = torch.cat([end, paid], 1)
        return TokenLoss(values, states.to(values).expand_as(values), states.sum().clamp_min(1))

    def likelihood(self, network: Network, batch: SequenceBatch, noise: Noise, points: int) -> Likelihood:
        """Whole sequences, fixed or not; `points` states of each, evenly over their sizes."""
        batch = replace(_padded(batch), fixed=None)
        states = batch.layout.lengths + 1

        def cost(share: Float[Tensor, "N 1"], here: Noise) -> Float[Tensor, " N"]:
            return states * self.state_nll(network, batch, self._kept(batch, per_site(batch, share), here))

        bound, error = averaged(cost, noise, points)
        return Likelihood(bound.masked_fill(states > self.limit + 1, torch.inf), "bound", error, states)

    def state_nll(self, network: Network, batch: SequenceBatch, kept: Bool[Tensor, "N L"]) -> Float[Tensor, " N"]:
        """The bound's term where the sites `kept` are left, averaged over which dropped one returns."""
        shown = _shown(batch, kept)
        insertion, stop = self._logits(network, shown)
        stop = stop.double().masked_fill(shown.layout.lengths >= self.limit, torch.inf)
        dropped = batch.layout.valid & ~kept
        missing, left = dropped.sum(1), shown.layout.lengths
        policy = insertion.double().flatten(1).log_softmax(-1).reshape(insertion.shape)
        chance, run = _merged(policy, shown)
        outcome = torch.where(dropped, kept.cumsum(1) * insertion.shape[2] + batch.tokens, 0)
        step = (run.log() - chance).flatten(1).gather(1, outcome)
        step = torch.where(dropped, step, 0.0).sum(1) / missing.clamp_min(1)
        return torch.where(missing == 0, softplus(-stop), softplus(stop) + step - (left + 1).double().log())

    # --- sampling -----------------------------------------------------------------------

    def grid(self, steps: int) -> list[tuple[float, float]]:
        """One step a token and one for the stop; `steps` plays no part."""
        return [(float(i), float(i + 1)) for i in range(self.limit + 1)]

    def transition(self, network: Network, batch: SequenceBatch, t: float, s: float) -> Insert:
        insertion, stop = self._logits(network, batch)
        stop = stop.double()
        if self.threshold is not None:
            least = math.log(self.threshold / (1 - self.threshold))
            stop = torch.where(stop >= least, _CERTAIN, -_CERTAIN).double()
        full = batch.layout.lengths >= self.limit
        # The stop is weighed against all insertions together.
        return Insert(insertion.masked_fill(full[:, None, None], -torch.inf), stop + log_total(insertion.flatten(1)))


def _shown(batch: SequenceBatch, kept: Bool[Tensor, "N L"]) -> SequenceBatch:
    return edited(batch, torch.where(kept, batch.tokens, -1), -1)


def _padded(batch: SequenceBatch) -> SequenceBatch:
    """The same sequences, one row each."""
    packed = batch.layout
    if not packed.is_packed:
        return batch
    width = packed.longest
    fixed = None if batch.fixed is None else unpack(batch.fixed, packed, width)
    layout = Layout.padded(packed.lengths, width, packed.mask)
    return replace(batch, tokens=unpack(batch.tokens, packed, width), layout=layout, fixed=fixed)


def _merged(
    policy: Float[Tensor, "N G V"], shown: SequenceBatch
) -> tuple[Float[Tensor, "N G V"], Float[Tensor, "N G V"]]:
    """For each insertion, the log-probability of all that read the same, and how many these are.

    A token v reads the same in two slots exactly if nothing but v stands between them.
    """
    size = policy.shape[2]
    other = one_hot(shown.tokens.clamp_max(size - 1), size) == 0
    run = pad(other.long().cumsum(1), (0, 0, 1, 0))
    slots = torch.arange(policy.shape[1], device=policy.device) <= shown.layout.lengths[:, None]
    collected = [
        torch.zeros_like(policy).scatter_add(1, run, part).gather(1, run)
        for part in (policy.exp(), slots[..., None].expand_as(policy).to(policy))
    ]
    return collected[0].log(), collected[1]
