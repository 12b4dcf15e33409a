"""What a run of sequences shows: measures beside the floor of real data, files of the domain, the report."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from core.errors import UserError
from core.evaluation.real_floor import real_floor
from core.guidance.constraints.base import Constraint, violations
from core.guidance.objectives.base import Scoreboard
from core.guidance.pareto import ParetoArchive
from domains.base import MetricContext, ReadReport
from domains.tasks import Task
from pipelines.load import Loaded
from pipelines.page import Page
from pipelines.run import Run, file_hash, values_hash

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Reference:
    """The real objects that a sample is measured against.

    label: the class that they are of, where one was asked for. classes: the training objects of every class.
    """

    name: str
    sha256: str | None
    train: Sequence[Any]
    test: Sequence[Any]
    label: str | None = None
    classes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


NO_REFERENCE = Reference("none", None, (), ())


@dataclass(frozen=True, eq=False)
class Outcome:
    """Sequences that a run drew or read, and all that is needed to judge them.

    values: every one, with `names`; kept: indices of those that are given out; loaded: None where no
    model took part; reading: what the reader of a user's file says; outside: what was asked beyond
    the range of training; sources: what each of `values` is made from, none where it is from nothing;
    log_normalisers: of each of `values`, where the sampler estimates it, -inf where none of its particles
    had a value under every objective.
    """

    task: Task
    loaded: Loaded | None
    reference: Reference
    rules: Sequence[Constraint]
    board: Scoreboard
    names: Sequence[str]
    values: Sequence[Any]
    kept: Sequence[int]
    network_calls: int = 0
    reading: ReadReport | None = None
    outside: Sequence[str] = ()
    sources: Sequence[Any] = ()
    log_normalisers: Sequence[float] = ()

    @cached_property
    def scores(self) -> Float[np.ndarray, "N M"]:
        """Raw scores of all `values`, NaN where an objective has none."""
        return self.board.score(self.values)

    @property
    def samples(self) -> list[Any]:
        """The sequences that are given out."""
        return [self.values[i] for i in self.kept]


@dataclass(frozen=True, eq=False)
class Measured:
    """An outcome's numbers: those of the samples, those of as many real test sequences, and real raw scores."""

    values: Mapping[str, float]
    floor: Mapping[str, float]
    bounds: Bounds | None
    real_scores: Float[np.ndarray, "R M"]


def present(run: Run, outcome: Outcome) -> dict[str, Any]:
    """Write every output of a run of sequences; returns the content of metrics.json."""
    measured = measure(outcome, run.config["seed"])
    broken = violations(outcome.rules, outcome.values)
    body = run.metrics(
        data={
            "name": outcome.reference.name,
            "sha256": outcome.reference.sha256,
            "n": len(outcome.reference.train) + len(outcome.reference.test),
        },
        model=model_of(outcome.loaded),
        samples={"sha256": values_hash(outcome.samples), "n": len(outcome.kept)},
        values={**measured.values, **({"outside_training": list(outcome.outside)} if outcome.outside else {})},
        baselines={"real_test_sequences": measured.floor} if measured.floor else {},
        constraints={"checked": len(outcome.values), "violated": len({found.index for found in broken})},
        objective_calls=outcome.board.calls,
        objective_evaluations=outcome.board.evaluations,
        network_calls=outcome.network_calls,
    )
    table = sample_table(outcome, None if outcome.loaded is None else run.config["seed"])
    _write_files(run.folder, outcome, table)
    page = Page(run, body, outcome.task, outcome.loaded)
    page.summary()
    page.reading(outcome.reading)
    page.objectives(outcome.board.targets, outcome.scores[list(outcome.kept)], measured.real_scores)
    page.hypervolume(outcome.board.targets, measured.bounds)
    page.constraints(outcome.rules, broken)
    page.quality(outcome.samples, outcome.reference.test)
    page.samples(table, outcome.rules)
    page.close()
    return body


def model_of(loaded: Loaded | None) -> dict[str, Any]:
    """The `model` entry of metrics.json."""
    if loaded is None:
        return {"name": None, "parameters": 0}
    return {"name": loaded.folder.name, "parameters": loaded.model.parameter_count}


def read_reference(folder: Path, label: str | None = None) -> Reference:
    """The real sequences that stand beside a checkpoint, with a `label` those of that class; none where it brings none.

    A checkpoint whose real sequences have no classes gives all.
    """
    if not folder.is_dir():
        raise UserError(f"checkpoint {folder}: no such folder")
    file = folder / "reference.csv.gz"
    if not file.is_file():
        return NO_REFERENCE
    found: dict[str, list[str]] = {"train": [], "test": []}
    classes: dict[str, list[str]] = {}
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                if label is None or row.get("class", label) == label:
                    found[row["split"]].append(row["sequence"])
                if row["split"] == "train" and row.get("class"):
                    classes.setdefault(row["class"], []).append(row["sequence"])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{file}: not a table of real sequences as train writes it ({error!r})") from error
    name = f"{folder.name}/{file.name}" if label is None else f"{folder.name}/{file.name}, class {label}"
    return Reference(name, file_hash(file), found["train"], found["test"], label, classes)


