"""`motif generate`: sequences under objectives and constraints, with a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from core.data.noise import Noise
from core.data.sequence_batch import SOURCE, Memory, SequenceBatch
from core.decoding import registry as samplers
from core.decoding.base import Sampler, Samples
from core.errors import UserError, as_user_error
from core.guidance.constraint_set import ConstraintSet
from core.guidance.items import rules, split_list, targets
from core.guidance.known import Known
from core.guidance.objectives.base import Scoreboard
from core.guidance.pareto import best_of
from core.processes.base import Process
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Tokenizer
from core.training.model import GenerativeModel
from domains.base import shown
from domains.tasks import Task
from pipelines.compose import refuse_small
from pipelines.guided import guidance
from pipelines.load import Loaded, configured
from pipelines.pairs import sources_asked
from pipelines.present import Outcome, present, read_reference
from pipelines.run import DRAWN, Run
from pipelines.template import start_from

# Slots of the noise that no particle reaches.
_LAST_SLOT = (1 << 16) - 1


@dataclass(frozen=True, eq=False)
class Generation:
    """What a run of `generate` gives: sequences, raw scores `[N, M]`, and metrics.json's content."""

    sequences: tuple[Any, ...]
    scores: NDArray[np.float64]
    metrics: Mapping[str, Any]
    out: Path


def generate(config: Mapping[str, Any], loaded: Loaded | None = None) -> Generation:
    """Load, draw, check, score, select, report."""
    task = Task.of(config)
    loaded = loaded or configured(config, task)
    board = Scoreboard(targets(config["objectives"], task.objectives, loaded.tokenizer), loaded.tokenizer.canonical)
    asked = rules([*task.rules, *config["constraints"]], task.constraints, loaded.tokenizer)
    refuse_small(config, {"n": 1, "best_of": 1, "batch_size": 1})
    if config["best_of"] > 1 and not board.targets:
        raise UserError("best_of needs objectives to choose by")
    constraints = ConstraintSet(asked, loaded.tokenizer, range(1, loaded.model.process.limit + 1))
    condition, outside = asked_condition(config["condition"], loaded)
    sources, reading = sources_asked(config, loaded)
    encoded = [loaded.tokenizer.encode(source) for source in sources]
    drawn = Drawing(config, loaded.model, loaded.tokenizer, constraints, condition, board, encoded)
    reference, bound = read_reference(loaded.folder, asked_class(condition, loaded)), constraints.constraints
    run = Run("generate", config)
    values = drawn.all(run)
    scores = board.score(values)
    kept = _select(config, board, scores)
    names = [f"s{i}" for i in range(len(values))]
    outcome = Outcome(
        *(task, loaded, reference, bound, board, names, values, kept, drawn.network_calls, reading),
        outside=outside,
        log_normalisers=drawn.log_normalisers,
        sources=[source for source in sources for _ in range(drawn.each)],
    )
    metrics = present(run, outcome)
    return Generation(tuple(outcome.samples), scores[kept], metrics, run.finish())


def asked_condition(text: str | None, loaded: Loaded) -> tuple[Float[Tensor, "1 C"] | None, list[str]]:
    """The condition that `condition=` writes, None where it writes none, and what of it training never saw."""
    if text is None:
        return None, []
    if loaded.conditions is None:
        raise UserError(f"condition={text}: checkpoint {loaded.folder} was trained without conditions, drop it")
    parts = [part.partition(":") for part in split_list(text)]
    wanted = {name: value for name, mark, value in parts if mark}
    if not parts or len(wanted) < len(parts):
        raise UserError(f"condition={text}: write each column once as name:value, as in class:HepG2,activity:2.5")
    return loaded.conditions.ask(wanted)


def asked_class(condition: Float[Tensor, "1 C"] | None, loaded: Loaded) -> str | None:
    """The class that a condition asks for: real sequences of it stand beside the samples."""
    if loaded.conditions is None or condition is None:
        return None
    first = 0
    for column in loaded.conditions.columns:
        chosen = condition[0, first : first + column.width]
        if column.labels and bool((chosen == 1).any()):
            return column.labels[int(chosen.argmax())]
        first += column.width
    return None


def _select(config: Mapping[str, Any], board: Scoreboard, scores: NDArray[np.float64]) -> list[int]:
    """The best of all, or of those that share a source."""
    if config["best_of"] == 1:
        return list(range(len(scores)))
    utility, each = board.utility(scores), config["n"] * config["best_of"]
    return [
        first + place
        for first in range(0, len(scores), each)
        for place in sorted(int(i) for i in best_of(utility[first : first + each], config["n"]))
    ]


