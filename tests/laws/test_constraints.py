"""What every set of constraints obeys, by enumeration of small alphabets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from core.guidance import constraint_set as constraint_set_module
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints._layered import Layered
from core.guidance.constraints._motif import MotifAutomaton
from core.guidance.constraints._tables import Tables
from core.guidance.constraints.base import Constraint
from core.guidance.constraints.composition import _Count
from core.registry import Paper
from core.tokenizers.base import Tokenizer, Vocabulary
from domains.bio.constraints.restriction import _Part
from domains.bio.tokenizers.dna import Dna
from domains.tasks import DOMAINS, default_task

REGISTRIES = {domain: default_task(domain).constraints for domain in DOMAINS}
DRAWS = 20_000
LEAST_P = 1e-4  # frozen
LETTERS = "ABCD"


class Letters(Tokenizer[str]):
    """A few letters, and Z for A or B."""

    paper = Paper("ours", "Toy alphabet")
    ambiguity = {"Z": frozenset("AB"), "A": frozenset("B")}

    def __init__(self, letters: str = LETTERS) -> None:
        self._letters = letters

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(len(self._letters))

    @property
    def letters(self) -> Sequence[str]:
        return tuple(self._letters)

    def encode(self, value: str) -> list[int]:
        return [self._letters.index(letter) for letter in value]

    def decode(self, ids: Sequence[int], context: Any = None) -> str:
        return "".join(self._letters[i] for i in ids)

    def settings(self) -> Mapping[str, Any]:
        return {"letters": self._letters}


TOKENIZER = Letters()
# What the rules of one kind of sequence are tried on; four letters as well.
KINDS: dict[str | None, Tokenizer[str]] = {None: TOKENIZER, "dna": Dna()}

# Sets of items as written, by the member or the mixture they stand for.
TOYS: dict[str, tuple[str, ...]] = {
    "length": ("length:2..4",),
    "alphabet": ("alphabet:ACD",),
    "fixed": ("fixed:2B,-1C",),
    "contains": ("contains:A-x-[BC]",),
    "contains_at_end": ("contains:A-{B}(1,2)>",),
    "contains_at_start": ("contains:<x(0,1)-A(2)",),
    "contains_code": ("contains:Z-Z-C",),
    "forbid": ("forbid:AB",),
    "forbid_at_end": ("forbid:C-x(0,2)-D>",),
    "forbid_at_start": ("forbid:<[AB]-x(1,2)-{A}",),
    "forbid_code": ("forbid:ZC",),
    "repeat": ("repeat:1",),
    "repeat_twice": ("repeat:2",),
    "repeat_some": ("repeat:1:AC",),
    "composition": ("composition:AB:0.3..0.6",),
    "composition_count": ("composition:A:1..2",),
    "composition_open": ("composition:CD:..0.5",),
    "composition_window": ("composition:AB:1..2:w=3",),
    "composition_share_window": ("composition:A:0.5..0.75:w=4",),
    "within": ("within:2:ABCDA",),
    "mixture": ("length:3..5", "forbid:AB", "repeat:2", "composition:AC:0.2..0.7", "contains:C-x(0,1)-A"),
    "nothing": (),
    "gc": ("gc:0.3..0.6",),
    "gc_percent": ("gc:25..50",),
    "gc_window": ("gc:3:0.3..0.7",),
    "gc_banded": ("gc:4:0.0..0.9:banded",),
    "gc_window_of_all": ("gc:5:0.0..0.8:banded",),
    "homopolymer": ("homopolymer:2",),
    "homopolymer_some": ("homopolymer:1:GT",),
    "restriction": ("restriction:AluI",),
    "restriction_both_strands": ("restriction:AciI",),
    "restriction_codes": ("restriction:HinfI",),
    "restriction_two": ("restriction:AluI,MnlI",),
    "restriction_flanks": ("restriction:AciI:AluI:5flank=TTGACC:3flank=CTTAGCT",),
    "restriction_within_flanks": ("restriction:EcoRI:5flank=GAATTC:3flank=AATTCGAA",),
    "dna": ("gc:3:0.3..0.7", "homopolymer:2", "restriction:HinfI:AciI:3flank=GC"),
}


def built(items: Sequence[str]) -> list[Constraint]:
    registry = REGISTRIES["bio"]
    return [registry.get(key)(*arguments) for key, *arguments in (item.split(":") for item in items)]


def toy(name: str, lengths: Sequence[int] = range(1, 6)) -> ConstraintSet:
    rules = built(TOYS[name])
    return ConstraintSet(rules, alphabet(rules), lengths)


def alphabet(rules: Sequence[Constraint]) -> Tokenizer[str]:
    """The toy letters that all of some rules can read."""
    kinds = {rule.kind for rule in rules} - {None}
    return KINDS[next(iter(kinds), None)]


def everything(length: int) -> list[tuple[int, ...]]:
    return list(product(range(len(LETTERS)), repeat=length))


def obeys(constraints: ConstraintSet, sequence: Sequence[int]) -> bool:
    """The members' own check of the written sequence, without any automaton."""
    value = alphabet(constraints.constraints).decode(sequence)
    return all(constraint.check(value) for constraint in constraints.constraints)


