"""`motif evaluate`: a model's likelihood and samples, or a user's own sequences, against real data."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from core.data.batch_loader import BatchLoader
from core.data.noise import Noise
from core.data.sequence_batch import SOURCE
from core.data.shards import TokenShards
from core.errors import UserError
from core.evaluation.bootstrap import bootstrap_ratio
from core.evaluation.ngram import NGram
from core.guidance.constraint_set import ConstraintSet
from core.guidance.items import rules, targets
from core.guidance.objectives.base import Scoreboard
from core.processes.base import Likelihood
from domains.tasks import Task
from pipelines.compose import refuse_small
from pipelines.generate import Drawing
from pipelines.load import Loaded, configured
from pipelines.page import Page
from pipelines.pairs import require_sources
from pipelines.present import NO_REFERENCE, Outcome, Reference, measure, model_of, present, read_reference
from pipelines.reading import read_records, write_skipped
from pipelines.run import Run

_BATCH_TOKENS = 8192
_ORDERS = (1, 2, 3, 4, 5, 6, 8, 10)
# Two-sided 95 % of a normal law.
_NORMAL = 1.96


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Judge `input`, or the checkpoint on the test split of `data`; the content of metrics.json."""
    task = Task.of(config)
    if config["input"]:
        return _evaluate_file(config, task)
    if config["objectives"] or config["constraints"]:
        raise UserError("objectives and constraints judge the sequences of input=: drop them, or name a file")
    refuse_small(config, {"n": 0, "batch_size": 1, "points": 2})
    loaded = configured(config, task)
    with _prepared(config) as folder:
        return _evaluate_model(config, task, loaded, folder)


