"""What processes share whose sites forget by being drawn anew: a Markov chain, and its limit of short steps."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.sequence_batch import SequenceBatch
from core.processes._mixture_path import MixturePath
from core.processes._sites import moving
from core.processes._source import SiteSource
from core.processes.base import Network, flat
from core.processes.schedules.base import Schedule
from core.tokenizers.base import Vocabulary

Parametrisation = Literal["leave_one_out", "posterior"]
_TINY = torch.finfo(torch.float64).tiny


def to_posterior(
    leave_one_out: Float[Tensor, "B S V"],
    shown: Int[Tensor, "B S"],
    kappa: Float[Tensor, "B S"],
    chance: Float[Tensor, "B S"],
) -> Float[Tensor, "B S V"]:
    """log P(x1_i | x_t), given log P(x1_i | x_t without site i): that times k_t(x_t_i | x1_i), normalised.

    k_t is the path's law of one site, kappa 1{x_t_i = x1_i} + (1 - kappa) pi(x_t_i). shown: x_t, in which
    ids from V on are no data tokens. kappa: the share of data at t, below 1. chance: pi(x_t_i), above 0.
    """
    return _shifted(leave_one_out, shown, _evidence(kappa, chance))


def to_leave_one_out(
    posterior: Float[Tensor, "B S V"],
    shown: Int[Tensor, "B S"],
    kappa: Float[Tensor, "B S"],
    chance: Float[Tensor, "B S"],
) -> Float[Tensor, "B S V"]:
    """log P(x1_i | x_t without site i), given log P(x1_i | x_t): the inverse of `to_posterior`."""
    return _shifted(posterior, shown, -_evidence(kappa, chance))


def _evidence(kappa: Float[Tensor, "B S"], chance: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """By how many nats the shown token is likelier to be seen where it is the data's."""
    return torch.log1p(kappa / ((1 - kappa) * chance).clamp_min(_TINY))


def _shifted(
    log_law: Float[Tensor, "B S V"], shown: Int[Tensor, "B S"], nats: Float[Tensor, "B S"]
) -> Float[Tensor, "B S V"]:
    """`log_law` with so many nats more for the shown token, normalised."""
    inside = shown < log_law.shape[-1]
    added = torch.where(inside, nats, 0.0).to(log_law.dtype)[..., None]
    return log_law.scatter_add(-1, torch.where(inside, shown, 0)[..., None], added).log_softmax(-1)