def measure(outcome: Outcome, seed: int) -> Measured:
    """The task's metrics and the hypervolume of the samples, and of as many real test sequences.

    Real sequences are scored on a board of their own, so that they count as no objective calls; the
    floor knows no constraints.
    """
    tokenizer = outcome.task.make_tokenizer()
    board = Scoreboard(outcome.board.targets)
    real_scores = board.score(outcome.reference.test)
    bounds = _bounds(board, real_scores)

    def numbers(samples: Sequence[Any], scored: Scoreboard, rules: Sequence[Constraint]) -> dict[str, float]:
        real = outcome.reference
        context = MetricContext(seed, rules, tokenizer, real.label, real.classes)
        return _metrics(outcome.task, samples, real.train, context) | _hypervolume(scored, samples, bounds)

    samples = outcome.samples
    counts = {
        "sequences": len(samples),
        "without_value": int(np.isnan(outcome.scores).any(axis=1).sum()),
    }
    longest = None if outcome.loaded is None else outcome.loaded.model.process.limit
    at_limit = sum(len(tokenizer.encode(sample)) == longest for sample in samples)
    counts |= {"at_limit": at_limit} if at_limit else {}
    counts |= {"sources": len(set(outcome.sources))} if outcome.sources else {}
    counts |= _normalisers(outcome.log_normalisers)
    floor = real_floor(lambda part: numbers(part, board, ()), outcome.reference.test, len(samples), seed)
    return Measured(counts | numbers(samples, outcome.board, outcome.rules), floor, bounds, real_scores)


def _normalisers(found: Sequence[float]) -> dict[str, float]:
    """The log of their mean, whose exponential is unbiased, and how many sequences nothing could steer."""
    if not found:
        return {}
    whole = np.array(found)
    mean = np.logaddexp.reduce(whole) - np.log(len(whole))
    return {"log_normaliser": float(mean), "unsteered": int(np.isinf(whole).sum())}


def _metrics(task: Task, samples: Sequence[Any], train: Sequence[Any], context: MetricContext) -> dict[str, float]:
    registry = task.package("metrics").registry
    values: dict[str, float] = {}
    for name in task.metrics:
        values |= registry.get(name)().compute(samples, train, context)
    return values


def _bounds(board: Scoreboard, scores: Float[np.ndarray, "R M"]) -> Bounds | None:
    """1st and 99th percentile of the utilities of real sequences; None where they do not span a volume."""
    utilities = board.utility(scores)
    if not board.targets or not (~np.isnan(utilities)).any(axis=0).all():
        return None
    low, high = np.nanpercentile(utilities, [1, 99], axis=0)
    return (low, high) if bool((high > low).all()) else None


def _hypervolume(board: Scoreboard, samples: Sequence[Any], bounds: Bounds | None) -> dict[str, float]:
    if bounds is None:
        return {}
    archive = ParetoArchive(len(board.targets))
    archive.add(board.utility(board.score(samples)), list(range(len(samples))))
    return {"hypervolume": archive.hypervolume(np.zeros(len(board.targets)), bounds)}


def sample_table(outcome: Outcome, seed: int | None) -> dict[str, list[Any]]:
    """One row a sample: scores, whether in range, rules obeyed, nearest training sequence, seed of the draw."""
    samples, scores = outcome.samples, outcome.scores[list(outcome.kept)]
    table: dict[str, list[Any]] = {"id": [outcome.names[i] for i in outcome.kept], "sequence": samples}
    if outcome.sources:
        table["source"] = [outcome.sources[i] for i in outcome.kept]
    for column, target in enumerate(outcome.board.targets):
        table[target.name] = scores[:, column].tolist()
        table[f"{target.name} in range"] = (~np.isnan(scores[:, column])).tolist()
    for rule in outcome.rules:
        table[rule.name] = [rule.check(sample) for sample in samples]
    if outcome.reference.train and samples:
        train = outcome.reference.train
        index, identity = outcome.task.package("metrics.novelty").nearest(samples, train, outcome.task.make_tokenizer())
        table["nearest"] = [outcome.reference.train[i] for i in index]
        table["identity"] = identity.round(3).tolist()
    if outcome.log_normalisers:
        table["log normaliser"] = [outcome.log_normalisers[i] for i in outcome.kept]
    if seed is not None:
        table["seed"] = [seed] * len(samples)
    return table


def _write_files(folder: Path, outcome: Outcome, table: Mapping[str, list[Any]]) -> None:
    render = outcome.task.package("render")
    tokenizer = outcome.task.make_tokenizer()
    render.write_fasta(folder / "samples.fasta", table["id"], outcome.samples, tokenizer=tokenizer)
    render.write_table(folder / "samples.csv", table)
