"""`motif check`: the laws of an abstraction on a member of the user's own."""

from __future__ import annotations

import inspect
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import chisquare, kstest
from torch import Tensor
from torch.nn.functional import one_hot

from core.backbones.mixers.base import SequenceMixer
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose
from core.data.packing import pack, packed_layout, unpack
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.errors import UserError, as_user_error
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints.base import Constraint, Projection
from core.guidance.items import parse_item
from core.guidance.objectives.base import Objective
from core.processes.base import Process
from core.registry import checked, is_file_reference, load_reference
from core.tokenizers.base import Tokenizer, Vocabulary
from domains.tasks import default_task
from pipelines.catalogue import registries

_SAMPLES = ("ACGTTGCATGA", "ACDEFGHIK", "KKLLKKLLKK", "GIGKFLHSAKKFGKAFVGEIMNS", "NGNGNG", "WWWW")
_LONGEST = 24  # of the sequences that a constraint is tried on
_WIDTH = 16
_TOLERANCE = 1e-9
_LEAST_P = 1e-5
_DRAWS = 4000


def check(name: str) -> Iterator[str]:
    """One line a law; raises `UserError` at the first that fails.

    `name` is `path/to/file.py:Class` or a registered key, with arguments as in a list of items.
    """
    item = parse_item(name)
    member = _resolve(item.name)
    laws: dict[type, Callable[..., Iterator[str]]] = {
        Objective: _objective,
        Constraint: _constraint,
        SequenceMixer: _mixer,
        Process: _process,
        Tokenizer: _tokenizer,
    }
    base = next((base for base in laws if inspect.isclass(member) and issubclass(member, base)), None)
    if base is None:
        raise UserError(f"{name}: derives from none of {', '.join(base.__name__ for base in laws)}")
    checked(member, base, name)
    yield f"{name}: a {base.__name__}"
    try:
        yield from laws[base](member, *item.arguments)
    except UserError:
        raise
    except Exception as error:
        if member.__module__.partition(".")[0] in ("core", "domains"):
            # Nothing of the user's ran: a bug of ours, and no line of advice would mend it.
            raise
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    yield "all laws hold"


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


def _objective(member: type[Objective], *arguments: str) -> Iterator[str]:
    with as_user_error(member.__name__):
        objective = member(*arguments)
    scores = np.asarray(objective.score(_SAMPLES), dtype=float)
    yield _require(scores.shape == (len(_SAMPLES),), "score gives one number a sequence")
    again = np.asarray(objective.score(_SAMPLES), dtype=float)
    yield _require(np.array_equal(scores, again, equal_nan=True), "the same sequences score the same")
    alone = np.concatenate([np.asarray(objective.score([s]), dtype=float) for s in _SAMPLES])
    yield _require(np.allclose(scores, alone, equal_nan=True), "a score does not depend on the batch")
    stated = member.direction in ("max", "min") and bool(member.source) and member.unit is not None
    yield _require(stated, "direction, unit and source are stated")


