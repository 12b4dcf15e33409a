"""`motif evaluate`: a model's likelihood, or a user's own sequences, against real data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.data.batch_loader import BatchLoader
from core.data.noise import Noise
from core.data.shards import TokenShards
from core.errors import UserError
from core.evaluation.bootstrap import bootstrap_ratio
from core.evaluation.ngram import NGram
from core.guidance.constraints.base import violations
from core.guidance.items import members, targets
from core.guidance.objectives.base import Scoreboard
from core.processes.base import Likelihood
from domains.tasks import Task
from pipelines.load import Loaded, load
from pipelines.present import present
from pipelines.run import Run

_BATCH_TOKENS = 8192
_ORDERS = range(1, 7)


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Judge `input`, or the checkpoint's likelihood on the test split of `data.path`."""
    task = Task.load(config["domain"], config["task"]["name"])
    loaded = load(config["checkpoint"] or task.pretrained_folder)
    if config["input"]:
        return _evaluate_file(config, task, loaded)
    if not config["data"]["path"]:
        raise UserError("evaluate needs input= (a file of sequences) or data.path= (a prepared folder)")
    return _evaluate_likelihood(config, loaded)


def _evaluate_file(config: Mapping[str, Any], task: Task, loaded: Loaded) -> dict[str, Any]:
    report = task.package("readers").read(config["input"])
    values = [record.value for record in report.records]
    board = Scoreboard(targets(config["objectives"], task.objectives))
    rules = [rule.bind(loaded.tokenizer) for _, rule in members(config["constraints"], task.constraints)]
    run = Run("evaluate", config)
    scores, broken = board.score(values), violations(rules, values)
    kept = list(range(len(values)))
    metrics = present(run, task, loaded, rules, broken, board, values, scores, kept, network_calls=0)
    run.finish()
    return dict(metrics)


def _evaluate_likelihood(config: Mapping[str, Any], loaded: Loaded) -> dict[str, Any]:
    shards = TokenShards.open(Path(config["data"]["path"]))
    test = shards.split("test")
    run = Run("evaluate", config)
    result = likelihood_of(loaded, test, config["points"], config["seed"])
    nll, tokens = result.nll.numpy(), result.tokens.numpy()
    interval = bootstrap_ratio(nll, tokens, np.random.default_rng(config["seed"]))
    per_token = float(nll.sum() / tokens.sum())
    # The quadrature's errors are independent between sequences.
    error = float(result.error.square().sum().sqrt() / tokens.sum())
    values = {
        "nll": per_token,
        "perplexity": math.exp(per_token),
        "perplexity_upper": math.exp(per_token + 1.96 * error),
        "perplexity_low": math.exp(interval.low),
        "perplexity_high": math.exp(interval.high),
        "likelihood": "NLL (exact)" if result.kind == "exact" else "ELBO (bound)",
    }
    metrics = run.metrics(
        protocol="test_split_per_token_with_end",
        data={"name": shards.folder.name, "sha256": shards.sha256, "n": len(test)},
        model={"name": loaded.folder.name, "parameters": loaded.model.parameter_count},
        values=values,
        baselines=ngram_floors(shards, loaded.tokenizer.vocabulary.size),
    )
    run.finish()
    return metrics


@torch.no_grad()
def likelihood_of(loaded: Loaded, shards: TokenShards, points: int, seed: int) -> Likelihood:
    """NLL of every sequence of a split, each with noise of its own."""
    pad = loaded.tokenizer.vocabulary.pad
    parts, first = [], 0
    for batch in BatchLoader(shards, _BATCH_TOKENS, fill=pad):
        ids = torch.arange(first, first + batch.layout.count)
        first += batch.layout.count
        noise = Noise.start(seed, ids)
        parts.append(loaded.model.process.likelihood(loaded.model.network, batch, noise, points))
    return Likelihood(
        torch.cat([part.nll for part in parts]),
        parts[0].kind,
        torch.cat([part.error for part in parts]),
        torch.cat([part.tokens for part in parts]),
    )


def ngram_floors(shards: TokenShards, vocabulary: int) -> dict[str, dict[str, float]]:
    """Perplexity of interpolated n-grams, smoothing tuned on the validation split."""
    rows = {name: [row.tolist() for row in shards.split(name)] for name in ("train", "valid", "test")}
    floors = {}
    for order in _ORDERS:
        model = NGram(order, vocabulary).fit(rows["train"], rows["valid"])
        floors[f"{order}gram"] = {"perplexity": model.perplexity(rows["test"])}
    return floors
