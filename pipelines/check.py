"""`motif check`: the laws of an abstraction on a member of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from core.backbones.mixers.base import SequenceMixer
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints.base import Constraint
from core.guidance.objectives.base import Objective
from core.processes.base import Process
from core.registry import is_file_reference, load_reference
from core.tokenizers.base import Vocabulary
from domains.tasks import default_task
from pipelines.catalogue import registries

_SAMPLES = ("ACDEFGHIK", "KKLLKKLLKK", "GIGKFLHSAKKFGKAFVGEIMNS", "NGNGNG", "WWWW")


def check(name: str) -> Iterator[str]:
    """One line a law; raises `UserError` at the first that fails."""
    member = _resolve(name)
    laws: dict[type, Callable[[Any], Iterator[str]]] = {
        Objective: _objective,
        Constraint: _constraint,
        SequenceMixer: _mixer,
        Process: _process,
    }
    for base, run in laws.items():
        if inspect.isclass(member) and issubclass(member, base):
            if not hasattr(member, "paper"):
                raise UserError(f"{name}: names no paper")
            yield f"{name}: a {base.__name__}"
            yield from run(member)
            yield "all laws hold"
            return
    raise UserError(f"{name}: derives from none of {', '.join(base.__name__ for base in laws)}")


def _resolve(name: str) -> Any:
    if is_file_reference(name):
        return load_reference(name)
    for registry in registries().values():
        if name in registry.keys():
            return registry.get(name)
    raise UserError(f"{name}: neither path/to/file.py:Class nor a registered member")


def _require(holds: bool, law: str) -> str:
    if not holds:
        raise UserError(f"law broken: {law}")
    return f"ok  {law}"


def _objective(member: type[Objective]) -> Iterator[str]:
    objective = member()
    scores = np.asarray(objective.score(_SAMPLES), dtype=float)
    yield _require(scores.shape == (len(_SAMPLES),), "score gives one number a sequence")
    again = np.asarray(objective.score(_SAMPLES), dtype=float)
    yield _require(np.array_equal(scores, again, equal_nan=True), "the same sequences score the same")
    alone = np.concatenate([np.asarray(objective.score([s]), dtype=float) for s in _SAMPLES])
    yield _require(np.allclose(scores, alone, equal_nan=True), "a score does not depend on the batch")


def _constraint(member: type[Constraint]) -> Iterator[str]:
    rule = member()
    tokenizer = default_task("bio").make_tokenizer()
    constraints = ConstraintSet([rule], tokenizer, range(1, 13))
    length = constraints.feasible_lengths[-1]
    uniform = Noise.start(0, torch.arange(64)).uniform(length, Purpose.TOKEN)
    weights = torch.zeros(64, length, tokenizer.vocabulary.size)
    free = torch.full((64, length), -1)
    rows = constraints.draw(weights, torch.full((64,), length), uniform, free)
    values = [tokenizer.decode(row.tolist()) for row in rows]
    yield _require(all(rule.check(value) for value in values), "whatever the automaton lets through passes check")
    yield _require(bool(rule.name), "it has a name")


def _mixer(member: type[SequenceMixer]) -> Iterator[str]:
    torch.manual_seed(0)
    mode = "full" if "full" in member.capabilities.masks else "causal"
    mixer = member(16, MaskSpec(mode)).double().eval()
    h = torch.randn(3, 7, 16, dtype=torch.float64)
    lengths = torch.tensor([7, 4, 1])
    layout = Layout.padded(lengths, 7, MaskSpec(mode))
    y, _ = mixer(h, layout)
    yield _require(y.shape == h.shape, "forward keeps the shape")
    for row, length in enumerate(lengths.tolist()):
        alone, _ = mixer(h[row : row + 1, :length], Layout.padded(lengths[row : row + 1], length, MaskSpec(mode)))
        if not torch.allclose(alone[0], y[row, :length], atol=1e-10):
            raise UserError("law broken: a sequence mixes the same alone and in a batch")
    yield "ok  a sequence mixes the same alone and in a batch"
    if "causal" in member.capabilities.masks:
        causal = member(16, MaskSpec("causal")).double().eval()
        changed = h.clone()
        changed[:, -1] += 1
        spec = Layout.padded(torch.full((3,), 7), 7, MaskSpec("causal"))
        same = torch.equal(causal(h, spec)[0][:, :-1], causal(changed, spec)[0][:, :-1])
        yield _require(same, "a causal mixer never sees the future")


def _process(member: type[Process]) -> Iterator[str]:
    process: Process = member(Vocabulary(3))
    data = SequenceBatch(torch.tensor([[0, 1, 2], [2, 0, 0]]), Layout.padded(torch.tensor([3, 1]), 3))
    noise = Noise.start(0, torch.arange(2))

    def network(batch: SequenceBatch, time: Any) -> torch.Tensor:
        return torch.zeros(*batch.tokens.flatten(1).shape, process.outputs)

    loss = process.loss(network, data, noise)
    yield _require(bool(torch.isfinite(loss.mean())), "the loss is finite")
    first = process.likelihood(network, data, noise, 8).nll
    second = process.likelihood(network, data, noise, 8).nll
    yield _require(torch.equal(first, second), "the same noise gives the same likelihood")
    start = process.prior(process.lengths(noise, (1, 2, 3)), noise)
    samples = Stepwise(4).sample(process, network, start, noise)
    inside = all(bool(((0 <= row) & (row < 3)).all()) for row in samples.tokens)
    yield _require(inside, "samples hold data tokens only")