def accepted_set_is_the_checked_set(name: str) -> None:
    constraints = toy(name)
    checked_lengths = []
    for length in range(1, 6):
        sequences = everything(length)
        checked = [obeys(constraints, sequence) for sequence in sequences]
        accepted = constraints.feasible(torch.tensor(sequences), torch.full((len(sequences),), length))
        assert torch.equal(accepted, torch.tensor(checked)), f"{name} differs at length {length}"
        checked_lengths += [length] if any(checked) else []
    assert constraints.feasible_lengths == tuple(checked_lengths)


def drawn_law_is_the_conditional(name: str, length: int, settled: Mapping[int, int]) -> None:
    constraints = toy(name)
    law = torch.randn(length, len(LETTERS), dtype=torch.double, generator=torch.Generator().manual_seed(7)) * 1.5
    # A site with a token out of its support, and unnormalised laws.
    law[0, 3] = -torch.inf
    law = law + torch.arange(length)[:, None]
    held = torch.tensor([settled.get(i, -1) for i in range(length)])
    fitting = {
        sequence: float(sum(law.log_softmax(-1)[i, token] for i, token in enumerate(sequence) if held[i] < 0))
        for sequence in everything(length)
        if obeys(constraints, sequence) and all(sequence[i] == token for i, token in settled.items())
    }
    logs = torch.tensor(list(fitting.values()), dtype=torch.double)
    expected = dict(zip(fitting, logs.softmax(0).tolist(), strict=True))
    drawn = constraints.draw(
        law.expand(DRAWS, -1, -1),
        torch.full((DRAWS,), length),
        torch.rand(DRAWS, length, dtype=torch.double),
        held.expand(DRAWS, -1),
    )
    counts = Counter(map(tuple, drawn.tolist()))
    assert all(expected.get(sequence, 0.0) > 0 for sequence in counts), "a sequence outside the law was drawn"
    assert goodness(expected, counts) > LEAST_P
    mass = constraints.log_mass(law[None], torch.tensor([length]), held[None])
    assert torch.allclose(mass, logs.logsumexp(0), atol=1e-10)


def goodness(expected: Mapping[Any, float], counts: Counter[Any]) -> float:
    """p of the chi-square test, cells of small expectation pooled."""
    cells = sorted(((p * DRAWS, counts[key]) for key, p in expected.items()), reverse=True)
    large = [cell for cell in cells if cell[0] >= 10]
    small = [cell for cell in cells if cell[0] < 10]
    pooled = large + ([(sum(e for e, _ in small), sum(o for _, o in small))] if sum(e for e, _ in small) > 1 else [])
    if len(pooled) < 2:
        return 1.0
    wanted, seen = zip(*pooled, strict=True)
    total = sum(wanted)
    return float(chisquare(seen, [e * sum(seen) / total for e in wanted]).pvalue)


