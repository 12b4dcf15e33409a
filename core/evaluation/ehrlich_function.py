"""Ehrlich functions: closed-form landscapes of sequences whose maximum is known."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

# What states are written as: the digits of RFC 4648 base 32, which no eye confuses.
SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

_TEMPERATURE = 0.5
_BAND = 0.4


class EhrlichFunction:
    """f(x) = product of response(q_j) over motifs j, of sequences x of `length` states.

    q_j is the largest share of motif j that stands anywhere in x at its spacing, rounded down to one of
    `quantization` levels; response(z) = z (1 + epistasis z (z - 1)). A sequence that makes a banned
    transition is infeasible: NaN. All values lie in [0, 1]; `optimum` has 1. Transitions, motifs and
    spacings follow from `seed` and are those of the holo-bench package (Stanton et al. 2024).

    allowed: `[V, V]`, which state may follow which. Raises `ValueError` for what has no such function.
    """

    def __init__(
        self,
        states: int,
        length: int,
        motifs: int,
        motif_length: int,
        quantization: int,
        seed: int = 0,
        epistasis: float = 0.0,
    ) -> None:
        _refuse(states, length, motifs, motif_length, quantization, epistasis)
        self.states, self.length, self.seed = states, length, seed
        self.quantization, self.epistasis = quantization, epistasis
        generator = torch.Generator().manual_seed(seed)
        self._transitions = _transitions(states, generator)
        self._start = _stationary(self._transitions)
        self.allowed: Bool[np.ndarray, "V V"] = (self._transitions > 0).numpy()
        chain = self._walk(1, motifs * motif_length, generator)
        self._motifs = chain.reshape(motifs, motif_length)
        room = (length - motifs * motif_length) // motifs
        self._offsets = np.stack([_offsets(motif_length, room, generator) for _ in range(motifs)])

    def __call__(self, x: Int[np.ndarray, "N L"]) -> Float[np.ndarray, " N"]:
        """f of each sequence; NaN where it is infeasible."""
        return self.parts(x).prod(axis=1)

    def parts(self, x: Int[np.ndarray, "N L"]) -> Float[np.ndarray, "N C"]:
        """response(q_j) of each motif: one objective each, where several are wanted."""
        found = [self._matched(x, motif, places) for motif, places in zip(self._motifs, self._offsets, strict=True)]
        q = np.stack(found, axis=1) * self.quantization // self._motifs.shape[1] / self.quantization
        response = q * (1 + self.epistasis * q * (q - 1))
        return np.where(self.feasible(x)[:, None], response, np.nan)

    def feasible(self, x: Int[np.ndarray, "N L"]) -> Bool[np.ndarray, " N"]:
        """Whether a sequence makes allowed transitions only."""
        return ~np.any(~self.allowed[x[:, :-1], x[:, 1:]], axis=1)

    def draw(self, n: int, seed: int | None = None) -> Int[np.ndarray, "N L"]:
        """Feasible sequences from the chain of transitions; `seed` is the function's own unless told.

        They depend on n: the draws of all sequences take turns.
        """
        generator = torch.Generator().manual_seed(self.seed if seed is None else seed)
        return self._walk(n, self.length, generator)

    def optimum(self) -> Int[np.ndarray, " L"]:
        """A feasible sequence with f = 1: the motifs one after the other, each state held until the next."""
        row = np.full(self.length, self._motifs[-1, -1])
        first = 0
        for motif, places in zip(self._motifs, self._offsets, strict=True):
            for state, place in zip(motif, places, strict=True):
                row[first + place :] = state
            first += places[-1] + 1
        return row

    def _matched(
        self, x: Int[np.ndarray, "N L"], motif: Int[np.ndarray, " K"], offsets: Int[np.ndarray, " K"]
    ) -> Int[np.ndarray, " N"]:
        """The most elements of a motif that stand at its spacing from one place on."""
        places = self.length - int(offsets[-1])
        hits = [x[:, start : start + places] == state for state, start in zip(motif, offsets.tolist(), strict=True)]
        return np.sum(hits, axis=0).max(axis=1)

    def _walk(self, n: int, steps: int, generator: torch.Generator) -> NDArray[np.int64]:
        """`n` walks along the chain, from its stationary law."""
        rows = [torch.multinomial(self._start, n, replacement=True, generator=generator)]
        for _ in range(steps - 1):
            rows.append(torch.multinomial(self._transitions[rows[-1]], 1, generator=generator)[:, 0])
        return torch.stack(rows, dim=1).numpy()


def _refuse(states: int, length: int, motifs: int, motif_length: int, quantization: int, epistasis: float) -> None:
    if not 3 <= states <= len(SYMBOLS):
        raise ValueError(f"states: {states} is outside 3..{len(SYMBOLS)}")
    if min(motifs, motif_length, quantization) < 1:
        raise ValueError("motifs, motif_length and quantization are at least 1")
    if motifs * motif_length > length:
        raise ValueError(f"{motifs} motifs of {motif_length} states need a length of {motifs * motif_length}")
    if motif_length % quantization:
        raise ValueError(f"quantization: {quantization} does not divide a motif of {motif_length} states")
    if not 0 <= epistasis <= 4:
        raise ValueError(f"epistasis: {epistasis:g} is outside 0..4, where no value leaves [0, 1]")


def _transitions(states: int, generator: torch.Generator) -> Float[Tensor, "V V"]:
    """A random chain that bans some transitions, never that of a state to itself.

    It reaches every state from every other: of three states or more, each follows, and is followed by,
    more than half of all.
    """
    logits = torch.randn(states, states, generator=generator)
    order = torch.randperm(states, generator=generator)
    apart = (torch.arange(states)[:, None] - torch.arange(states)).abs()
    band = torch.minimum(apart, states - apart) <= int(_BAND * states)
    allowed = band[order] | torch.eye(states, dtype=torch.bool)
    weights = (logits / _TEMPERATURE).softmax(dim=1) * allowed
    return weights / weights.sum(dim=1, keepdim=True)


def _stationary(transitions: Float[Tensor, "V V"]) -> Float[Tensor, " V"]:
    """The law that the chain keeps: pi (P - 1) = 0 with its mass of 1 in place of one equation."""
    size = len(transitions)
    equations = transitions.double().T - torch.eye(size, dtype=torch.float64)
    equations[-1] = 1.0
    mass = torch.zeros(size, dtype=torch.float64)
    mass[-1] = 1.0
    return torch.linalg.solve(equations, mass).float()


def _offsets(elements: int, room: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Where the elements of a motif stand from its first on: next to each other, but for shares of `room`."""
    weights = torch.rand(elements - 1, generator=generator)
    gaps = 1 + (room * (weights / weights.sum())).floor().long()
    return np.concatenate(([0], gaps.cumsum(0).numpy()))
