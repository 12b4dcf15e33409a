"""Time as a vector: a function of each time alone, in fp32 or more inside."""

from __future__ import annotations

import torch

from core.backbones.time_embedding import TimeEmbedding


def test_equal_times_have_equal_vectors_and_others_do_not() -> None:
    embedding = TimeEmbedding(16)
    time = torch.tensor([[0.0, 0.5, 0.501], [1.0, 0.5, 0.999]])
    vectors = embedding(time)
    assert vectors.shape == (2, 3, 16)
    torch.testing.assert_close(vectors[0, 1], vectors[1, 1])
    distances = torch.cdist(vectors.flatten(0, 1)[[0, 1, 2, 3, 5]], vectors.flatten(0, 1)[[0, 1, 2, 3, 5]])
    assert bool((distances + torch.eye(5) > 1e-3).all())


def test_waves_start_at_cosine_one_and_sine_zero() -> None:
    embedding = TimeEmbedding(4, frequencies=3)
    seen: list[torch.Tensor] = []
    embedding.inner.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    embedding(torch.zeros(1, 1))
    assert seen[0].tolist() == [[[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]]


def test_half_precision_keeps_near_times_apart() -> None:
    embedding = TimeEmbedding(16).bfloat16()
    seen: list[torch.Tensor] = []
    embedding.inner.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    vectors = embedding(torch.tensor([[0.9, 0.902]]))
    assert vectors.dtype == torch.bfloat16
    assert not torch.equal(seen[0][0, 0], seen[0][0, 1])
