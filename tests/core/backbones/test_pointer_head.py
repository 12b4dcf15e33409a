"""Ids beyond the vocabulary: what they mean going in and coming out, in every layout and while decoding."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.backbones.pointer_head import PointerHead
from core.backbones.source import Source
from core.data import Layout, MaskSpec, Memory, Noise, SequenceBatch
from core.decoding.ancestral import Ancestral
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.processes.autoregressive import Autoregressive
from core.tokenizers.base import Vocabulary

VOCABULARY = Vocabulary(3)
FIRST = VOCABULARY.total  # the id of slot 0
WIDTH, ROOM = 8, 5
PATTERN = [{"name": "attention", "heads": 2}]


def network(packed: bool = False) -> BackboneNetwork:
    fusion = {"name": "parallel", "heads": 2, "sources": {"shelf": WIDTH}, "pointer": "shelf"}
    encoder = Backbone(9, 0, WIDTH, PATTERN, 1, MaskSpec("full"))
    backbone = Backbone(FIRST, VOCABULARY.size + 1, WIDTH, PATTERN, 2, MaskSpec("causal"), fusion=fusion)
    made = BackboneNetwork(backbone, packed, {"shelf": encoder}).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


def items(owner: list[int], room: int = ROOM) -> Memory:
    lengths = torch.tensor([ROOM, 0, 2])
    return Memory(SequenceBatch(torch.randint(9, (3, room)), Layout.padded(lengths, room)), torch.tensor(owner))


def batch() -> SequenceBatch:
    """Tokens and pointers, in sequences that own a full row, an empty one, a short one and none."""
    tokens = torch.tensor([[0, FIRST + 4, 1, FIRST], [2, 1, 0, 0], [FIRST + 1, 2, FIRST, 0], [1, 0, 2, 2]])
    layout = Layout.padded(torch.tensor([4, 2, 3, 0]), 4)
    return SequenceBatch(tokens, layout, memories={"shelf": items([0, 1, 2, -1])})


def check_mixture() -> None:
    """p = (1 - g) vocabulary + g pointer; without slots the vocabulary alone; never an id that there is not."""
    head = PointerHead(WIDTH, FIRST, "shelf").double()
    memory = replace(items([0, 2, 1, -1]), encoded=torch.randn(3, ROOM, WIDTH, dtype=torch.float64))
    h, logits = (torch.randn(4, 2, size, dtype=torch.float64) for size in (WIDTH, 4))
    layout = Layout.padded(torch.tensor([2, 2, 2, 2]), 2)
    found = head(h, logits, layout, head.project({"shelf": memory}, 4)).exp()
    torch.testing.assert_close(found.sum(-1), torch.ones(4, 2, dtype=torch.float64))
    assert memory.encoded is not None
    for n, (row, room) in enumerate(((0, 5), (2, 2))):
        gate = head.gate(h[n]).sigmoid()
        scores = head.query(h[n]) @ head.key(memory.encoded[row, :room]).T * WIDTH**-0.5
        torch.testing.assert_close(found[n, :, :4], (1 - gate) * logits[n].softmax(-1))
        torch.testing.assert_close(found[n, :, FIRST : FIRST + room], gate * scores.softmax(-1))
        assert not found[n, :, 4:FIRST].any() and not found[n, :, FIRST + room :].any()
    torch.testing.assert_close(found[2:, :, :4], logits[2:].softmax(-1))
    assert not found[2:, :, 4:].any()


def check_embedding() -> None:
    """A pointed id is embedded as the encoded vector of its slot, as zeros where there is none; other tokens stay."""
    head = PointerHead(WIDTH, FIRST, "shelf").double()
    memory = replace(items([0, 1, 2, -1]), encoded=torch.randn(3, ROOM, WIDTH, dtype=torch.float64))
    given = batch()
    h = torch.randn(4, 4, WIDTH, dtype=torch.float64)
    found = head.embed(given.tokens, h, given.layout, head.project({"shelf": memory}, 4))
    assert memory.encoded is not None
    wanted = h.clone()
    for n, place, row, slot in ((0, 1, 0, 4), (0, 3, 0, 0), (2, 0, 2, 1), (2, 2, 2, 0)):
        wanted[n, place] = memory.encoded[row, slot]
    assert torch.equal(found, wanted)
    # Beyond all slots, beyond those of its own row, and with a row without slots or none.
    nowhere = torch.tensor([[FIRST + ROOM], [FIRST], [FIRST + 3], [FIRST + 1]])
    layout = Layout.padded(torch.ones(4, dtype=torch.long), 1)
    assert not head.embed(nowhere, h[:, :1], layout, head.project({"shelf": memory}, 4)).any()


def check_layouts() -> None:
    """Packed = padded = alone, whatever the room for slots."""
    net, given = network(), batch()
    wanted = net(given, None)
    tight = BackboneNetwork(net.backbone, True, {"shelf": net.encoders["shelf"]})(given, None)
    valid = given.layout.valid
    torch.testing.assert_close(tight[valid], wanted[valid])
    memory = given.memories["shelf"]
    wide = SequenceBatch(
        torch.nn.functional.pad(memory.batch.tokens, (0, 7)), Layout.padded(torch.tensor([5, 0, 2]), 12)
    )
    roomy = net(replace(given, memories={"shelf": replace(memory, batch=wide)}), None)
    torch.testing.assert_close(roomy[valid][:, : FIRST + ROOM], wanted[valid])
    assert (roomy[valid][:, FIRST + ROOM :] == -torch.inf).all()
    for n in range(4):
        torch.testing.assert_close(net(given.select(torch.tensor([n])), None)[0][valid[n]], wanted[n][valid[n]])


def check_steps() -> None:
    """Step by step, pointing as it goes, = at once."""
    net, given = network(), batch()
    rows = given.select(torch.tensor([0, 0]))
    whole = net(rows, None)
    logits, state = net.read(replace(rows, tokens=rows.tokens[:, :1], layout=Layout.padded(torch.tensor([1, 1]), 1)))
    for place in range(1, 4):
        torch.testing.assert_close(logits, whole[:, place - 1])
        logits, state = net.step(rows.tokens[:, place], state)
    torch.testing.assert_close(logits, whole[:, 3])
    source = state.layers[-1]
    assert isinstance(source, Source) and source.position.tolist() == [4, 4]
    assert state.fork(2).layers[-1].keys is source.keys


LAWS = [check_mixture, check_embedding, check_layouts, check_steps]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[], None]) -> None:
    law()


def neighbour(embed: Callable) -> Callable:
    return lambda self, tokens, *rest: embed(self, tokens + (tokens >= FIRST), *rest)


def restarted(step: Callable) -> Callable:
    return lambda self, tokens, state: step(self, tokens.clamp_max(FIRST), state)


SEES_ALL = property(lambda self: torch.ones_like(self.valid[self.owner.clamp_min(0)]))


@pytest.mark.parametrize(
    ("law", "owner", "name", "fault"),
    [
        (check_mixture, Source, "seen", lambda _: SEES_ALL),
        (check_layouts, Source, "seen", lambda _: SEES_ALL),
        (check_embedding, PointerHead, "embed", neighbour),
        (check_steps, BackboneNetwork, "step", restarted),
    ],
    ids=["all slots", "all slots in layouts", "wrong slot", "wrong input"],
)
def test_planted_fault_is_caught(
    law: Callable[[], None], owner: type, name: str, fault: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, fault(getattr(owner, name)))
    with pytest.raises(AssertionError):
        law()


def test_sequences_do_not_touch() -> None:
    net, given = network(), batch()
    memory = given.memories["shelf"]
    encoded = net.encoded(given).memories["shelf"].encoded
    assert encoded is not None
    rows = encoded.detach().requires_grad_()
    y = net(replace(given, memories={"shelf": replace(memory, encoded=rows)}), None)
    for n, own in enumerate((0, 1, 2)):
        part: Tensor = y[n][given.layout.valid[n]]
        (grad,) = torch.autograd.grad(part[part > -torch.inf].sum(), rows, retain_graph=True)
        assert grad.isfinite().all() and not grad[torch.arange(3) != own].any()


def test_what_is_drawn_points_into_its_own_memory() -> None:
    process = Autoregressive(VOCABULARY, limit=6)
    net, noise = network(), Noise.start(0, torch.arange(60))
    start = replace(
        process.prior(torch.zeros(60, dtype=torch.long), noise),
        memories={"shelf": items([0, 1, 2, -1] * 15)},
    )
    with torch.no_grad():
        whole = Stepwise().sample(process, net, net.encoded(start), noise).tokens
        cached = Ancestral().sample(process, net, start, noise).tokens
    assert [row.tolist() for row in whole] == [row.tolist() for row in cached]
    drawn = [{token for row in whole[n::4] for token in row.tolist()} for n in range(4)]
    for n, room in enumerate((ROOM, 0, 2, 0)):
        slots = set(range(FIRST, FIRST + room))
        assert drawn[n] <= set(range(VOCABULARY.size)) | slots
        assert bool(drawn[n] & slots) == bool(slots)


def test_a_pointer_needs_an_encoder_of_the_same_width() -> None:
    for sources in ({"shelf": WIDTH + 2}, {"other": WIDTH}):
        fusion = {"name": "flat", "heads": 2, "sources": sources, "pointer": "shelf"}
        with pytest.raises(UserError, match="pointer=shelf"):
            Backbone(FIRST, 4, WIDTH, PATTERN, 1, MaskSpec("causal"), fusion=fusion)
