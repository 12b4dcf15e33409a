"""What real data reach under the same measures, at the same number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def real_floor(
    measure: Callable[[Sequence[Any]], Mapping[str, float]], real: Sequence[Any], n: int, seed: int, repeats: int = 5
) -> dict[str, float]:
    """The mean of `measure` over up to `repeats` disjoint draws of n real objects; empty without any.

    A small set lies far from any reference by its size alone, so samples are read against as many
    real objects. Where `real` holds fewer than n, all of it is measured once: a floor that is too low.
    """
    size = min(n, len(real))
    if not size:
        return {}
    order = np.random.default_rng(seed).permutation(len(real))
    draws = [order[start : start + size] for start in range(0, len(real) - size + 1, size)][:repeats]
    measured = [measure([real[int(i)] for i in draw]) for draw in draws]
    return {name: float(np.mean([values[name] for values in measured])) for name in measured[0]}
