"""The minimal gated recurrent unit."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.backbones.mixers.base import Capabilities, Keep, SequenceMixer
from core.backbones.state import Recurrent, State
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.registry import Paper
from kernels.gated_scan import gated_scan


class MinGRU(SequenceMixer):
    """h_t = (1 - z_t) h_{t-1} + z_t c_t, where gate z and candidate c read the input alone."""

    paper = Paper(
        "S142",
        "Were RNNs All We Needed?",
        "2410.01201",
        "scan in linear space (at least fp32) instead of log space, so the candidate needs no positivity; "
        "a linear map back to the width",
    )
    capabilities = Capabilities(masks=frozenset({"causal"}), state="constant", cost=1.0)

    def __init__(self, width: int, mask: MaskSpec, expansion: float = 1.0) -> None:
        super().__init__(width, mask)
        self.hidden = round(width * expansion)
        if self.hidden < 1:
            raise ValueError(f"expansion {expansion} leaves no hidden channel at width {width}")
        self.gate = nn.Linear(width, self.hidden)
        self.candidate = nn.Linear(width, self.hidden)
        self.out = nn.Linear(self.hidden, width, bias=False)

    def forward(
        self, h: Float[Tensor, "B L D"], layout: Layout, state: State | None = None, keep: Keep = "none"
    ) -> tuple[Float[Tensor, "B L D"], State | None]:
        before = self._before(layout, state, keep)
        inside = layout.valid[..., None]
        h = h.masked_fill(~inside, 0)
        logit, candidate = self.gate(h), self.candidate(h)
        wide = torch.promote_types(logit.dtype, torch.float32)
        logit, candidate = logit.to(wide), candidate.to(wide)
        # Padding hands the state on unchanged, so the last column holds every row's final state.
        retain = torch.where(inside, (-logit).sigmoid(), 1)
        update = torch.where(inside, logit.sigmoid() * candidate, 0)
        reset = self.mask.resets(layout) if layout.is_packed else None
        assert before is None or isinstance(before, Recurrent)
        hidden = gated_scan(retain, update, reset, None if before is None else before.value)
        y = self.out(hidden.to(h.dtype)).masked_fill(~inside, 0)
        if before is None or keep == "none":
            return y, None
        history = torch.cat([before.value[:, None].to(hidden.dtype), hidden], 1)
        after = Recurrent(before.position + layout.lengths, history[:, -1])
        if keep == "last":
            return y, after
        return y, Recurrent(after.position, after.value, history, before.position)

    def init_state(self, n: int) -> Recurrent:
        weight = self.gate.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        position = torch.zeros(n, dtype=torch.long, device=weight.device)
        return Recurrent(position, torch.zeros(n, self.hidden, dtype=wide, device=weight.device))
