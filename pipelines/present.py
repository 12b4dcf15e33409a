"""What a run shows: tables, files of the domain, metrics.json and report.html."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evaluation.hypervolume import nondominated
from core.evaluation.report import Report
from core.evaluation.report.plots import histogram, scatter_matrix
from core.guidance.constraints.base import Constraint, Violation
from core.guidance.objectives.base import Scoreboard
from core.guidance.pareto import ParetoArchive
from domains.base import MetricContext
from domains.tasks import Task
from pipelines.load import Loaded
from pipelines.run import Run


def present(
    run: Run,
    task: Task,
    loaded: Loaded,
    rules: Sequence[Constraint],
    broken: Sequence[Violation],
    board: Scoreboard,
    values: Sequence[Any],
    scores: NDArray[np.float64],
    kept: Sequence[int],
    network_calls: int,
) -> dict[str, Any]:
    """Write every output of the kept samples; returns the content of metrics.json."""
    reference = read_reference(loaded.folder)
    samples = [values[i] for i in kept]
    kept_scores = scores[list(kept)]
    known = board.score(reference["test"])
    measured = _metrics(task, samples, reference, run.config["seed"])
    spans = _bounds(board, known)
    measured |= _hypervolume(board, kept_scores, spans)
    baselines = {"real_test_sequences": _metrics(task, reference["test"], reference, run.config["seed"])}
    baselines["real_test_sequences"] |= _hypervolume(board, _same_size(known, len(samples), run.config["seed"]), spans)
    body = run.metrics(
        data={"name": "reference", "sha256": None, "n": len(reference["train"])},
        model={"name": loaded.folder.name, "parameters": loaded.model.parameter_count},
        values=measured,
        baselines=baselines,
        constraints={"checked": len(values), "violated": len({v.index for v in broken})},
        objective_calls=board.calls,
        network_calls=network_calls,
    )
    table = sample_table(task, samples, kept_scores, board, rules, reference["train"], kept, run.config["seed"])
    _write_files(run.folder, task, samples, kept, table)
    _report(run, task, board, rules, broken, values, samples, kept_scores, known, body, table)
    return body


def read_reference(folder: Path) -> dict[str, list[str]]:
    """The real sequences that stand beside a checkpoint, by split."""
    found: dict[str, list[str]] = {"train": [], "test": []}
    file = folder / "reference.csv.gz"
    if file.is_file():
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                found[row["split"]].append(row["sequence"])
    return found


def _metrics(task: Task, samples: Sequence[Any], reference: Mapping[str, list[str]], seed: int) -> dict[str, float]:
    registry = task.package("metrics").registry
    context = MetricContext(seed=seed, holdout=reference["test"])
    values: dict[str, float] = {}
    for name in task.metrics:
        values |= registry.get(name)().compute(samples, reference["train"], context)
    return values


def _bounds(board: Scoreboard, known: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """1st and 99th percentile of the utilities of real sequences."""
    if not board.targets or not len(known):
        return None
    low, high = np.nanpercentile(board.utility(known), [1, 99], axis=0)
    return (low, high) if bool((high > low).all()) else None


def _hypervolume(board: Scoreboard, scores: NDArray[np.float64], bounds: Any) -> dict[str, float]:
    if bounds is None or not len(scores):
        return {}
    archive = ParetoArchive(len(board.targets))
    archive.add(board.utility(scores), list(range(len(scores))))
    return {"hypervolume": archive.hypervolume(np.zeros(len(board.targets)), bounds)}


def _same_size(scores: NDArray[np.float64], n: int, seed: int) -> NDArray[np.float64]:
    order = np.random.default_rng(seed).permutation(len(scores))
    return scores[order[:n]]


def sample_table(
    task: Task,
    samples: Sequence[Any],
    scores: NDArray[np.float64],
    board: Scoreboard,
    rules: Sequence[Constraint],
    training: Sequence[Any],
    numbers: Sequence[int],
    seed: int,
) -> dict[str, list[Any]]:
    """One row a sample: scores, whether in range, rules obeyed, nearest natural sequence, seed."""
    table: dict[str, list[Any]] = {"id": [f"s{n}" for n in numbers], "sequence": list(samples)}
    for column, target in enumerate(board.targets):
        table[target.name] = scores[:, column].tolist()
        table[f"{target.name} in range"] = (~np.isnan(scores[:, column])).tolist()
    for rule in rules:
        table[rule.name] = [rule.check(sample) for sample in samples]
    if training and samples:
        index, identity = task.package("metrics.novelty").nearest(samples, training)
        table["nearest"] = [training[i] for i in index]
        table["identity"] = identity.round(3).tolist()
    table["seed"] = [seed] * len(samples)
    return table


def _write_files(
    folder: Path, task: Task, samples: Sequence[Any], numbers: Sequence[int], table: Mapping[str, list[Any]]
) -> None:
    render = task.package("render")
    render.write_fasta(folder / "samples.fasta", [f"s{n}" for n in numbers], samples)
    render.write_table(folder / "samples.csv", table)


def _report(
    run: Run,
    task: Task,
    board: Scoreboard,
    rules: Sequence[Constraint],
    broken: Sequence[Violation],
    values: Sequence[Any],
    samples: Sequence[Any],
    scores: NDArray[np.float64],
    known: NDArray[np.float64],
    body: Mapping[str, Any],
    table: Mapping[str, list[Any]],
) -> None:
    subtitle = f"{len(samples)} of {len(values)} drawn, {body['model']['name']}, seed {run.config['seed']}"
    report = Report(f"{task.domain} / {task.name}", subtitle)
    if board.targets:
        report.section("Objectives")
        names = [target.name for target in board.targets]
        front = nondominated(np.nan_to_num(board.utility(scores), nan=-1e300))
        report.figure(scatter_matrix(scores, names, front), "Each point is a sample; the non-dominated ones stand out.")
        for column, name in enumerate(names):
            caption = f"{name}: samples beside real test sequences"
            report.figure(histogram(scores[:, column], name, known[:, column]), caption)
    report.section("Constraints")
    counts = {rule.name: sum(v.constraint == rule.name for v in broken) for rule in rules}
    rows = [[name, len(values), count] for name, count in counts.items()]
    report.table(
        ["constraint", "checked", "violated"], rows, caption="Every drawn sequence was checked; none was discarded."
    )
    report.section("Quality")
    real = body["baselines"]["real_test_sequences"]
    quality = [[name, value, real.get(name)] for name, value in body["values"].items()]
    report.table(["metric", "samples", "real test sequences"], quality)
    report.figure(task.package("render").logo(samples), "Letters by position, from the first residue.")
    report.section("Samples")
    report.table(list(table), [list(row) for row in zip(*table.values(), strict=True)])
    report.section("Files")
    report.links({name: name for name in ("samples.fasta", "samples.csv", "metrics.json", "config.yaml", "log.jsonl")})
    report.write(run.folder / "report.html")