class ResamplingPath(MixturePath):
    """Between s and t < s each site is drawn anew from the source with probability 1 - kappa(t) / kappa(s).

    At any one time that is the mixture path, but x_t knows x1 through x_s alone. Where a site stood at s
    follows from where it stands by Bayes' rule: with pi the source's law, z = x_t_i, and L the law of
    x1_i given x_t without site i,

        P(x_s_i = v | x_t) = [kappa_t / kappa_s 1{v = z} + (1 - kappa_t / kappa_s) pi(z)] u(v) / Z,
        u(v) = kappa_s L(v) + (1 - kappa_s) pi(v),    Z = kappa_t L(z) + (1 - kappa_t) pi(z).

    parametrisation: what the network answers. `leave_one_out` is L; it is what the plug-in of the papers
    learns, so the network has to look away from the site it is asked for. `posterior` is P(x1_i | x_t),
    what a `MixtureFlow` learns. Each is the other by `to_posterior` and `to_leave_one_out`, and equal to
    it at a masked site; one used for the other writes another law.

    Places lie the denser the nearer the data, the share of the path behind one being 1 - (1 - place)^2: a
    site that is still to move costs about 1 / (1 - kappa), of which an even draw would have no variance.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        source: str,
        schedule: Schedule | None,
        parametrisation: Parametrisation,
        limit: int,
        support: Bool[Tensor, "F V"] | None,
    ) -> None:
        super().__init__(vocabulary, source, schedule, limit, support)
        if parametrisation not in get_args(Parametrisation):
            raise ValueError(f"{parametrisation!r} is none of {', '.join(get_args(Parametrisation))}")
        self.parametrisation = parametrisation

    def _share(self, place: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """How much of the path lies behind a place."""
        return 1 - (1 - place) ** 2

    def _noise(self, batch: SequenceBatch) -> tuple[Float[Tensor, "B S"], Float[Tensor, "S V"]]:
        """pi of the token that each site shows, 1 where it is none of the source's, and pi of every data token."""
        assert isinstance(self.start, SiteSource)
        chance, laws = self.start.chance(batch), self.start.laws()
        return torch.where(chance > 0, chance, 1.0), laws.repeat(chance.shape[1] // len(laws), 1)

    def _log_leave_one_out(
        self, network: Network, batch: SequenceBatch, kappa: Float[Tensor, "B S"], chance: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        answer = self._log_answer(network, batch, kappa)
        if self.parametrisation == "leave_one_out":
            return answer
        return to_leave_one_out(answer, flat(batch.tokens), kappa, chance)

    # --- cost ---------------------------------------------------------------------------

    def _cost(
        self,
        network: Network,
        clean: SequenceBatch,
        noisy: SequenceBatch,
        now: Float[Tensor, "B S"],
        after: Float[Tensor, "B S"],
        redrawn: Float[Tensor, "B S"],
        kept: Float[Tensor, "B S"],
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """`integrand` of a step from `now` to `after`, both kappas, in fp64 as shares near 0 and 1 cancel.

        It is the sum over v of (redrawn pi(z) + kept 1{v = z}) (p - q + q log(q / p)), where p = u(v) / Z and
        q is the same for the known x1. With the chances of being drawn anew and of being kept that is the
        step's relative entropy.
        """
        shown, data = flat(noisy.tokens), flat(clean.tokens)
        counted = flat(moving(clean)) & self.start.possible(noisy)
        chance, noise = self._noise(noisy)
        log_law = self._log_leave_one_out(network, noisy, now, chance).double()
        every = torch.arange(log_law.shape[-1], device=shown.device)
        here, truth = shown[..., None] == every, (data[..., None] == every).double()
        seen, reached = [], []
        for law in (truth, log_law.exp()):
            seen.append(now * (law * here).sum(-1) + (1 - now) * chance)
            drawn = after[..., None] * law + (1 - after)[..., None] * noise
            reached.append(drawn / seen[-1][..., None])
        weight = (redrawn * chance)[..., None] + kept[..., None] * here
        value = (weight * _excess(*reached)).sum(-1)
        surprise = -log_law.gather(-1, torch.where(counted, data, 0)[..., None])[..., 0]
        cross_entropy = surprise + (seen[1] / seen[0]).log()
        zero = torch.zeros_like(value)
        return torch.where(counted, value, zero), torch.where(counted, cross_entropy, zero), counted

    # --- step ---------------------------------------------------------------------------

    def _shares(
        self, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"]]:
        """kappa at t and at s, exact at the end of time."""
        now, after = (self.schedule.kappa(time).clamp(0, 1) for time in (t, s))
        return now, torch.where(s >= 1, 1.0, after)

    def _jump(self, batch: SequenceBatch, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """What is left when each site stays with the least probability that any x1 gives it."""
        now, after = self._shares(t, s)
        chance, _ = self._noise(batch)
        moved = (after - now) * (1 - chance * (1 - after)) / (after * (1 - now)).clamp_min(_TINY)
        return torch.where(s >= 1, 1.0, moved.clamp(0, 1))

    def _log_goal(
        self, network: Network, batch: SequenceBatch, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        now, after = self._shares(t, s)
        chance, noise = self._noise(batch)
        log_law = self._log_leave_one_out(network, batch, now, chance)
        nats = lambda share: share.log()[..., None]  # noqa: E731
        drawn = torch.logaddexp(nats(after) + log_law, nats(1 - after) + noise.log())
        elsewhere = nats(((1 - now) * chance).clamp_min(_TINY)) + drawn
        back = nats(now + (after - now) * chance) + log_law
        here = flat(batch.tokens)[..., None] == torch.arange(log_law.shape[-1], device=batch.tokens.device)
        return torch.where(here, back, elsewhere)


def _excess(true: Float[Tensor, "*S"], model: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """p - q + q log(q / p) of the model's p and the true q, never below 0, and 0 where they agree."""
    some = true > 0
    ratio = torch.where(some, model, 1.0) / torch.where(some, true, 1.0)
    return model - true - true * ratio.clamp_min(_TINY).log()
