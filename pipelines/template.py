"""Fixed parts around gaps of unknown length, as `GIGK*SAK` writes them."""

from __future__ import annotations

from typing import Any

import torch

from core.data.layout import Layout
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.processes import registry as processes
from core.processes.base import Process
from core.tokenizers.base import Tokenizer


def start_from(text: str, process: Process, tokenizer: Tokenizer[Any], constraints: ConstraintSet) -> SequenceBatch:
    """One sequence to start from: its tokens fixed, its gaps closed but for those that `*` opens.

    `UserError` where the process fills no gaps, the template has none, a part cannot be read, or
    nothing that obeys the constraints fits.
    """
    if not process.fills_gaps:
        known = ", ".join(name for name, member in processes.members().items() if member.fills_gaps)
        raise UserError(
            f"template={text}: the checkpoint's process {processes.key_of(type(process))} fills no gaps of unknown "
            f"length; train with process={known}, or name places by the constraint fixed"
        )
    first, *others = text.split("*")
    if not others:
        raise UserError(f"template={text}: no gap to fill; write * where tokens may stand, as in GIGK*SAK")
    ids: list[int] = []
    opened: list[int] = []
    for part in (first, *others):
        try:
            ids += tokenizer.encode(part) if part else []
        except UserError as error:
            raise UserError(f"template={text}: {error}") from error
        opened.append(len(ids))
    if len(ids) > process.limit:
        raise UserError(f"template={text}: {len(ids)} fixed tokens, above the model's {process.limit}; shorten it")
    tokens = torch.tensor([ids], dtype=torch.long)
    closed = torch.ones(1, len(ids) + 1, dtype=torch.bool)
    # Behind every part but the last stands a gap.
    closed[0, opened[:-1]] = False
    lengths = torch.tensor([len(ids)])
    reachable = constraints.feasible(tokens, lengths) | constraints.insertable(tokens, lengths, closed).any()
    if not bool(reachable):
        names = " and ".join(rule.name for rule in constraints.constraints) or f"length:1..{process.limit}"
        raise UserError(f"template={text}: nothing that it leaves open obeys {names}; loosen one")
    layout = Layout.padded(lengths, len(ids), process.attends)
    return SequenceBatch(tokens, layout, fixed=torch.ones_like(tokens, dtype=torch.bool), closed=closed)
