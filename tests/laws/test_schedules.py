"""Laws of every schedule."""

import pytest
import torch

from core.processes.schedules import registry
from core.processes.schedules.base import Schedule


def check_schedule(schedule: Schedule) -> None:
    """Ends, monotony, inverse and derivative agree."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    kappa = schedule.kappa(t)
    assert abs(float(kappa[0])) < 1e-12 and abs(float(kappa[-1]) - 1) < 1e-12 and bool((kappa.diff() > 0).all())
    assert torch.allclose(schedule.inverse(kappa), t, atol=1e-7)
    inner = t[1:-1]
    slope = (schedule.kappa(inner + 1e-6) - schedule.kappa(inner - 1e-6)) / 2e-6
    assert torch.allclose(schedule.derivative(inner), slope, atol=1e-6)


@pytest.mark.parametrize("key", registry.keys())
def test_schedule(key: str) -> None:
    check_schedule(registry.get(key)())


@pytest.mark.parametrize("exponent", [0.5, 2.0, 3.0])
def test_polynomials(exponent: float) -> None:
    check_schedule(registry.get("polynomial")(exponent))


@pytest.mark.parametrize("name", ["kappa", "derivative", "inverse"])
@pytest.mark.parametrize("key", registry.keys())
def test_planted_fault_is_caught(key: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = registry.get(key)()
    right = getattr(schedule, name)
    monkeypatch.setattr(schedule, name, lambda x: right(x) * 0.99)
    with pytest.raises(AssertionError):
        check_schedule(schedule)