def _constraint(member: type[Constraint], *arguments: str) -> Iterator[str]:
    with as_user_error(member.__name__):
        rule = member(*arguments)
    yield _require(bool(rule.name), "it has a name")
    if isinstance(rule, Projection):
        points = torch.randn(8, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        nearest = rule.project(points)
        yield _require(torch.allclose(rule.project(nearest), nearest), "what obeys is not moved")
        return
    tokenizers = default_task("bio").package("tokenizers").registry.members().values()
    tokenizer = next(member() for member in tokenizers if rule.kind in (None, member.kind))
    constraints = ConstraintSet([rule], tokenizer, range(1, _LONGEST + 1))
    (bound,) = constraints.constraints
    drawn = _drawn(constraints, tokenizer.vocabulary.size)
    passing = all(bound.check(tokenizer.decode(row)) for row in drawn)
    yield _require(passing, "whatever the automaton lets through passes check")
    for row in _tried(drawn, tokenizer.vocabulary.size):
        accepted = bool(constraints.feasible(torch.tensor([row]), torch.tensor([len(row)])))
        if accepted != bound.check(tokenizer.decode(row)):
            side = "lets through" if accepted else "refuses"
            raise UserError(
                f"law broken: compile and check agree; the automaton {side} {tokenizer.decode(row)}, check does not"
            )
    yield "ok  compile and check agree"


def _drawn(constraints: ConstraintSet, letters: int) -> list[list[int]]:
    """A few sequences of every length that the constraint allows."""
    rows = []
    for length in constraints.feasible_lengths:
        uniform = Noise.start(0, torch.arange(8) + 8 * length).uniform(length, Purpose.TOKEN)
        laws, free = torch.zeros(8, length, letters), torch.full((8, length), -1)
        rows += constraints.draw(laws, torch.full((8,), length), uniform, free).tolist()
    return rows


def _tried(drawn: Sequence[Sequence[int]], letters: int) -> Iterator[list[int]]:
    """Sequences on both sides of a rule: all pairs, random ones, and drawn ones with one letter changed."""
    yield from ([*pair] for length in (1, 2) for pair in itertools.product(range(letters), repeat=length))
    source = random.Random(0)
    for row in drawn:
        yield [source.randrange(letters) for _ in row]
        changed = [*row]
        changed[source.randrange(len(row))] = source.randrange(letters)
        yield changed


def _mixer(member: type[SequenceMixer]) -> Iterator[str]:
    masks = [mask for mask in (MaskSpec("causal"), MaskSpec("full")) if mask.features <= member.capabilities.masks]
    yield _require(bool(masks), "it honours the causal or the full mask")
    for mask in masks:
        mixer, mode = _random_mixer(member, mask), mask.mode
        layout = Layout.padded(torch.tensor([7, 0, 1, 4]), 9, mixer.mask)
        h = torch.randn(4, 9, _WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        y, _ = mixer(h, layout)
        yield _require(y.shape == h.shape, f"{mode}: forward keeps the shape")
        yield _require(not bool(y[~layout.valid].any()), f"{mode}: rows of padding come back as zeros")
        dirty, _ = mixer(h.masked_fill(~layout.valid[..., None], torch.nan), layout)
        yield _require(_near(y, dirty), f"{mode}: what stands in padding does not matter")
        for row, length in enumerate(layout.lengths.tolist()):
            part = Layout.padded(layout.lengths[row : row + 1], length, mixer.mask)
            _require(_near(mixer(h[row : row + 1, :length], part)[0][0], y[row, :length]), "a sequence mixes alone")
        yield f"ok  {mode}: a sequence mixes the same alone and in a batch"
        if member.capabilities.packed:
            dense = packed_layout(layout, int(layout.lengths.sum()) + 2)
            together, _ = mixer(pack(h, layout, dense.shape[1]), dense)
            yield _require(_near(unpack(together, dense, 9), y), f"{mode}: packed is padded")
        yield _require(_sees_only_its_mask(mixer, h, layout), f"{mode}: no gradient reaches what the mask hides")
    if member.capabilities.state != "none" and MaskSpec("causal") in masks:
        yield from _decoding(_random_mixer(member, MaskSpec("causal")))


def _random_mixer(member: type[SequenceMixer], mask: MaskSpec) -> SequenceMixer:
    source = torch.Generator().manual_seed(0)
    with as_user_error(member.__name__):
        mixer = member(_WIDTH, mask).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=source))
    return mixer


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)


def _sees_only_its_mask(mixer: SequenceMixer, h: Float[Tensor, "B L D"], layout: Layout) -> bool:
    visible = mixer.mask.dense(layout)
    h = h.clone().requires_grad_()
    y, _ = mixer(h, layout)
    for query in range(layout.shape[1]):
        (gradient,) = torch.autograd.grad(y[:, query].sum(), h, retain_graph=True)
        if bool((gradient.ne(0).any(-1) & ~visible[:, query]).any()):
            return False
    return True


