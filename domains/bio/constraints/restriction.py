"""DNA that named restriction enzymes do not recognise."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.guidance.constraints._motif import Motif, MotifAutomaton
from core.guidance.constraints._parse import token_ids, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper, did_you_mean
from core.tokenizers.base import Tokenizer
from domains.base import shown
from domains.bio.alphabet import DNA, reverse_complement

_USAGE = "restriction:EcoRI:BsaI:5flank=ACGT:3flank=ACGT"
_FLANK = re.compile(r"([53])\s*flank\s*=(.*)", re.DOTALL)


class Restriction(Constraint):
    """`restriction:EcoRI:BsaI`: no recognition site of either, on either strand.

    Enzymes are named as in REBASE. `5flank=` and `3flank=` give the bases that will stand before and
    after the sequence: a site across the junction is forbidden too, one that lies in a flank alone is not
    the sequence's and does no harm.
    """

    paper = Paper("ours", "REBASE recognition sites, by Biopython's Restriction")
    kind = "dna"

    def __init__(self, *arguments: str) -> None:
        self._name = written("restriction", arguments, _USAGE, most=len(arguments) or 1)
        flanks = {"5": "", "3": ""}
        sites: dict[str, None] = {}
        for argument in arguments:
            found = _FLANK.fullmatch(argument.strip())
            if found is not None:
                flanks[found[1]] = _bases(found[2].strip(), found[1], self._name)
                continue
            for enzyme in filter(None, map(str.strip, argument.split(","))):
                for text in _recognised(enzyme, self._name):
                    sites |= dict.fromkeys((text, reverse_complement(text)))
        if not sites:
            raise UserError(f"constraint {self._name}: it names no enzyme; write it as {_USAGE}")
        self._before, self._after, self._sites = flanks["5"], flanks["3"], tuple(sites)

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton:
        ids = token_ids(tokenizer, self._name)
        parts = []
        for site in self._sites:
            # No more flank than a site reaches over the junction.
            reach = len(site) - 1
            before, after = self._before[max(0, len(self._before) - reach) :], self._after[:reach]
            motif = Motif.parse(site, self._name)
            automaton = motif.automaton(tokenizer, len(before) + length + len(after), wanted=False)
            parts.append(_Part(automaton, [ids[base] for base in before], [ids[base] for base in after], length))
        return _All(parts)

    def check(self, value: str) -> bool:
        text, first, last = self._before + value + self._after, len(self._before), len(self._before) + len(value)
        for site in self._sites:
            pattern = "".join(f"[{''.join(sorted(DNA.ambiguity.get(code, code)))}]" for code in site)
            for found in re.finditer(f"(?=({pattern}))", text):
                if found.start(1) < last and found.end(1) > first:
                    return False
        return True


@dataclass(frozen=True, eq=False)
class _Part:
    """One site's automaton, and the flanks it reads around a sequence of `length` tokens."""

    automaton: MotifAutomaton
    before: Sequence[int]
    after: Sequence[int]
    length: int

    def start(self) -> int:
        state = self._run(self.automaton.start(), 0, self.before)
        assert state is not None  # shorter than the site
        return state

    def advance(self, state: int, position: int, token: int) -> int | None:
        return self.automaton.advance(state, len(self.before) + position, token)

    def accepts(self, state: int) -> bool:
        return self._run(state, len(self.before) + self.length, self.after) is not None

    def _run(self, state: int, position: int, tokens: Sequence[int]) -> int | None:
        reached: int | None = state
        for place, token in enumerate(tokens, start=position):
            if reached is not None:
                reached = self.automaton.advance(reached, place, token)
        return reached


class _All(Automaton):
    """Several sites at once."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self.kinds = list(zip(*(part.automaton.kinds or () for part in parts), strict=True))

    def start(self) -> tuple[int, ...]:
        return tuple(part.start() for part in self._parts)

    def advance(self, state: tuple[int, ...], position: int, token: int) -> tuple[Hashable, ...] | None:
        after: list[int] = []
        for part, place in zip(self._parts, state, strict=True):
            reached = part.advance(place, position, token)
            if reached is None:
                return None
            after.append(reached)
        return tuple(after)

    def accepts(self, state: tuple[int, ...]) -> bool:
        return all(part.accepts(place) for part, place in zip(self._parts, state, strict=True))


def _recognised(enzyme: str, name: str) -> list[str]:
    """What an enzyme recognises, in IUPAC codes, without the free bases around it; a few take one of several."""
    from Bio import Restriction as rebase

    known = {str(member): str(member.site) for member in rebase.AllEnzymes}
    if enzyme not in known:
        near = did_you_mean(enzyme, tuple(sorted(known)))
        remedy = near if len(near) < 60 else ": names are those of REBASE, such as EcoRI"
        raise UserError(f"constraint {name}: no enzyme is called {shown(enzyme, 20)}{remedy}")
    return [site.strip("N") for site in known[enzyme].split("|")]


def _bases(text: str, end: str, name: str) -> str:
    found = DNA.fault(text)
    if found is not None:
        raise UserError(f"constraint {name}: {end}flank, position {found[0] + 1}: {found[1]}")
    return text
