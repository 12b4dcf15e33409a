"""Values and random numbers for every site of a batch, whatever its layout."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch


def per_place(batch: SequenceBatch, values: Float[Tensor, "N 1"]) -> Float[Tensor, "B L"]:
    """One value a sequence, spread over its tokens."""
    return values[batch.layout.owners.clamp_min(0), 0]


def per_sequence(batch: SequenceBatch, values: Float[Tensor, "B S"]) -> Float[Tensor, " N"]:
    """The sum over each sequence's tokens or sites, fp64; values at padding must be 0."""
    owners = batch.layout.owners.clamp_min(0)
    total = torch.zeros(batch.layout.count, dtype=torch.float64, device=values.device)
    if not owners.numel():
        return total
    owners = owners.repeat_interleave(values.shape[1] // owners.shape[1], 1)
    return total.index_add(0, owners.flatten(), values.double().flatten())


def moving(batch: SequenceBatch) -> Bool[Tensor, "B L *F"]:
    """The tokens, fields or numbers of a batch that may change."""
    valid = batch.layout.valid
    inside = valid.reshape(*valid.shape, *(1 for _ in batch.tokens.shape[2:])).expand(batch.tokens.shape)
    return inside if batch.fixed is None else inside & ~batch.fixed


def valid_sites(batch: SequenceBatch) -> Bool[Tensor, "B S"]:
    """The sites that hold something."""
    return batch.layout.valid.repeat_interleave(batch.fields, 1)


def per_site(batch: SequenceBatch, values: Float[Tensor, "N 1"]) -> Float[Tensor, "B S"]:
    """One value a sequence, spread over its sites."""
    return per_place(batch, values).repeat_interleave(batch.fields, 1)


def site_uniform(batch: SequenceBatch, noise: Noise, purpose: Purpose) -> Float[Tensor, "B S"]:
    """Uniform numbers by sequence and place inside it, whatever the layout."""
    layout, fields = batch.layout, batch.fields
    uniform = noise.uniform(layout.longest * fields, purpose)
    if not layout.is_packed:
        return uniform
    place = layout.offsets.repeat_interleave(fields, 1) * fields
    place = place + torch.arange(fields, device=place.device).repeat(layout.shape[1])
    return uniform[layout.owners.clamp_min(0).repeat_interleave(fields, 1), place]
