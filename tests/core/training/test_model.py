"""Encoder-decoders from plain configuration."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from core.backbones.memories import registry as fusions
from core.data import Layout, Memory, Noise, SequenceBatch
from core.errors import UserError
from core.tokenizers.base import Vocabulary
from core.training.model import GenerativeModel, build_model

CONFIGS = Path(__file__).parents[3] / "configs"
VOCABULARY = Vocabulary(5)


def described(**changes: Any) -> dict[str, Any]:
    model = yaml.safe_load((CONFIGS / "model/encoder_decoder.yaml").read_text())
    return {"process": {"name": "autoregressive", "limit": 9}, "model": {**model, "width": 16, **changes}}


def loss(model: GenerativeModel) -> torch.Tensor:
    rows = SequenceBatch(torch.randint(5, (2, 4)), Layout.padded(torch.tensor([4, 2]), 4))
    layout = Layout.padded(torch.tensor([5, 3]), 5)
    batch = SequenceBatch(
        torch.randint(5, (2, 5)), layout, memories={"source": Memory(rows, torch.tensor([1, 0]))}
    )  # fmt: skip
    return model.process.loss(model.network, batch, Noise.start(0, torch.arange(2))).mean()


@pytest.mark.parametrize("fusion", [*fusions.keys(), "with a pointer head"])
def test_every_part_of_an_encoder_decoder_learns(fusion: str) -> None:
    pointer = fusion == "with a pointer head"
    options = {"name": "flat" if pointer else fusion, "heads": 2, "pointer": "source" if pointer else None}
    second = {"depth": 1, "width": None if pointer else 8}
    encoders = {"source": {key: value for key, value in second.items() if value}, "other": {"vocabulary": 3}}
    model = build_model(described(fusion=options, encoders=encoders, dropout=0.0), VOCABULARY)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        loss(model).backward()
        optimiser.step()
    silent = [name for name, part in model.named_parameters() if part.grad is None or not part.grad.any()]
    # Of the memory that was not given nothing can learn; where one memory is weighed against none, no weight either.
    assert not [name for name in silent if "other" not in name and ".ask" not in name and ".offers" not in name]


def test_an_encoder_is_as_the_model_around_it_unless_told() -> None:
    model = build_model(described(depth=3, encoders={"source": None, "other": {"depth": 1, "width": 8}}), VOCABULARY)
    source, other = model.network.encoders["source"], model.network.encoders["other"]
    assert (len(source.blocks), source.width, len(other.blocks), other.width) == (3, 16, 1, 8)
    assert source.embedding.num_embeddings == VOCABULARY.total and source.mask.mode == "full"
    assert source.head is None


def test_models_without_memories_have_none() -> None:
    model = build_model({"process": {"name": "autoregressive"}, "model": {"width": 8, "depth": 1, "pattern": [
        {"name": "attention"}]}}, VOCABULARY)  # fmt: skip
    assert not [name for name in model.state_dict() if "fusion" in name or "encoder" in name or "pointer" in name]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"encoders": {}}, "fusion parallel reads no memory: name one under model.encoders"),
        ({"fusion": None}, "model.fusion needs the name of a fusion: known are flat, hierarchical, parallel, serial"),
        ({"fusion": {"name": "paralel"}}, "unknown fusion 'paralel': did you mean 'parallel'?"),
        ({"fusion": {"name": "flat", "layers": [0, 4]}}, r"model.fusion.layers=\[0, 4\]: the model has layers 0 to 3"),
        ({"fusion": {"name": "flat", "heads": 3}}, "fusion flat: width 16 does not split into 3 heads"),
        ({"fusion": {"name": "flat", "colour": 1}}, "fusion flat: .*colour"),
        ({"fusion": {"name": "flat", "pointer": "schema"}}, "model.fusion.pointer=schema: name an encoder"),
        ({"encoders": {"items": {}}}, "model.encoders.items: call the memory by another word"),
        ({"encoders": {"a.b": {}}}, "model.encoders.a.b: call the memory by another word"),
        ({"encoders": {"source": {"colour": 1}}}, "model.encoders.source: .*colour"),
        ({"encoders": {"source": {"pattern": [{"name": "atention"}]}}}, "unknown mixer 'atention'"),
    ],
    ids=lambda part: "" if isinstance(part, dict) else part[:40],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        build_model(described(**changes), VOCABULARY)
