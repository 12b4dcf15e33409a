"""Random data laws on paths whose sites mix data and noise: kernels, posteriors and bounds by matrices alone."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes import registry
from core.processes._mixture_path import MixturePath
from core.processes._resampling_path import ResamplingPath
from core.processes.base import Network, Process
from core.processes.transitions.substitute import Substitute
from core.tokenizers.base import Vocabulary
from tests.laws.toys import batch_of, site_kernel

SIZE = 3
VOCABULARY = Vocabulary(SIZE)
COUNTS = torch.tensor([1, 2, 5])
NOISE = {
    "mask": one_hot(torch.tensor(VOCABULARY.mask), VOCABULARY.total).double(),
    "uniform": torch.tensor([1 / 3] * 3 + [0.0] * (VOCABULARY.total - 3), dtype=torch.float64),
    "marginal": torch.tensor([1 / 8, 2 / 8, 5 / 8] + [0.0] * (VOCABULARY.total - 3), dtype=torch.float64),
}


def variants(base: type[Process]) -> list[tuple[str, str]]:
    """Every registered process under `base` with each source that it takes by name and that needs no pairs."""
    found = []
    for key, member in registry.members().items():
        if issubclass(member, base):
            asked = "source" in inspect.signature(member).parameters
            words = _words(get_type_hints(member.__init__)["source"]) if asked else ["uniform"]
            found += [(key, word) for word in words if word in NOISE]
    return found


def _words(hint: Any) -> list[str]:
    return [hint] if isinstance(hint, str) else [word for part in get_args(hint) for word in _words(part)]


def heads(key: str) -> list[dict[str, Any]]:
    """The options for each kind of answer that a process may be told its network gives."""
    asked = "parametrisation" in inspect.signature(registry.get(key)).parameters
    words = _words(get_type_hints(registry.get(key).__init__)["parametrisation"]) if asked else []
    return [{"parametrisation": word} for word in words] or [{}]


def made(key: str, source: str, **options: Any) -> MixturePath:
    """The process, its noise learnt from COUNTS where it learns it."""
    member: Any = registry.get(key)
    if "source" in inspect.signature(member).parameters:
        options = {"source": source, **options}
    process = member(**{"vocabulary": VOCABULARY, **options}).double()
    process.fit_tokens(COUNTS)
    return process


@dataclass(eq=False)
class ChainToy:
    """A law q over all sequences of `length` tokens, under the process `key` with a source of NOISE."""

    key: str
    source: str = "uniform"
    length: int = 2
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.process = made(self.key, self.source, **self.options)
        generator = torch.Generator().manual_seed(self.seed)
        self.sequences = torch.tensor(list(itertools.product(range(SIZE), repeat=self.length)))
        weights = torch.rand(len(self.sequences), generator=generator, dtype=torch.float64) ** 2 + 0.01
        self.q = weights / weights.sum()
        self.noise = NOISE[self.source]
        shown = [*range(SIZE)] + ([VOCABULARY.mask] if self.source == "mask" else [])
        self.states = torch.tensor(list(itertools.product(shown, repeat=self.length)))
        self.data = torch.tensor([self.states.tolist().index(row) for row in self.sequences.tolist()])

    @property
    def entropy(self) -> float:
        return float(-(self.q * self.q.log()).sum())

    @property
    def timesteps(self) -> int | None:
        return getattr(self.process, "timesteps", None)

    def kappa(self, t: float) -> float:
        return float(self.process.schedule.kappa(torch.tensor(t, dtype=torch.float64)))

    # --- forward: how data are forgotten ------------------------------------------------

    def forget(self, now: float, after: float = 1.0) -> Tensor:
        """What a site that shows v at kappa `after` shows at `now`, `[ids, ids]`: redrawn at a constant rate."""
        redraw = self.noise.expand(VOCABULARY.total, -1)
        if not now:
            return redraw
        generator = redraw - torch.eye(VOCABULARY.total, dtype=torch.float64)
        return torch.matrix_exp(np.log(after / now) * generator)

    def forward(self, now: float, after: float = 1.0, to: Tensor | None = None) -> Tensor:
        """The same of whole states, or from the sequences `to`, `[from, T]`."""
        start = self.states if to is None else to
        return self.forget(now, after)[start[:, None], self.states[None]].prod(-1)

    def marginal(self, now: float) -> Tensor:
        """p_t over the states."""
        return self.q @ self.forward(now, to=self.sequences)

    # --- what an exact network says -----------------------------------------------------

    def network(self, kind: str) -> Network:
        """`posterior`, P(x1_i | x_t), or `leave_one_out`, the same without what site i shows."""

        def answer(batch: SequenceBatch, time: Tensor | None) -> Tensor:
            tokens = batch.tokens.flatten(1)
            kappa = torch.full(tokens.shape, 0.5).double() if time is None else time.double()
            asked, place = torch.unique(torch.cat([tokens.double(), kappa], 1), dim=0, return_inverse=True)
            shown, kappa = asked[:, None, : self.length].long(), asked[:, None, self.length :]
            sites = kappa * (shown == self.sequences) + (1 - kappa) * self.noise[shown]
            laws = []
            for site in range(self.length):
                used = [n for n in range(self.length) if kind == "posterior" or n != site]
                weight = sites[..., used].prod(-1) * self.q + 1e-300
                laws.append((weight / weight.sum(1, keepdim=True)) @ one_hot(self.sequences[:, site], SIZE).double())
            return torch.stack(laws, 1).clamp_min(1e-300).log()[place]

        return answer

    @property
    def exact(self) -> Network:
        """What the process asks for."""
        return self.network(getattr(self.process, "parametrisation", "posterior"))

    # --- backward: one step from `now` to `after` ---------------------------------------

    def posterior(self, network: Network, kind: str, now: float) -> Tensor:
        """P(x1_i | x_t) for every state, from what `network` says, by definition."""
        time = torch.full(self.states.shape, now, dtype=torch.float64)
        law = network(batch_of(self.states), time if self.process.timed else None).softmax(-1)
        seen = self.forget(now)[:SIZE].T[self.states]
        law = law * seen if kind == "leave_one_out" else torch.where(seen > 0, law, 0.0)
        return law / law.sum(-1, keepdim=True)

    def sites(self, posterior: Tensor, now: float, after: float) -> Tensor:
        """P(x_s_i = v | x_t), `[T, L, ids]`, by Bayes' rule for each x1_i."""
        seen = self.forget(now)[:SIZE][:, self.states].permute(1, 2, 0)
        before = self.forget(after)[:SIZE]
        step = self.forget(now, after).T[self.states]
        joint = torch.einsum("tlw,wv,tlv->tlwv", (posterior / seen).nan_to_num(0.0), before, step)
        return joint.sum(2)

    def joined(self, sites: Tensor) -> Tensor:
        """The kernel over states, `[T, T]`, of sites that move on their own."""
        return sites[torch.arange(len(self.states))[:, None, None], torch.arange(self.length), self.states].prod(-1)

    def step(self, t: float, s: float) -> Tensor:
        """The kernel of the exact network, by matrices."""
        now, after = self.kappa(t), self.kappa(s)
        return self.joined(self.sites(self.posterior(self.network("posterior"), "posterior", now), now, after))

    def kernel(self, t: float, s: float, network: Network | None = None) -> Tensor:
        """The process's own."""
        batch = batch_of(self.states)
        transition = self.process.transition(network or self.exact, batch, t, s)
        assert isinstance(transition, Substitute)
        jump, log_law = transition.law(batch, torch.arange(len(self.states)))
        return self.joined(site_kernel(self.states, jump, log_law.exp(), VOCABULARY.total))

    def propagated(self, steps: int, kernel: Callable[[float, float], Tensor] | None = None) -> Tensor:
        """The law of a run's sequences."""
        now = self.noise[self.states].prod(-1)
        for t, s in self.process.grid(steps):
            now = now @ (kernel or self.step)(t, s)
        return now[self.data]

    # --- bounds -------------------------------------------------------------------------

    def places(self, points: int = 40) -> list[tuple[float, float, float]]:
        """Places of a path that resamples, with the kappa and the weight of each: all steps, else Gauss-Legendre."""
        if self.timesteps is not None:
            count = self.timesteps
            # A place u lies behind the share 1 - (1 - u)^2 of the path.
            ends = [1 - (1 - n / count) ** 0.5 for n in range(count + 1)]
            steps = enumerate(zip(ends[:-1], ends[1:], strict=True))
            return [((low + high) / 2, self.kappa(n / count), high - low) for n, (low, high) in steps]
        nodes, weights = np.polynomial.legendre.leggauss(points)
        left = (1 - nodes) / 2
        # Costs grow as log(1 - kappa) towards the data.
        return [(1 - x**2, 1 - x**4, w * x) for x, w in zip(left.tolist(), weights.tolist(), strict=True)]

    def bounds(self, network: Network, points: int = 40) -> Tensor:
        """The process's bound of each sequence, from all x_t at each place."""
        count, rows = len(self.sequences), len(self.states)
        clean = batch_of(self.sequences.repeat_interleave(rows, 0))
        noisy = batch_of(self.states.repeat(count, 1))
        total = torch.zeros(count, dtype=torch.float64)
        for place, kappa, weight in self.places(points):
            where = torch.full(clean.tokens.shape, place, dtype=torch.float64)
            value = self.process.integrand(network, clean, noisy, where)[0].sum(1).reshape(count, rows)
            seen = self.forward(kappa, to=self.sequences)
            total += weight * torch.where(seen > 0, seen * value, 0.0).sum(1)
        return total

    def excess(self, network: Network) -> float:
        """Expected bound less entropy, nats."""
        return float(self.bounds(network) @ self.q) - self.entropy

    # --- runs ---------------------------------------------------------------------------

    def start(self, draws: int, noise: Noise) -> SequenceBatch:
        return self.process.prior(torch.full((draws,), self.length), noise)

    def table(self, mass: Tensor) -> dict[Any, float]:
        return dict(zip(map(tuple, self.states.tolist()), mass.tolist(), strict=True))


CHAINS = variants(ResamplingPath)
EVERY = variants(MixturePath)
