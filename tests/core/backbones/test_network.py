"""What stands around a backbone: memories are encoded once, in every layout."""

from dataclasses import replace

import pytest
import torch

from core.backbones.backbone import Backbone
from core.backbones.memories import registry
from core.backbones.network import BackboneNetwork
from core.data import Layout, MaskSpec, Memory, Noise, Relations, SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary

VOCABULARY = Vocabulary(5)
PATTERN = [{"name": "attention", "heads": 2}]


def build(packed: bool = False, encoder: str = "attention") -> BackboneNetwork:
    entry = {"name": encoder, "heads": 2}
    encoders = {"source": Backbone(VOCABULARY.total, 0, 8, [entry], 1, MaskSpec("full"))}
    fusion = {"name": "parallel", "heads": 2, "sources": {"source": 8}}
    backbone = Backbone(VOCABULARY.total, 5, 8, PATTERN, 2, MaskSpec("full"), fusion=fusion)
    network = BackboneNetwork(backbone, packed, encoders).double().eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.4)
    return network


def source(rows: int = 3) -> SequenceBatch:
    return SequenceBatch(torch.randint(5, (rows, 6)), Layout.padded(torch.tensor([6, 2, 5])[:rows], 6))


def batch() -> SequenceBatch:
    layout = Layout.padded(torch.tensor([4, 0, 7, 2]), 7)
    return SequenceBatch(
        torch.randint(5, (4, 7)), layout, memories={"source": Memory(source(), torch.tensor([2, 0, 0, -1]))}
    )


def test_packed_and_padded_agree_beside_memories() -> None:
    given = batch()
    valid = given.layout.valid
    torch.testing.assert_close(build(True)(given, None)[valid], build()(given, None)[valid])


def test_encoded_once_and_carried_through_every_step() -> None:
    process = MixtureFlow(VOCABULARY, limit=6)
    network, noise = build(), Noise.start(0, torch.arange(4))
    calls: list[int] = []
    network.encoders["source"].norm.register_forward_hook(lambda *_: calls.append(1))
    start = replace(process.prior(torch.full((4,), 6), noise), memories=batch().memories)
    with torch.no_grad():
        again = Stepwise(5).sample(process, network, start, noise).tokens
        assert len(calls) > 1
        calls.clear()
        once = Stepwise(5).sample(process, network, network.encoded(start), noise).tokens
    assert len(calls) == 1
    assert torch.equal(torch.stack(once), torch.stack(again))


def test_encoding_again_changes_nothing_and_moves_with_the_batch() -> None:
    network = build()
    given = network.encoded(batch())
    assert network.encoded(given).memories["source"].encoded is given.memories["source"].encoded
    picked = given.select(torch.tensor([2, 0])).memories["source"]
    assert picked.encoded is given.memories["source"].encoded and picked.owner.tolist() == [0, 2]
    moved = given.to("cpu").memories["source"]
    assert moved.encoded is not None and torch.equal(moved.encoded, picked.encoded)


def test_a_memory_may_hold_relations() -> None:
    network, given = build(encoder="relation_attention"), batch()
    memory = given.memories["source"]
    linked = memory.batch.layout.with_relations(Relations(torch.tensor([[0, 0, 5]]), torch.tensor([1])))
    other = replace(given, memories={"source": replace(memory, batch=replace(memory.batch, layout=linked))})
    changed = ~torch.isclose(network(given, None), network(other, None)).all(-1)
    assert changed[2].all() and not changed[[0, 3]].any()


@pytest.mark.parametrize("fusion", registry.keys())
def test_half_precision_is_near(fusion: str) -> None:
    options = {"name": fusion, "heads": 2, "sources": {"source": 8}, "pointer": "source"}
    backbone = Backbone(VOCABULARY.total, 5, 8, PATTERN, 2, MaskSpec("full"), fusion=options)
    network = BackboneNetwork(backbone, encoders=dict(build().encoders)).float()
    given = batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = network(given, None)[given.layout.valid]
    wanted = network(given, None)[given.layout.valid]
    assert torch.equal(found.isinf(), wanted.isinf())
    assert (found - wanted).nan_to_num().abs().max() < 0.1


def test_what_cannot_be_read_is_refused() -> None:
    network, given = build(), batch()
    memory = given.memories["source"]
    with pytest.raises(ValueError, match="no encoder for the memories"):
        network(replace(given, memories={"schema": memory}), None)
    with pytest.raises(ValueError, match="names a row for each of 4 sequences"):
        network(replace(given, memories={"source": replace(memory, owner=memory.owner[:2])}), None)
    with pytest.raises(ValueError, match="encode them first"):
        network.backbone(given.tokens, given.layout, memories=given.memories)
    with pytest.raises(ValueError, match="only encodes"):
        network.encoders["source"](given.tokens, given.layout)