def _evaluate_file(config: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """A user's sequences, every one of them; no model takes part."""
    reading = read_records(task, Path(config["input"]), config["reader"], config)
    values = [record.value for record in reading.records]
    tokenizer = task.make_tokenizer()
    board = Scoreboard(targets(config["objectives"], task.objectives, tokenizer), tokenizer.canonical)
    asked = rules([*task.rules, *config["constraints"]], task.constraints, tokenizer)
    bound = [rule.bind(tokenizer) for rule in asked]
    beside = config["checkpoint"] or (task.pretrained and task.pretrained_folder)
    reference = read_reference(Path(beside)) if beside else NO_REFERENCE
    run = Run("evaluate", config)
    write_skipped(run.folder / "skipped.csv", reading)
    names = [record.name for record in reading.records]
    outcome = Outcome(task, None, reference, bound, board, names, values, range(len(values)), reading=reading)
    metrics = present(run, outcome)
    run.finish()
    return metrics


@contextmanager
def _prepared(config: Mapping[str, Any]) -> Iterator[Path]:
    """The prepared folder `data.path`, or a named set prepared for the while."""
    data = config["data"]
    if "name" in data:
        from pipelines import prepare

        with tempfile.TemporaryDirectory() as place:
            words = {"domain": config["domain"], "task": config["task"]["name"], "data": data["name"]}
            yield prepare(**words, out=Path(place) / "prepared")
    elif data["path"]:
        yield Path(data["path"])
    else:
        raise UserError("evaluate needs input= (a file of sequences), data= (a named set) or data.path= (prepared)")


def _evaluate_model(config: Mapping[str, Any], task: Task, loaded: Loaded, folder: Path) -> dict[str, Any]:
    shards = TokenShards.open(folder, loaded.tokenizer.sha256(task.tokenizer["name"]))
    shards.require("train", "valid", "test")
    if SOURCE not in loaded.model.reads:
        shards = replace(shards, sources=None)
    require_sources(loaded.model, shards, loaded.tokenizer, folder)
    test = shards.split("test")
    loaded.model.process.refuse_long(torch.as_tensor(test.lengths))
    given = test.condition(loaded.conditions)
    run = Run("evaluate", config)
    calls: list[None] = []
    counter = loaded.model.network.register_forward_hook(lambda *_: calls.append(None))
    result = likelihood_of(loaded, test, config["points"], config["seed"])
    alone = None if given is None else likelihood_of(loaded, test, config["points"], config["seed"], given=False)
    counter.remove()
    nll, tokens = result.nll.numpy(), result.tokens.numpy()
    floors, best = ngram_floors(shards, loaded.tokenizer.vocabulary.size, config["seed"])
    values: dict[str, Any] = {
        "likelihood": result.label,
        "test_sequences": len(nll),
        "tokens": int(tokens.sum()),
        **_per_token(nll, tokens, config["seed"]),
        **_upper(result),
        **_beside(nll, tokens, best, config["seed"]),
    }
    if alone is not None:
        values["given"] = ", ".join(column.name for column in shards.columns)
        values["nll_unconditional"] = float(alone.nll.sum() / alone.tokens.sum())
    if test.sources is not None:
        values["sources"] = int((test.sources.lengths > 0).sum())
    outcome = _drawn(config, task, loaded, run, shards, given) if config["n"] else None
    if outcome is not None:
        measured = measure(outcome, config["seed"])
        values |= measured.values
        floors["real_test_sequences"] = dict(measured.floor)
    body = run.metrics(
        protocol="test_split_per_token_with_end",
        data={"name": _name_of(folder), "sha256": shards.sha256, "n": len(shards)},
        model=model_of(loaded),
        values=values,
        baselines=floors,
        network_calls=len(calls) + (outcome.network_calls if outcome else 0),
    )
    page = Page(run, body, task, loaded)
    page.summary()
    page.likelihood()
    if outcome is not None:
        page.quality(outcome.samples, outcome.reference.test)
    page.prepared(folder)
    page.close()
    run.finish()
    return body


def _drawn(
    config: Mapping[str, Any],
    task: Task,
    loaded: Loaded,
    run: Run,
    shards: TokenShards,
    given: Float[Tensor, "N C"] | None,
) -> Outcome:
    """Samples under the conditions and from the sources of the test split, beside the data's own splits."""
    free = ConstraintSet([], loaded.tokenizer, range(1, loaded.model.process.limit + 1))
    test, n = shards.split("test").sources, config["n"]
    sources = () if test is None else [test[row % len(test)].tolist() for row in range(n)]
    each = {**config, "best_of": 1, "n": 1 if sources else n}
    drawing = Drawing(each, loaded.model, loaded.tokenizer, free, given, sources=sources)
    values = drawing.all(run)
    train, real = ([loaded.tokenizer.decode(row.tolist()) for row in shards.split(name)] for name in ("train", "test"))
    reference = Reference(_name_of(shards.folder), shards.sha256, train, real)
    names, kept = [f"s{i}" for i in range(len(values))], range(len(values))
    return Outcome(task, loaded, reference, (), Scoreboard(()), names, values, kept, drawing.network_calls)


def _name_of(folder: Path) -> str:
    """The name of a prepared set, as its own metrics.json has it."""
    file = folder / "metrics.json"
    return json.loads(file.read_text(encoding="utf-8"))["data"]["name"] if file.is_file() else folder.name


def _per_token(nll: Float[np.ndarray, " N"], tokens: Float[np.ndarray, " N"] | Any, seed: int) -> dict[str, float]:
    """Nats and perplexity per token, with the 95 % bootstrap interval over sequences."""
    interval = bootstrap_ratio(nll, tokens, np.random.default_rng(seed))
    return {
        "nll": interval.estimate,
        "perplexity": math.exp(interval.estimate),
        "perplexity_low": math.exp(interval.low),
        "perplexity_high": math.exp(interval.high),
    }


def _upper(result: Likelihood) -> dict[str, float]:
    """The upper 95 % limit of what the quadrature of a bound leaves open; that of an exact value is itself."""
    # The quadrature's errors are independent between sequences.
    error = float(result.error.double().square().sum().sqrt())
    upper = (float(result.nll.sum()) + _NORMAL * error) / int(result.tokens.sum())
    return {"nll_upper": upper, "perplexity_upper": math.exp(upper)}


def _beside(nll: Any, tokens: Any, best: tuple[str, Any], seed: int) -> dict[str, Any]:
    """Nats per token above the floor, sequences paired."""
    name, floor = best
    interval = bootstrap_ratio(nll - floor, tokens, np.random.default_rng(seed))
    return {
        "floor": name,
        "nll_minus_floor": interval.estimate,
        "nll_minus_floor_low": interval.low,
        "nll_minus_floor_high": interval.high,
    }


@torch.no_grad()
def likelihood_of(loaded: Loaded, shards: TokenShards, points: int, seed: int, given: bool = True) -> Likelihood:
    """NLL of every sequence of a split, in its order, each with noise of its own.

    given: whether a conditional model reads the conditions that the shards have.
    """
    loader = BatchLoader(
        shards, _BATCH_TOKENS, fill=loaded.tokenizer.vocabulary.pad, conditions=loaded.conditions if given else None
    )
    process, network, device = loaded.model.process, loaded.model.network, loaded.model.device
    batches = loader.batches(0)
    parts = [
        process.likelihood(
            network, loader.collate(rows).to(device), Noise.start(seed, torch.from_numpy(rows).to(device)), points
        )
        for rows in tqdm(batches, desc="likelihood", unit="batch")
    ]
    place = torch.from_numpy(np.argsort(np.concatenate(batches)))
    nll, error, tokens = (
        torch.cat([getattr(part, name) for part in parts]).cpu()[place] for name in ("nll", "error", "tokens")
    )
    return Likelihood(nll, parts[0].kind, error, tokens)


def ngram_floors(
    shards: TokenShards, vocabulary: int, seed: int
) -> tuple[dict[str, dict[str, float]], tuple[str, Float[np.ndarray, " N"]]]:
    """Interpolated n-grams on the test split, and the name and NLLs of the one that is best on validation.

    Counts come from train, smoothing and choice from validation; the test split takes no part.
    """
    rows = {name: [row.tolist() for row in shards.split(name)] for name in ("train", "valid", "test")}
    tokens = np.array([len(row) + 1 for row in rows["test"]])
    floors: dict[str, dict[str, float]] = {}
    found: dict[str, Float[np.ndarray, " N"]] = {}
    for order in _ORDERS:
        model = NGram(order, vocabulary).fit(rows["train"], rows["valid"])
        name = f"{order}gram_{model.smoothing}"
        found[name] = model.nlls(rows["test"])
        floors[name] = _per_token(found[name], tokens, seed) | {"valid_perplexity": model.perplexity(rows["valid"])}
    best = min(floors, key=lambda name: floors[name]["valid_perplexity"])
    return floors, (best, found[best])
