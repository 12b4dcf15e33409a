"""The contract of every sequence mixer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from core.backbones.state import State
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.registry import Paper

# How many tokens can be taken back, by every state that keeps more than its last value.
ROLLBACK = 16

Keep = Literal["none", "last", "all"]


@dataclass(frozen=True)
class Capabilities:
    """What a mixer declares, and what the laws then hold it to.

    masks: the `MaskSpec.features` it honours. state: how its decoding state grows with the
    tokens read (`none`: it cannot decode). cost: exponent of the length in its run time.
    packed: reads packed layouts natively.
    """

    masks: frozenset[str]
    state: Literal["none", "constant", "ring", "growing"]
    cost: float
    packed: bool = True


class SequenceMixer(nn.Module, ABC):
    """Moves information between the tokens of one sequence, and never between sequences.

    A member is built for one `MaskSpec` and refuses, by ValueError, a mask it cannot honour.
    `forward` reads padded and packed layouts through the same code; what stands in padding
    neither matters nor leaks. `step` is `forward` on one token: both agree to rounding, in
    outputs and gradients, at any cut of the sequence. Positions come from the layout, or from
    the state when decoding. Recurrent state and gates are fp32 whatever the activations.

    With `state` the tokens continue each sequence (padded layouts only); under a block mask whole
    blocks at a time, since a token changes the outputs of its own block. `keep` says what
    comes back: nothing, the state after the last token, or one that can roll back to any of
    at most 16 tokens. `Layout.mask` is not read: the mixer's own mask rules. The linear map
    that writes to the residual stream is called `out`.
    """

    paper: ClassVar[Paper]
    capabilities: ClassVar[Capabilities]

    def __init__(self, width: int, mask: MaskSpec) -> None:
        super().__init__()
        refused = mask.features - self.capabilities.masks
        if refused:
            raise ValueError(f"{type(self).__name__} cannot honour the mask features {sorted(refused)}")
        self.width = width
        self.mask = mask

    def _before(self, layout: Layout, state: State | None, keep: Keep) -> State | None:
        """The state that a forward pass starts from, None where no state is asked for."""
        if state is None and keep == "none":
            return None
        if layout.is_packed:
            raise ValueError("states belong to padded layouts: unpack first")
        if keep == "all" and layout.shape[1] > ROLLBACK:
            raise ValueError(f'keep="all" reads at most {ROLLBACK} tokens, got {layout.shape[1]}')
        return self.init_state(layout.count) if state is None else state

    @abstractmethod
    def forward(
        self, h: Float[Tensor, "B L D"], layout: Layout, state: State | None = None, keep: Keep = "none"
    ) -> tuple[Float[Tensor, "B L D"], State | None]:
        """Mix `h`; rows of padding come back as zeros."""

    def step(self, h: Float[Tensor, "N D"], state: State) -> tuple[Float[Tensor, "N D"], State]:
        """Read one more token of each sequence."""
        layout = Layout.padded(state.position.new_ones(len(h)), 1, self.mask)
        y, after = self(h[:, None], layout, state, keep="last")
        assert after is not None
        return y[:, 0], after

    @abstractmethod
    def init_state(self, n: int) -> State:
        """The state of n sequences of which nothing has been read."""
