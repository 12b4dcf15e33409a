"""What the flow of numbers is for: toys learnt by the real network, in a few steps, and their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jaxtyping
import pytest
import torch
from torch import Tensor

from core.data import Layout, Noise, SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes.continuous_flow import ContinuousFlow
from core.tokenizers.base import Vocabulary
from core.training.model import GenerativeModel, build_model

pytestmark = pytest.mark.slow
CALLS = (4, 16, 64)


@pytest.fixture(autouse=True)
def _unchecked_shapes() -> Iterator[None]:
    """Shapes were checked by the quick tests; here they would cost half the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def moons(count: int, random: torch.Generator) -> SequenceBatch:
    """Single places of two channels on two half circles, blurred by 0.08."""
    angle, upper = math.pi * torch.rand(count, generator=random), torch.rand(count, generator=random) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    points = torch.stack([x, y], -1) + 0.08 * torch.randn(count, 2, generator=random)
    return SequenceBatch(points[:, None], Layout.padded(torch.ones(count, dtype=torch.long), 1))


def waves(count: int, random: torch.Generator, length: int | None = None) -> SequenceBatch:
    """Sine waves of random phase, 6 to 12 places a turn, on an autoregression of coefficient 0.7; 6 to 16 places."""
    place = torch.arange(16)
    turn = 6 + 6 * torch.rand(count, 1, generator=random)
    phase = 2 * math.pi * torch.rand(count, 1, generator=random)
    rest = [0.2 * torch.randn(count, generator=random)]
    for _ in place[1:]:
        rest.append(0.7 * rest[-1] + 0.2 * math.sqrt(1 - 0.7**2) * torch.randn(count, generator=random))
    numbers = (2 * math.pi * place / turn + phase).sin() + torch.stack(rest, -1)
    lengths = 6 + torch.randint(11, (count,), generator=random) if length is None else torch.full((count,), length)
    return SequenceBatch(numbers[..., None], Layout.padded(lengths, 16))


Toy = Callable[..., SequenceBatch]


def learnt(toy: Toy, channels: int, steps: int, rows: int, **model: Any) -> GenerativeModel:
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    config = {"process": {"name": "continuous_flow", "channels": channels, "limit": 16}, "model": model}
    built = build_model(config, Vocabulary(0))
    process, many = built.process, toy(20_000, random)
    process.fit(many.layout.lengths)
    process.fit_numbers(many.tokens[many.layout.valid])
    optimiser = torch.optim.AdamW(built.parameters(), 2e-3, (0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.05)
    for step in range(steps):
        noise = Noise.start(0, torch.arange(rows)).at(step)
        loss = process.loss(built.network, toy(rows, random), noise).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(built.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return built.eval()


def sliced(one: Tensor, other: Tensor) -> float:
    """Sliced 2-Wasserstein distance of two samples of as many points, over 200 directions."""
    directions = torch.randn(one.shape[1], 200, generator=torch.Generator().manual_seed(9)).to(one)
    directions = directions / directions.norm(dim=0)
    gaps = (one @ directions).sort(0).values - (other.to(one) @ directions).sort(0).values
    return float(gaps.square().mean().sqrt())


@dataclass(frozen=True)
class Figures:
    """Sliced distances of samples to the truth, root mean squares to the flow's own end; by integrator and calls."""

    real: float
    truth: dict[tuple[str, int], float]
    flow: dict[tuple[str, int], float]


def figures(model: GenerativeModel, toy: Toy, draws: int, length: int, *more: int) -> Figures:
    random, process = torch.Generator().manual_seed(77), model.process
    assert isinstance(process, ContinuousFlow)
    truth, again = (toy(draws, random, *more).tokens[:, :length].flatten(1).double() for _ in range(2))
    noise = Noise.start(5, torch.arange(draws))
    start = process.prior(torch.full((draws,), length), noise)

    def ends(integrator: Literal["euler", "heun"], calls: int, rows: int) -> Tensor:
        process.integrator = integrator
        few = torch.arange(rows)
        with torch.no_grad():
            sampler = Stepwise(calls // (2 if integrator == "heun" else 1))
            samples = sampler.sample(process, model.network, start.select(few), noise.select(few))
        assert samples.network_calls == calls
        return torch.stack(samples.tokens).flatten(1)

    limit, found = ends("heun", 192, 200), Figures(sliced(truth, again), {}, {})
    for integrator in ("euler", "heun"):
        for calls in CALLS:
            drawn = ends(integrator, calls, draws)
            found.truth[integrator, calls] = sliced(drawn, truth)
            found.flow[integrator, calls] = float((drawn[:200] - limit).square().mean().sqrt())
    return found


def compared(name: str, found: Figures) -> None:
    print(f"\n{name}: real against real {found.real:.4f}")
    for calls in CALLS:
        for integrator in ("euler", "heun"):
            each = integrator, calls
            print(f"  {calls} calls, {integrator}: truth {found.truth[each]:.4f}, own flow {found.flow[each]:.5f}")
    assert found.truth["heun", 4] < found.truth["euler", 4]
    # From here on what the network has not learnt may outweigh what a step loses.
    for calls in CALLS:
        assert found.flow["heun", calls] < found.flow["euler", calls]


def test_two_moons() -> None:
    model = learnt(moons, 2, 1500, 256, width=64, depth=2, pattern=[{"name": "attention", "heads": 2}])
    found = figures(model, moons, 4000, 1)
    compared("two moons", found)
    assert all(found.truth["heun", calls] < found.truth["euler", calls] for calls in CALLS)


def test_waves_of_any_length() -> None:
    model = learnt(waves, 1, 2000, 64, width=64, depth=2, pattern=[{"name": "attention", "heads": 4}])
    compared("waves of 12 places", figures(model, waves, 1000, 12, 12))
