"""Softmax attention in which typed edges add to keys and values."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.data.relations import Relations


def relate(
    query: Float[Tensor, "N H L E"],
    key: Float[Tensor, "N H L E"],
    value: Float[Tensor, "N H L E"],
    seen: Bool[Tensor, "N L L"],
    relations: Relations,
    tables: tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]],
) -> Float[Tensor, "N H L E"]:
    """Attention in which an edge of type t from i to j adds a row of each table to key and value j, for i alone.

    Work and memory grow with the number of edges: no `[L, L, E]` tensor exists. A query that
    sees nothing gets zeros.
    """
    sequence, start, end = relations.edges.T[..., None]
    head = torch.arange(query.shape[1], device=query.device)
    place = (sequence, head, start, end)
    for_keys, for_values = (table[relations.types] for table in tables)
    scale = query.shape[-1] ** -0.5
    # Edges are many to one pair at times, so both terms accumulate.
    extra = (query[place[:3]] * for_keys[:, None]).sum(-1) * scale
    scores = query @ key.transpose(-1, -2) * scale
    scores = scores.index_put(place, extra.to(scores.dtype), accumulate=True)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    # A row that sees nothing would be 0/0: it sees everything instead, and is zeroed afterwards.
    blind = ~seen.any(-1, keepdim=True)
    weights = scores.masked_fill(~(seen | blind)[:, None], -torch.inf).softmax(-1).to(value.dtype)
    out = weights @ value
    moved = weights[place][..., None] * for_values[:, None]
    out = out.index_put(place[:3], moved.to(out.dtype), accumulate=True)
    return out.masked_fill(blind[:, None], 0)
