"""A random data law with any factorised source: states, path, posterior and kernels by enumeration."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from core.data.noise import Noise
from core.data.sequence_batch import Memory, SequenceBatch
from core.processes.mixture_flow import MixtureFlow
from core.processes.schedules.base import Schedule
from core.processes.transitions.substitute import Substitute
from core.tokenizers.base import Vocabulary
from tests.laws.toys import batch_of, site_kernel

SIZE = 3
VOCABULARY = Vocabulary(SIZE)
GIVEN = (0.2, 0.8, 0.0)
COUNTS = torch.tensor([1, 2, 5])
PAIRED = (2, 1, 0, 2)
SOURCES = ("mask", "uniform", "marginal", "given", "certain", "coupled")
# Where x0 is certain the bound is tight.
CERTAIN = ("mask", "certain", "coupled")


@dataclass(eq=False)
class SourceToy:
    """`name` is one of SOURCES; `coupled` pairs every sequence with the one `PAIRED`."""

    name: str
    length: int = 2
    seed: int = 0
    schedule: Schedule | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source: Any = {"given": GIVEN, "certain": (0.0, 1.0, 0.0)}.get(self.name, self.name)
        self.process = MixtureFlow(VOCABULARY, source, self.schedule, **self.options).double()
        self.process.fit_tokens(COUNTS)
        generator = torch.Generator().manual_seed(self.seed)
        self.sequences = torch.tensor(list(itertools.product(range(SIZE), repeat=self.length)))
        weights = torch.rand(len(self.sequences), generator=generator, dtype=torch.float64) ** 2 + 0.01
        self.q = weights / weights.sum()
        self.states = torch.tensor(list(itertools.product(self._shown, repeat=self.length)))

    @property
    def _shown(self) -> list[int]:
        return [*range(SIZE)] + ([VOCABULARY.mask] if self.name == "mask" else [])

    @property
    def entropy(self) -> float:
        return float(-(self.q * self.q.log()).sum())

    @property
    def law(self) -> Tensor:
        """p0 of each site over all ids, `[L, T]`, from the name alone."""
        flat = {
            "mask": one_hot(torch.tensor(VOCABULARY.mask), VOCABULARY.total).double(),
            "uniform": torch.full((SIZE,), 1 / SIZE, dtype=torch.float64),
            "marginal": torch.tensor([1 / 8, 2 / 8, 5 / 8], dtype=torch.float64),
            "given": torch.tensor(GIVEN, dtype=torch.float64),
            "certain": torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64),
        }
        if self.name == "coupled":
            return one_hot(torch.tensor(PAIRED[: self.length]), VOCABULARY.total).double()
        p0 = flat[self.name]
        return torch.nn.functional.pad(p0, (0, VOCABULARY.total - len(p0))).expand(self.length, -1)

    def batch(self, rows: Tensor) -> SequenceBatch:
        """Rows with what the source needs of them."""
        batch = batch_of(rows)
        if self.name != "coupled":
            return batch
        pair = Memory(batch_of(torch.tensor([PAIRED[: self.length]])), torch.zeros(len(rows), dtype=torch.long))
        return SequenceBatch(batch.tokens, batch.layout, memories={"source": pair})

    def start(self, draws: int, noise: Noise) -> SequenceBatch:
        if self.name != "coupled":
            return self.process.prior(torch.full((draws,), self.length), noise)
        return self.process.begin(batch_of(torch.tensor([PAIRED[: self.length]]).expand(draws, -1)))

    # --- closed forms -------------------------------------------------------------------

    def path(self, kappa: float | Tensor, states: Tensor) -> Tensor:
        """p_t(x_t | x1), `[T, Q]`."""
        same = (states[:, None] == self.sequences[None]).double()
        noise = self.law[torch.arange(self.length), states][:, None]
        return (kappa * same + (1 - kappa) * noise).prod(-1)

    def marginal(self, kappa: float) -> Tensor:
        return self.path(kappa, self.states) @ self.q

    def network(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        """The exact posterior."""
        shown = batch.tokens
        kappa = torch.full(shown.shape, 0.5).double() if time is None else time.double()
        asked, place = torch.unique(torch.cat([shown.double(), kappa], 1), dim=0, return_inverse=True)
        states, kappa = asked.chunk(2, dim=1)
        # Some states have no mass at the ends of time; their posterior is never used.
        weight = self.path(kappa[:, None], states.long()) * self.q + 1e-300
        hot = one_hot(self.sequences, SIZE).double()
        posterior = torch.einsum("tq,qlv->tlv", weight / weight.sum(1, keepdim=True), hot)
        return posterior.clamp_min(1e-300).log()[place]

    def joined(self, site: Tensor) -> Tensor:
        """The kernel over all states `[T, T]` from that of each site `[T, L, ids]`."""
        result = torch.ones(len(self.states), len(self.states), dtype=torch.float64)
        for place in range(self.length):
            result *= site[:, place, :][:, self.states[:, place]]
        return result

    def forward(self, t: float | Tensor, s: float | Tensor) -> Tensor:
        """The one-step kernel, from the transition's own law; times may differ from site to site."""
        batch = self.batch(self.states)
        transition = self.process.transition(self.network, batch, t, s)
        assert isinstance(transition, Substitute)
        jump, posterior = transition.law(batch, torch.arange(len(self.states)))
        return self.joined(site_kernel(self.states, jump, posterior.exp(), VOCABULARY.total))

    def backward(self, lost: float) -> Tensor:
        """Each site goes to x0 with probability `lost`."""
        share = torch.full((self.length,), lost, dtype=torch.float64)
        site = (share[:, None] * self.law).expand(len(self.states), -1, -1).clone()
        return self.joined(
            site.scatter_add(-1, self.states[..., None], (1 - share).expand(self.states.shape)[..., None])
        )

    def kappa(self, t: float) -> float:
        return float(self.process.schedule.kappa(torch.tensor(t, dtype=torch.float64)))

    def step(self, t: float, s: float, corrector: float, earlier: float | None = None) -> Tensor:
        """A corrected step by its definition; `earlier` is the time to go on from, where another is in question."""
        if not corrector:
            return self.forward(t, s)
        lost = 1 - float(np.exp(-corrector * (self.kappa(s) - self.kappa(t))))
        if earlier is None:
            left = torch.tensor(self.kappa(t) * (1 - lost), dtype=torch.float64)
            earlier = float(self.process.schedule.inverse(left))
        return self.backward(lost) @ self.forward(earlier, s)

    def propagated(self, steps: int, corrector: float = 0.0) -> Tensor:
        """The law of a whole run over the states."""
        now = self.law[torch.arange(self.length), self.states].prod(-1)
        for t, s in self.process.grid(steps):
            now = now @ self.step(t, s, corrector)
        return now

    def expected_bound(self, network: Any = None, points: int = 60) -> float:
        """E over x1, x_t and kappa of the integrand.

        1 - kappa is the fourth power of the integration's variable: the integrand goes as its logarithm at 0.
        """
        nodes, weights = np.polynomial.legendre.leggauss(points)
        left = (nodes + 1) / 2
        total = 0.0
        for node, weight in zip(1 - left**4, weights / 2 * 4 * left**3, strict=True):
            kappa = torch.full((self.length,), float(node), dtype=torch.float64)
            total += float(weight) * self.expected_integrand(kappa, network or self.network).sum().item()
        return total

    def expected_integrand(self, kappa: Tensor, network: Any) -> Tensor:
        """E over x1 and x_t of each site's integrand, the sites standing at `kappa`, `[L]`."""
        clean = self.batch(self.sequences.repeat(len(self.states), 1))
        noisy = self.batch(self.states.repeat_interleave(len(self.sequences), 0))
        value = self.process.integrand(network, clean, noisy, kappa.expand(clean.tokens.shape))[0]
        chance = (self.path(kappa, self.states) * self.q).flatten()
        return chance @ value

    def table(self, law: Tensor) -> dict[Any, float]:
        return dict(zip(map(tuple, self.states.tolist()), law.tolist(), strict=True))


def rows_of(batch: SequenceBatch) -> list[tuple[int, ...]]:
    return [tuple(row) for row in batch.tokens.tolist()]
