"""Low-rank adapters: a model fine-tuned through few parameters."""

from __future__ import annotations

import math
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.backbones.memories.base import Fusion
from core.backbones.mixers.base import SequenceMixer
from core.backbones.swi_glu import SwiGLU
from core.errors import UserError
from core.registry import Paper

_WEIGHT = "weight"


class LowRank(nn.Module):
    """W + (alpha / rank) B A on a weight `[out, in]`; B starts at 0, so that the map starts as it was."""

    paper: ClassVar[Paper] = Paper(
        "ours",
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "2106.09685",
        "on every linear map of the mixers, without dropout; the weight is summed up before it is applied",
    )

    def __init__(self, weight: Float[Tensor, "O I"], rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.a = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
        return weight + self.scale * (self.b @ self.a)


def add_adapters(model: nn.Module, rank: int, alpha: float) -> None:
    """Freeze `model` and put an adapter on every linear map of its sequence and channel mixers and fusions.

    Raises `UserError` for a rank below 1 or an alpha that is not positive.
    """
    if rank < 1 or not alpha > 0:
        raise UserError(f"adapt.rank={rank} and adapt.alpha={alpha}: they must be at least 1 and above 0")
    model.requires_grad_(False)
    for linear in _linear_maps(model):
        parametrize.register_parametrization(linear, _WEIGHT, LowRank(linear.weight, rank, alpha))


def merge_adapters(model: nn.Module) -> None:
    """Write every adapter into the weight it stands on: the model has the parameters that it began with."""
    for linear in _linear_maps(model):
        if parametrize.is_parametrized(linear, _WEIGHT):
            parametrize.remove_parametrizations(linear, _WEIGHT, leave_parametrized=True)
    model.requires_grad_(True)


def _linear_maps(model: nn.Module) -> list[nn.Linear]:
    rooms = [module for module in model.modules() if isinstance(module, (SequenceMixer, SwiGLU, Fusion))]
    # A mixer may hold another one.
    return list({id(m): m for room in rooms for m in room.modules() if isinstance(m, nn.Linear)}.values())