def _decoding(mixer: SequenceMixer) -> Iterator[str]:
    h = torch.randn(3, 9, _WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole, _ = mixer(h, Layout.padded(torch.full((3,), 9), 9, mixer.mask))
    state = mixer.init_state(3)
    outputs = []
    for place in range(9):
        y, state = mixer.step(h[:, place], state)
        outputs.append(y)
    yield _require(_near(torch.stack(outputs, 1), whole), "step by step is parallel")
    first, state = mixer(h[:, :5], Layout.padded(torch.full((3,), 5), 5, mixer.mask), keep="last")
    second, _ = mixer(h[:, 5:], Layout.padded(torch.full((3,), 4), 4, mixer.mask), state)
    yield _require(_near(torch.cat([first, second], 1), whole), "chunked is parallel")
    assert state is not None
    order = torch.tensor([2, 0, 0])
    chosen, _ = mixer.step(h[order, 5], state.select(order))
    yield _require(_near(chosen, whole[order, 5]), "a state's rows stand alone")


class _Neighbours:
    """A network that answers from a token and its neighbours, as far as the process lets it look."""

    def __init__(self, process: Process) -> None:
        source = torch.Generator().manual_seed(3)
        self.ahead, self.numbers = process.attends.mode == "full", process.writes == "numbers"
        self.width = process.outputs + 1 if self.numbers else process.vocabulary.total
        self.table = torch.randn(3, self.width, process.outputs, dtype=torch.float64, generator=source)

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Float[Tensor, "B S V"]:
        inside = batch.layout.valid[..., None]
        if self.numbers:
            known = torch.cat([batch.tokens, torch.ones_like(batch.tokens[..., :1])], -1)
        else:
            known = one_hot(torch.where(batch.layout.valid, batch.tokens, 0), self.width).double()
        known = torch.where(inside, known, 0.0)
        edge = torch.zeros_like(known[:, :1])
        before, after = torch.cat([edge, known], 1)[:, :-1], torch.cat([known, edge], 1)[:, 1:]
        said = known @ self.table[0] + before @ self.table[1]
        said = said + after @ self.table[2] if self.ahead else said
        return said.tanh() if self.numbers else said


def _process(member: type[Process]) -> Iterator[str]:
    process = member(Vocabulary(0 if member.writes == "numbers" else 2))
    lengths = range(1, 5)
    process.fit(torch.tensor([*lengths]))
    network = _Neighbours(process)
    every = _some_numbers(process) if network.numbers else _every_sequence(lengths)
    count = every.layout.count
    noise = Noise.start(0, torch.arange(count))
    loss = process.loss(network, every, noise)
    yield _require(bool(torch.isfinite(loss.mean())), "the loss is finite")
    yield _require(
        torch.equal(loss.values, process.loss(network, every, noise).values), "the same noise, the same loss"
    )
    result = process.likelihood(network, every, noise, 64)
    some = torch.tensor([count - 1, 0])
    few = process.likelihood(network, every.select(some), noise.select(some), 64)
    yield _require(_near(few.nll, result.nll[some]), "a likelihood does not depend on the batch")
    yield from _process_draws(process, network)
    if network.numbers:
        yield from _density(process, network)
        return
    mass = (-result.nll).exp()
    slack = 5 * float((mass * result.error).square().sum().sqrt()) + 1e-6
    yield _require(float(mass.sum()) <= 1 + slack, "likelihoods of all sequences sum to 1 at most")
    yield from _process_samples(process, network, every, mass if result.kind == "exact" else None)


def _every_sequence(lengths: Sequence[int]) -> SequenceBatch:
    """All sequences of two letters."""
    rows = [list(row) for n in lengths for row in itertools.product(range(2), repeat=n)]
    tokens = torch.tensor([row + [0] * (lengths[-1] - len(row)) for row in rows])
    return SequenceBatch(tokens, Layout.padded(torch.tensor([len(row) for row in rows]), lengths[-1]))


def _some_numbers(process: Process) -> SequenceBatch:
    """Sequences of one to four places."""
    numbers = torch.randn(12, 4, process.outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return SequenceBatch(numbers, Layout.padded(torch.arange(12) % 4 + 1, 4))


def _process_draws(process: Process, network: _Neighbours) -> Iterator[str]:
    """Laws of single draws."""
    noise = Noise.start(1, torch.arange(_DRAWS))
    start = process.prior(process.lengths(noise, (1, 2, 3, 4)), noise)
    samples = Stepwise(8).sample(process, network, start, noise).tokens
    few = torch.tensor([17, 3])
    alone = Stepwise(8).sample(process, network, start.select(few), noise.select(few)).tokens
    same = all(
        one.shape == samples[row].shape and _near(one.double(), samples[row].double())
        for one, row in zip(alone, few.tolist(), strict=True)
    )
    yield _require(same, "a draw ignores its batch")
    if start.tokens.shape[1]:
        tokens, fixed = start.tokens.clone(), torch.zeros_like(start.tokens, dtype=torch.bool)
        tokens[:, 0], fixed[:, 0] = 1, True
        held = Stepwise(8).sample(process, network, SequenceBatch(tokens, start.layout, fixed=fixed), noise)
        yield _require(all(bool((row[0] == 1).all()) for row in held.tokens), "fixed sites never move")


def _process_samples(
    process: Process, network: _Neighbours, every: SequenceBatch, mass: Float[Tensor, " N"] | None
) -> Iterator[str]:
    """Laws of many draws of tokens; `mass` are the probabilities of `every` sequence, where they are exact."""
    noise = Noise.start(1, torch.arange(_DRAWS))
    start = process.prior(process.lengths(noise, (1, 2, 3, 4)), noise)
    samples = [row.tolist() for row in Stepwise(8).sample(process, network, start, noise).tokens]
    inside = all(0 <= token < process.vocabulary.size for row in samples for token in row)
    yield _require(inside, "samples hold data tokens only")
    if mass is not None:
        lengths = every.layout.lengths.tolist()
        rows = [row[:length] for row, length in zip(every.tokens.tolist(), lengths, strict=True)]
        counts = np.array([samples.count(row) for row in rows], dtype=float)
        expected = (mass / mass.sum()).numpy() * counts.sum()
        # Few draws of a sequence say little: rare ones count together.
        rare = expected < 10
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        known = expected > 0
        holds = not counts[~known].any() and float(chisquare(counts[known], expected[known]).pvalue) > _LEAST_P
        yield _require(holds, "sequences are drawn as often as their likelihood says")


def _density(process: Process, network: _Neighbours) -> Iterator[str]:
    """Laws of single numbers: their density over a grid that holds them all but for a mass of 1e-8."""
    if process.outputs > 1:
        return
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    single = SequenceBatch(grid[:, None, None], Layout.padded(torch.ones(len(grid), dtype=torch.long), 1))
    result = process.likelihood(network, single, Noise.start(2, torch.arange(len(grid))), 240)
    mass = (-result.nll).exp() * (grid[1] - grid[0])
    slack = float((mass * result.error).sum()) + 1e-3
    yield _require(float(mass.sum()) <= 1 + slack, "the density of single numbers has a mass of 1 at most")
    noise = Noise.start(1, torch.arange(_DRAWS))
    start = process.prior(process.lengths(noise, (1,)), noise)
    drawn = torch.stack(Stepwise(32).sample(process, network, start, noise).tokens).flatten().numpy()
    below = ((mass.cumsum(0) - mass / 2) / mass.sum()).numpy()
    holds = float(kstest(drawn, lambda x: np.interp(x, grid.numpy(), below)).pvalue) > _LEAST_P
    yield _require(holds, "numbers are drawn as often as their density says")


def _tokenizer(member: type[Tokenizer[Any]]) -> Iterator[str]:
    tokenizer, source = member(), random.Random(0)
    size = tokenizer.vocabulary.size
    yield _require(len(tokenizer.letters) == size, "every data token has a written form")
    for _ in range(200):
        ids = [source.randrange(size) for _ in range(source.randrange(1, 30))]
        value = tokenizer.decode(ids)
        _require(tokenizer.decode(tokenizer.encode(value)) == value, "decode(encode(x)) is x")
    yield "ok  decode(encode(x)) is x"
    for _ in range(200):
        try:
            tokenizer.decode([source.randrange(-3, size + 9) for _ in range(5)])
        except UserError:
            continue
    yield "ok  arbitrary ids decode or are refused"