def appended_sequences_are_the_accepted_ones(name: str) -> None:
    constraints = toy(name)
    end = len(LETTERS)
    # Every path that the masks allow, all paths of one length at once.
    paths, state, finished = [()], constraints.start(1), set()
    while paths:
        allowed = constraints.allowed(state)
        assert bool(allowed.any(1).all()), "a dead end"
        finished |= {path for path, row in zip(paths, allowed, strict=True) if row[end]}
        rows, tokens = allowed[:, :end].nonzero(as_tuple=True)
        paths = [(*paths[row], token) for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)]
        state = constraints.advance(state.select(rows), tokens)
    wanted = {s for length in range(1, 6) for s in everything(length) if obeys(constraints, s)}
    assert not finished ^ wanted


def test_every_member_has_a_toy() -> None:
    keys = {key for registry in REGISTRIES.values() for key in registry.keys()}
    assert keys <= {item.partition(":")[0] for items in TOYS.values() for item in items}


@pytest.mark.parametrize("name", TOYS)
def test_accepted_set_is_the_checked_set(name: str) -> None:
    accepted_set_is_the_checked_set(name)


@pytest.mark.parametrize("name", TOYS)
def test_appended_sequences_are_the_accepted_ones(name: str) -> None:
    appended_sequences_are_the_accepted_ones(name)


@pytest.mark.parametrize(
    ("name", "length", "settled"),
    [
        ("forbid", 2, {}),  # both sites of the forbidden pair jump
        ("forbid", 4, {1: 0, 3: 1}),
        ("forbid_at_end", 4, {}),
        ("composition_window", 5, {}),
        ("composition_window", 5, {0: 2, 3: 3}),
        ("composition", 4, {2: 1}),
        ("contains", 5, {}),
        ("contains", 4, {0: 2, 2: 1}),
        ("repeat", 4, {}),
        ("repeat_twice", 5, {1: 2, 2: 2}),
        ("within", 5, {}),
        ("within", 5, {0: 2, 4: 2}),
        ("fixed", 4, {}),
        ("alphabet", 3, {}),
        ("length", 3, {0: 1}),
        ("mixture", 5, {}),
        ("mixture", 5, {2: 2}),
        ("nothing", 3, {1: 3}),
        ("gc_banded", 5, {}),
        ("homopolymer_some", 4, {2: 3}),
        ("restriction_flanks", 4, {}),
        ("dna", 5, {1: 0}),
    ],
)
def test_drawn_law_is_the_conditional(name: str, length: int, settled: Mapping[int, int]) -> None:
    drawn_law_is_the_conditional(name, length, settled)


@pytest.mark.parametrize("name", TOYS)
def test_every_masked_append_ends_accepted(name: str) -> None:
    constraints = toy(name)
    state, rows = constraints.start(500), torch.arange(500)
    drawn: list[list[int]] = [[] for _ in rows]
    while len(rows):
        token = torch.multinomial(constraints.allowed(state).double(), 1)[:, 0]
        state = constraints.advance(state, token)
        for row, value in zip(rows.tolist(), token.tolist(), strict=True):
            drawn[row] += [value] if value < len(LETTERS) else []
        keep = (token < len(LETTERS)).nonzero()[:, 0]
        state, rows = state.select(keep), rows[keep]
    assert all(obeys(constraints, sequence) for sequence in drawn)


# --- planted faults: each must be caught by the law named ---


def _backward_dropped(patch: pytest.MonkeyPatch) -> None:
    true = Tables._linear
    patch.setattr(Tables, "_linear", lambda self, law: [(message > 0).double() for message in true(self, law)])


def _weights_dropped(patch: pytest.MonkeyPatch) -> None:
    true = Tables._linear
    patch.setattr(Tables, "_linear", lambda self, law: true(self, torch.full_like(law, 0.25)))


def _settled_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constraint_set_module, "_forced", lambda law, settled: law.double().log_softmax(-1))


def _acceptance_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Count, "accepts", lambda self, state: True)


def _one_strand_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("domains.bio.constraints.restriction._All.__init__", _with_one_part)