def _finished_batches(file: Path) -> list[dict[str, Any]]:
    """What an interrupted call has drawn; a line that it did not finish is cut off the file."""
    if not file.is_file():
        return []
    with open(file, "r+b") as stream:
        lines = stream.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        stream.truncate(sum(map(len, whole)))
    return [json.loads(line) for line in whole]


class Drawing:
    """Draws all batches of a run, keeping each in the run's folder so that a stop loses one at most.

    condition: rows that the sequences take in turn. board: the objectives that guides may ask. sources:
    ids of what the sequences are made from; each serves as many as are asked for, one after the other.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        model: GenerativeModel,
        tokenizer: Tokenizer[Any],
        constraints: ConstraintSet,
        condition: Float[Tensor, "R C"] | None = None,
        board: Scoreboard | None = None,
        sources: Sequence[Sequence[int]] = (),
    ) -> None:
        self.config, self.model, self.tokenizer, self.constraints = config, model, tokenizer, constraints
        self.sources, self.each = sources, config["n"] * config["best_of"]
        self._refuse_lengths()
        self.condition = None if condition is None else condition.to(model.device)
        self.network_calls, self.board, self._told = 0, board, 0
        self.log_normalisers: list[float] = []
        settings = {key: value for key, value in (config.get("sampler") or {}).items() if key != "name"}
        name = sampler_name(config, type(model.process))
        member = samplers.get(name)
        self.known: Known | None = None
        self._looked = 0
        given = guidance(config, name, tokenizer, board, condition, lambda: self.known)
        self.pilot = max((guide.pilot for guide in given.get("guides", ())), default=0)
        with as_user_error(f"sampler {name}"):
            self.sampler = member(**settings, **given)
            self.plain = samplers.get(type(model.process).sampler)() if member.steered else member(**settings)
        self.sampler.suits(model.process)
        template = config.get("template")
        begin = start_from(template, model.process, tokenizer, constraints) if template else None
        self.begin = None if begin is None else begin.to(model.device)
        # Before anything is written: the list may be too short.
        self.found = self._searched(name) if self.sampler.searches else None

    def _refuse_lengths(self) -> None:
        """`UserError` for a source of a length that no sequence may have, where a sequence keeps it."""
        allowed = self.constraints.feasible_lengths
        for ids in self.sources if self.model.process.pairs else ():
            if len(ids) not in allowed:
                raise UserError(
                    f"source {shown(str(self.tokenizer.decode(ids)))}: what is made from it has its {len(ids)} tokens, "
                    f"and the model's limit of {self.model.process.limit} or a constraint rules that length out"
                )

    def all(self, run: Run) -> list[Any]:
        """Every sequence, decoded, by its number."""
        total = self.each * max(1, len(self.sources))
        file = run.folder / DRAWN
        done = _finished_batches(file)
        self.network_calls = sum(batch["network_calls"] for batch in done)
        ids = [sequence for batch in done for sequence in batch["ids"]]
        self.log_normalisers = [value for batch in done for value in batch["log_normalisers"]]
        self._recall([pair for batch in done for pair in batch["scored"]])
        with open(file, "a", encoding="utf-8") as stream, tqdm(total=total, initial=len(ids), unit="seq") as bar:
            for batch in self._batches(len(ids), total):
                stream.write(json.dumps({**batch, "scored": self._newly_scored()}) + "\n")
                stream.flush()
                ids += batch["ids"]
                self.network_calls += batch["network_calls"]
                self.log_normalisers += batch["log_normalisers"]
                bar.update(len(batch["ids"]))
        return [self.tokenizer.decode(sequence) for sequence in ids]

    def _newly_scored(self) -> list[tuple[list[int], list[float]]]:
        """The ids and scores of what was scored since this was last asked."""
        new = [] if self.board is None else self.board.scored(self._told)
        self._told += len(new)
        return [(self.tokenizer.encode(value), scores) for value, scores in new]

    def _recall(self, scored: Sequence[tuple[list[int], list[float]]]) -> None:
        """What an interrupted run has scored while it drew."""
        if self.board is not None and scored:
            values = [self.tokenizer.decode(ids) for ids, _ in scored]
            self.board.recall(values, np.array([scores for _, scores in scored]))
        self._newly_scored()

    def _batches(self, first: int, total: int) -> Iterator[dict[str, Any]]:
        """What is kept of each batch that is still to be drawn."""
        if self.found is not None:
            if first < total:
                yield {"ids": self.found[0], "network_calls": self.found[1], "log_normalisers": []}
            return
        for start in range(first, total, self.config["batch_size"]):
            ids = torch.arange(start, min(start + self.config["batch_size"], total), device=self.model.device)
            samples = self._sampled(ids)
            kept = {"ids": [row.tolist() for row in samples.tokens], "network_calls": samples.network_calls}
            particles = samples.particles
            yield {**kept, "log_normalisers": [] if particles is None else particles.log_normalisers.tolist()}

    def _searched(self, sampler: str) -> tuple[list[list[int]], int]:
        """The best of what a search lists for each start, and its calls of the network."""
        starts, calls = min(self.sampler.starts, self.each), 0
        first = torch.arange(max(1, len(self.sources)), device=self.model.device) * self.each
        listed: list[list[list[int]]] = []
        for ids in (
            (first[:, None] + torch.arange(starts, device=first.device)).flatten().split(self.config["batch_size"])
        ):
            samples = self._sampled(ids)
            calls += samples.network_calls
            listed += [[hypothesis.tokens.tolist() for hypothesis in ranked] for ranked in samples.ranked]
        found: list[list[int]] = []
        for number in range(0, len(listed), starts):
            best = self._best([sequence for ranked in listed[number : number + starts] for sequence in ranked])
            if len(best) < self.each:
                raise UserError(
                    f"sampler={sampler} finds {len(best)} sequences, {self.each} are asked for: "
                    f"raise sampler.{self.sampler.widened_by}, or pass n={len(best)}"
                )
            found += best
        return found, calls

    def _best(self, listed: list[list[int]]) -> list[list[int]]:
        """As many as are asked for of what a search lists: its first, or the best under what steers it."""
        if not self.sampler.steered:
            return listed[: self.each]
        assert self.board is not None
        distinct = {self.tokenizer.decode(sequence): sequence for sequence in reversed(listed)}
        utility = self.board.utility(self.board.score([*distinct]))
        return [[*distinct.values()][place] for place in best_of(utility, self.each)]

    def _sampled(self, ids: Int[Tensor, " N"]) -> Samples:
        if self.pilot and self.known is None:
            self.known = self._first_look()
        samples = self._drawn(self.sampler, Noise.start(self.config["seed"], ids))
        # What the first look cost is the first batch's.
        first = bool((ids == 0).any())
        return replace(samples, network_calls=samples.network_calls + first * self._looked)

    def _first_look(self) -> Known:
        """What unguided sequences score: the same whatever is drawn besides, as these have slots of their own."""
        total = self.each * len(self.sources) or self.pilot
        number = torch.arange(self.pilot, device=self.model.device)
        noise = Noise.start(self.config["seed"], number % total)
        noise = replace(noise, slots=_LAST_SLOT - number // total)
        samples = self._drawn(self.plain, noise)
        values, self._looked = [self.tokenizer.decode(row.tolist()) for row in samples.tokens], samples.network_calls
        assert self.board is not None
        return Known.of(self.board.utility(self.board.score(values)), values)

    def _drawn(self, sampler: Sampler, noise: Noise) -> Samples:
        ids = noise.sequences
        with torch.no_grad():
            condition = None if self.condition is None else self.condition[ids % len(self.condition)]
            source = self._source(ids) if self.sources else None
            if source is not None and self.model.process.pairs:
                assert isinstance(self.model.process, MixtureFlow)
                begin = self.model.process.begin(source.batch.select(source.owner))
            elif self.begin is None:
                lengths = self.model.process.lengths(noise, self.constraints.feasible_lengths, condition)
                begin = self.model.process.prior(lengths, noise)
            else:
                begin = self.begin.select(torch.zeros_like(ids))
            memories = {} if source is None else {SOURCE: source}
            begin = self.model.network.encoded(replace(begin, condition=condition, memories=memories))
            return sampler.sample(self.model.process, self.model.network, begin, noise, self.constraints)

    def _source(self, ids: Int[Tensor, " N"]) -> Memory:
        """The sources of some sequences, each once."""
        numbers, owner = torch.unique(ids // self.each, return_inverse=True)
        rows = [torch.tensor(self.sources[number], dtype=torch.long) for number in numbers.tolist()]
        batch = SequenceBatch.padded(rows, self.tokenizer.vocabulary.pad).to(self.model.device)
        return Memory(batch, torch.where(batch.layout.lengths[owner] > 0, owner, -1))


def sampler_name(config: Mapping[str, Any], process: type[Process]) -> str:
    """The sampler that a run names, else the process's own."""
    return config["sampler"]["name"] if config.get("sampler") else process.sampler
