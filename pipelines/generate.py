"""`motif generate`: sequences under objectives and constraints, with a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from core.data.noise import Noise
from core.decoding import registry as samplers
from core.errors import UserError, as_user_error
from core.guidance.constraint_set import ConstraintSet
from core.guidance.items import rules, targets
from core.guidance.objectives.base import Scoreboard
from core.guidance.pareto import best_of
from core.processes.autoregressive import Autoregressive
from core.processes.base import Process
from core.tokenizers.base import Tokenizer
from core.training.model import GenerativeModel
from domains.tasks import Task
from pipelines.compose import refuse_small
from pipelines.load import Loaded, configured
from pipelines.present import Outcome, present, read_reference
from pipelines.run import DRAWN, Run


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
    board = Scoreboard(targets(config["objectives"], task.objectives))
    asked = rules(config["constraints"], task.constraints)
    refuse_small(config, {"n": 1, "best_of": 1, "batch_size": 1})
    if config["best_of"] > 1 and not board.targets:
        raise UserError("best_of needs objectives to choose by")
    constraints = ConstraintSet(asked, loaded.tokenizer, range(1, loaded.model.process.limit + 1))
    drawn = Drawing(config, loaded.model, loaded.tokenizer, constraints)
    reference, bound = read_reference(loaded.folder), constraints.constraints
    run = Run("generate", config)
    values = drawn.all(run)
    scores = board.score(values)
    kept = _select(config, board, scores)
    names = [f"s{i}" for i in range(len(values))]
    outcome = Outcome(task, loaded, reference, bound, board, names, values, kept, drawn.network_calls)
    metrics = present(run, outcome)
    (run.folder / DRAWN).unlink()
    return Generation(tuple(outcome.samples), scores[kept], metrics, run.finish())


def _select(config: Mapping[str, Any], board: Scoreboard, scores: NDArray[np.float64]) -> list[int]:
    if config["best_of"] == 1:
        return list(range(len(scores)))
    return sorted(int(i) for i in best_of(board.utility(scores), config["n"]))


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
    """Draws all batches of a run, keeping each in the run's folder so that a stop loses one at most."""

    def __init__(
        self, config: Mapping[str, Any], model: GenerativeModel, tokenizer: Tokenizer[Any], constraints: ConstraintSet
    ) -> None:
        self.config, self.model, self.tokenizer, self.constraints = config, model, tokenizer, constraints
        self.network_calls = 0
        settings = {key: value for key, value in (config.get("sampler") or {}).items() if key != "name"}
        name = sampler_name(config, type(model.process))
        member = samplers.get(name)
        with as_user_error(f"sampler {name}"):
            self.sampler = member(**settings)

    def all(self, run: Run) -> list[Any]:
        """Every sequence, decoded, by its number."""
        total = self.config["n"] * self.config["best_of"]
        file = run.folder / DRAWN
        done = _finished_batches(file)
        self.network_calls = sum(batch["network_calls"] for batch in done)
        ids = [sequence for batch in done for sequence in batch["ids"]]
        with open(file, "a", encoding="utf-8") as stream, tqdm(total=total, initial=len(ids), unit="seq") as bar:
            for batch, calls in self._batches(len(ids), total):
                stream.write(json.dumps({"ids": batch, "network_calls": calls}) + "\n")
                stream.flush()
                ids += batch
                self.network_calls += calls
                bar.update(len(batch))
        return [self.tokenizer.decode(sequence) for sequence in ids]

    def _batches(self, first: int, total: int) -> Iterator[tuple[list[list[int]], int]]:
        for start in range(first, total, self.config["batch_size"]):
            ids = torch.arange(start, min(start + self.config["batch_size"], total), device=self.model.device)
            noise = Noise.start(self.config["seed"], ids)
            with torch.no_grad():
                lengths = self.model.process.lengths(noise, self.constraints.feasible_lengths)
                begin = self.model.process.prior(lengths, noise)
                samples = self.sampler.sample(self.model.process, self.model.network, begin, noise, self.constraints)
            yield [row.tolist() for row in samples.tokens], samples.network_calls


def sampler_name(config: Mapping[str, Any], process: type[Process]) -> str:
    """The sampler that a run names, else the one that fits the process."""
    default = "ancestral" if issubclass(process, Autoregressive) else "stepwise"
    name = config["sampler"]["name"] if config.get("sampler") else default
    if name == "ancestral" != default:
        raise UserError("sampler=ancestral needs an autoregressive checkpoint, drop it or name another")
    return name