def _with_one_part(self: Any, parts: Any) -> None:
    self._parts, self.kinds = parts[:1], parts[0].automaton.kinds


def _flanks_unread(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Part, "_run", lambda self, state, position, tokens: state)


def _band_twice_as_wide(patch: pytest.MonkeyPatch) -> None:
    # What the automaton lets through must stay within the exact rule, which `check` asks as well.
    patch.setattr("domains.bio.constraints.gc._band", lambda window, low, high: [(0, n) for n in range(1, window + 1)])


def _motif_only_at_the_start(patch: pytest.MonkeyPatch) -> None:
    true = MotifAutomaton.__init__

    def changed(self: Any, *arguments: Any) -> None:
        true(self, *arguments)
        self._again = False

    patch.setattr(MotifAutomaton, "__init__", changed)


def _only_the_first_constraint(patch: pytest.MonkeyPatch) -> None:
    true = ConstraintSet._joined
    patch.setattr(ConstraintSet, "_joined", lambda self, parts, chosen, n: true(self, parts, list(chosen)[:1], n))


def _equivalence_forgets_the_last_class(patch: pytest.MonkeyPatch) -> None:
    from core.guidance.constraints import _layered

    true = _layered._distinct_rows

    def changed(table: Any) -> Any:
        _, row_of = true(table[:, :-1] if table.shape[1] > 1 else table)
        first = [row_of.tolist().index(number) for number in range(row_of.max() + 1)]
        return table[first], row_of

    patch.setattr(_layered, "_distinct_rows", changed)


def _end_always_allowed(patch: pytest.MonkeyPatch) -> None:
    true = ConstraintSet.allowed

    def changed(self: ConstraintSet, state: Any) -> Any:
        allowed = true(self, state)
        allowed[:, -1] = True
        return allowed

    patch.setattr(ConstraintSet, "allowed", changed)


def _only_the_length_masked(patch: pytest.MonkeyPatch) -> None:
    true = ConstraintSet.allowed

    def changed(self: ConstraintSet, state: Any) -> Any:
        allowed = true(self, state)
        allowed[:, :-1] |= (state.position < 5)[:, None]
        return allowed

    patch.setattr(ConstraintSet, "allowed", changed)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (_backward_dropped, lambda: drawn_law_is_the_conditional("contains", 5, {})),
        (_backward_dropped, lambda: drawn_law_is_the_conditional("forbid", 2, {})),
        (_weights_dropped, lambda: drawn_law_is_the_conditional("composition_window", 5, {})),
        (_settled_ignored, lambda: drawn_law_is_the_conditional("forbid", 4, {1: 0, 3: 1})),
        (_acceptance_ignored, lambda: accepted_set_is_the_checked_set("composition")),
        (_acceptance_ignored, lambda: appended_sequences_are_the_accepted_ones("composition_count")),
        (_one_strand_only, lambda: accepted_set_is_the_checked_set("restriction_both_strands")),
        (_flanks_unread, lambda: accepted_set_is_the_checked_set("restriction_flanks")),
        (_band_twice_as_wide, lambda: accepted_set_is_the_checked_set("gc_banded")),
        (_motif_only_at_the_start, lambda: accepted_set_is_the_checked_set("forbid")),
        (_only_the_first_constraint, lambda: accepted_set_is_the_checked_set("mixture")),
        (_equivalence_forgets_the_last_class, lambda: accepted_set_is_the_checked_set("mixture")),
        (_end_always_allowed, lambda: appended_sequences_are_the_accepted_ones("length")),
        (_only_the_length_masked, lambda: appended_sequences_are_the_accepted_ones("within")),
    ],
)
def test_planted_faults_are_caught(
    fault: Callable[[pytest.MonkeyPatch], None], law: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


def test_minimal_automata_hold_no_state_twice() -> None:
    # Known size: counts 0..2 of three classes of letters do not multiply where they cannot matter.
    layered = Layered.of(built(["composition:A:1..2"])[0].compile(TOKENIZER, 4), 4, 4, 1000)  # type: ignore[arg-type]
    assert layered is not None and layered.widths == [1, 2, 3, 3, 1]
