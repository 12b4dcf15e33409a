"""One token a state that stands for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from core.errors import UserError
from core.evaluation.ehrlich_function import SYMBOLS
from core.registry import Paper
from domains.bio.alphabet import Alphabet
from domains.bio.tokenizers._letterwise import Letterwise


class States(Letterwise):
    """`size` abstract states, written A to Z and 2 to 7.

    permutation: a seed that shuffles which id a state has, so that nothing can be learnt about one
    landscape from the ids of another; None keeps their order.
    """

    paper = Paper("ours", "abstract states, written in the symbols of RFC 4648 base 32")
    kind = "state"

    def __init__(self, size: int = len(SYMBOLS), permutation: int | None = None) -> None:
        if not 2 <= size <= len(SYMBOLS):
            raise UserError(f"tokenizer states: size={size} is outside 2..{len(SYMBOLS)}")
        if permutation is not None and permutation < 0:
            raise UserError(f"tokenizer states: permutation={permutation} is no seed: pass 0 or more, or null")
        self.size, self.permutation = size, permutation

    @cached_property
    def alphabet(self) -> Alphabet:
        letters = SYMBOLS[: self.size]
        if self.permutation is not None:
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(self.permutation))
            letters = "".join(letters[state] for state in order.tolist())
        return Alphabet("state", "state", letters, {}, {}, ("state",), "no state")

    def settings(self) -> Mapping[str, Any]:
        return {"size": self.size, "permutation": self.permutation}
