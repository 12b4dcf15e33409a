"""What steers a run: its guide, and what samplers and guides may ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding import registry as samplers
from core.errors import UserError, as_user_error
from core.guidance.guides import registry as guides
from core.guidance.guides.base import Guide, GuideContext, Model
from core.guidance.known import Known
from core.guidance.objectives.base import Scoreboard
from core.tokenizers.base import Tokenizer


def guidance(
    config: Mapping[str, Any],
    sampler: str,
    tokenizer: Tokenizer[Any],
    board: Scoreboard | None,
    condition: Float[Tensor, "R C"] | None,
    known: Callable[[], Known | None],
) -> dict[str, Any]:
    """What a sampler is given beside its settings: the guide that a run asks for, and what steers."""
    steered = samplers.get(sampler).steered
    if steered and (board is None or not board.targets):
        raise UserError(f"sampler={sampler} seeks objectives: add objectives=, as in objectives=[net_charge:max]")
    asked = {"guides": [_guide(config, sampler, board, condition)]} if config.get("guide") else {}
    if not steered and not asked:
        return {}

    def decode(batch: SequenceBatch) -> list[Any]:
        lengths = batch.layout.lengths.tolist()
        return [tokenizer.decode(row[:length]) for row, length in zip(batch.tokens.tolist(), lengths, strict=True)]

    def context(model: Model, noise: Noise) -> GuideContext:
        return GuideContext(model, decode, noise, board or Scoreboard([]), tokenizer.letters, known())

    return {**asked, "context": context}


def _guide(
    config: Mapping[str, Any], sampler: str, board: Scoreboard | None, condition: Float[Tensor, "R C"] | None
) -> Guide:
    """The guide that a run asks for."""
    name = config["guide"]["name"]
    member = guides.get(name)
    with as_user_error(f"guide {name}"):
        guide = member(**{key: value for key, value in config["guide"].items() if key != "name"})
    if "guides" not in inspect.signature(samplers.get(sampler)).parameters:
        raise UserError(f"sampler={sampler} takes no guide: drop guide={name} or name another sampler")
    if guide.conditional and condition is None:
        raise UserError(f"guide={name} needs something to guide towards: add condition=, as in condition=class:HepG2")
    guide.suits(() if board is None else board.targets)
    return guide
