"""What a run says in a few sentences: on the terminal and at the head of its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def lines(out: Path) -> list[str]:
    """The sentences of a finished run, its n-gram baselines and what was measured, read from its folder."""
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    body = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    grams = [f"{name}: {_per_token(floor)}" for name, floor in body["baselines"].items() if "perplexity" in floor]
    return [*grams, *statements(config, body), *(_measured(body) if body["verb"] == "evaluate" else [])]


def statements(config: Mapping[str, Any], body: Mapping[str, Any]) -> list[str]:
    """What must be said about a run of this configuration with this metrics.json."""
    found: list[str] = []
    if "perplexity" in body["values"]:
        found += _likelihood(body)
    if "sequences" in body["values"]:
        found += _sequences(config, body)
    if "nll_change" in body["values"]:
        found += _gain(body["values"])
    if "at_limit" in body["values"]:
        found.append(f"{body['values']['at_limit']} samples are as long as the model can write, and may be cut there")
    found += [f"the model extrapolates: {text}" for text in body["values"].get("outside_training", ())]
    return found


def _measured(body: Mapping[str, Any]) -> list[str]:
    """Each metric of the sequences, beside that of as many real ones where there are some."""
    values, floor = body["values"], body["baselines"].get("real_test_sequences", {})
    if "sequences" not in values:
        return []
    # A file that is judged without real sequences has no likelihood either: what is no count is measured.
    names = list(floor) or [name for name, value in values.items() if not isinstance(value, int)]
    beside = {name: f" (real test sequences {_number(floor[name])})" for name in floor}
    return [f"{name}: {_number(values[name])}{beside.get(name, '')}" for name in names]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def _likelihood(body: Mapping[str, Any]) -> list[str]:
    values = body["values"]
    found = [
        f"test split: {values['test_sequences']} sequences, {values['tokens']} tokens, end tokens and lengths included",
        f"{body['model']['name']}: {values['likelihood']} {_per_token(values)}",
    ]
    if "sources" in values:
        found.append(f"{values['sources']} sequences are judged given their source, which the n-grams do not see")
    if "given" in values:
        found.append(
            f"given {values['given']}; without it {values['nll_unconditional']:.4f} nats per token, "
            f"{values['nll'] - values['nll_unconditional']:+.4f} by the condition"
        )
    if values["likelihood"].startswith("ELBO"):
        found.append(
            f"upper 95 % limit of the bound's quadrature: {values['nll_upper']:.4f} nats per token, "
            f"perplexity {values['perplexity_upper']:.3f}"
        )
    low, high = values["nll_minus_floor_low"], values["nll_minus_floor_high"]
    verdict = "below" if high < 0 else "above" if low > 0 else "not told apart from"
    found.append(
        f"floor {values['floor']} (best on the validation split): the model is {verdict} it, "
        f"{values['nll_minus_floor']:+.4f} nats per token [{low:+.4f}, {high:+.4f}]"
    )
    return found


def _gain(values: Mapping[str, Any]) -> list[str]:
    low, high = values["nll_change_low"], values["nll_change_high"]
    verdict = "below" if high < 0 else "above" if low > 0 else "not told apart from"
    return [
        f"held out: {values['held_out_sequences']} sequences, {values['held_out_tokens']} tokens; "
        f"{values['likelihood']} {values['nll']:.4f} nats per token",
        f"the new checkpoint is {verdict} its parent: {values['nll_change']:+.4f} nats per token, "
        f"paired 95 % bootstrap interval [{low:+.4f}, {high:+.4f}]",
    ]


def _per_token(values: Mapping[str, Any]) -> str:
    return (
        f"perplexity {values['perplexity']:.3f} [95 % {values['perplexity_low']:.3f}, "
        f"{values['perplexity_high']:.3f}], {values['nll']:.4f} nats per token"
    )


def _sequences(config: Mapping[str, Any], body: Mapping[str, Any]) -> list[str]:
    values, checked, violated = body["values"], body["constraints"]["checked"], body["constraints"]["violated"]
    given, gaps, best_of = values["sequences"], values["without_value"], config.get("best_of", 1)
    checks = f", {checked} checked against the constraints, {violated} violating one" if config["constraints"] else ""
    made_from, sources = values.get("sources"), values.get("sources", 1)
    found = [f"{given} sequences{'' if made_from is None else f' from {made_from} sources'}{checks}"]
    if best_of > 1:
        found.append(
            f"{checked} drawn (best_of={best_of}), {given} kept by non-dominated sorting; sequences without a value "
            f"in every objective are never kept ({gaps} of {checked}), and what is kept follows the objectives, "
            "no longer the model's law"
        )
        if given < config["n"] * sources:
            found.append(f"fewer than n={config['n']}: no more than {given} sequences have a value in every objective")
    elif gaps:
        found.append(
            f"{gaps} of {given} sequences have no value in some objective: they stand without a number, and count "
            "neither for the Pareto front nor for the hypervolume"
        )
    return found
