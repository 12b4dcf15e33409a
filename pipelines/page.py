"""The sections of report.html that runs of every verb share."""

from __future__ import annotations

import csv
import inspect
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from core.evaluation.report import Report
from core.evaluation.report.plots import bar, histogram, scatter_matrix
from core.guidance.constraints.base import Constraint, Violation
from core.guidance.objectives.base import Target
from core.guidance.pareto import fronts
from domains.base import ReadReport
from domains.tasks import Task
from pipelines.citations import used
from pipelines.load import Loaded
from pipelines.run import DRAWN, Run, file_hash
from pipelines.summary import statements

# A page of more rows is slow to open; the files hold them all.
_ROWS = 200
_REAL = "real test sequences"


class Page:
    """report.html of one run, a section a method, in the order in which they are called.

    body: the content of metrics.json.
    """

    def __init__(self, run: Run, body: Mapping[str, Any], task: Task, loaded: Loaded | None) -> None:
        self.run, self.body, self.task, self.loaded = run, body, task, loaded
        parts = [body["model"]["name"] or "no model", f"seed {body['seed']}"]
        self.report = Report(f"{task.domain} / {task.name}: {body['verb']}", ", ".join(parts))

    def summary(self) -> None:
        """A few numbers, and what must be said about them."""
        body, values = self.body, self.body["values"]
        facts: dict[str, Any] = {"sequences": values.get("sequences")}
        if body["constraints"]["checked"]:
            facts |= {
                "checked": body["constraints"]["checked"],
                "violating a constraint": body["constraints"]["violated"],
            }
        if "hypervolume" in values:
            facts["hypervolume"] = values["hypervolume"]
        if "perplexity" in values:
            facts |= {f"perplexity, {values['likelihood']}": values["perplexity"], "tokens": values["tokens"]}
        for key in ("objective_calls", "network_calls"):
            if body[key]:
                facts[key.replace("_", " ")] = body[key]
        facts["seconds"] = round(body["seconds"], 1)
        self.report.section("Summary").facts({name: fact for name, fact in facts.items() if fact is not None})
        self.report.bullets(*statements(self.run.config, body))

    def reading(self, reading: ReadReport | None) -> None:
        """What the reader of a user's file did, and what it left out."""
        if reading is None:
            return
        self.report.section("Input").bullets(
            f"{len(reading.records)} records were read, {len(reading.skipped)} skipped", *reading.statements
        )
        if reading.skipped:
            rows = [[found.file, found.record, found.position, found.reason] for found in reading.skipped[:_ROWS]]
            self.report.table(
                ["file", "record", "position", "reason"], rows, caption=_shown_of(len(reading.skipped), "skipped.csv")
            )

    def prepared(self, folder: Path) -> None:
        """The card and the skip list of prepared data."""
        self.report.section("Data")
        self._card(folder)
        skipped = folder / "skipped.csv"
        if skipped.is_file():
            with open(skipped, encoding="utf-8", newline="") as stream:
                head, *rows = list(csv.reader(stream)) or [[]]
            if rows:
                self.report.table(head, rows[:_ROWS], caption=_shown_of(len(rows), "the data's skipped.csv"))

    def likelihood(self) -> None:
        """The model's likelihood of the test split beside n-grams."""
        values, floors = self.body["values"], self.body["baselines"]
        grams = {name: floor for name, floor in floors.items() if "perplexity" in floor}
        own = self.body["model"]["name"]
        self.report.section("Likelihood")
        shown = {own: values["perplexity"], **{name: floor["perplexity"] for name, floor in grams.items()}}
        spread = {own: (values["perplexity_low"], values["perplexity_high"])}
        spread |= {name: (floor["perplexity_low"], floor["perplexity_high"]) for name, floor in grams.items()}
        label = "perplexity per token, end tokens counted (lower is better)"
        self.report.figure(
            bar(shown, "Perplexity of the test split", label, own, spread),
            "Whiskers: 95 % bootstrap intervals over sequences.",
        )
        keys = ("perplexity", "perplexity_low", "perplexity_high", "nll")
        rows = [[own, values["likelihood"], *(values[key] for key in keys)]]
        rows += [
            [name, "NLL (exact)", *(floor[key] for key in keys)]
            for name, floor in sorted(grams.items(), key=lambda item: item[1]["perplexity"])
        ]
        self.report.table(
            ["model", "likelihood", "perplexity", "95 % low", "95 % high", "nats per token"],
            rows,
            caption=f"{values['tokens']} tokens of {values['test_sequences']} test sequences, end tokens and with "
            "them the lengths included. n-grams are interpolated, their smoothing tuned on the validation split.",
        )

    def objectives(
        self, targets: Sequence[Target], scores: Float[np.ndarray, "N M"], real: Float[np.ndarray, "R M"]
    ) -> None:
        """Where samples lie in each objective and in each pair of them."""
        if not targets:
            return
        labels = [f"{target.name} ({target.objective.unit})" for target in targets]
        self.report.section("Objectives")
        rows = []
        for m, target in enumerate(targets):
            own, other = scores[:, m], real[:, m]
            sought = target.direction if target.direction != "near" else f"near {target.near:g}"
            gaps = int(np.isnan(own).sum())
            rows.append([target.name, sought, target.objective.unit, _median(own), _median(other), gaps])
        self.report.table(
            ["objective", "sought", "unit", "median", f"median of {_REAL}", "without a value"], rows, sortable=False
        )
        if len(targets) > 1:
            utilities = np.stack([target.utility(scores[:, m]) for m, target in enumerate(targets)], axis=1)
            caption = (
                "Each point is a sample; to those on the front no other is better in one objective and as good in all."
            )
            self.report.figure(scatter_matrix(scores, labels, _front(utilities)), caption)
        plots = [
            histogram(scores[:, m], target.name, labels[m], real[:, m], ("samples", _REAL))
            for m, target in enumerate(targets)
        ]
        self.report.figure(plots, f"Samples beside {len(real)} {_REAL}.")

    def hypervolume(
        self, targets: Sequence[Target], bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    ) -> None:
        """The volume, and the box in whose units it is."""
        if not targets:
            return
        self.report.section("Hypervolume")
        if bounds is None:
            self.report.text("Not defined: the real test sequences do not span a range in every objective.")
            return
        floor = self.body["baselines"].get("real_test_sequences", {})
        self.report.facts({"samples": self.body["values"]["hypervolume"], f"as many {_REAL}": floor.get("hypervolume")})
        self.report.text(
            "The volume that the samples dominate, in units in which each objective runs from 0 to 1 between the "
            "1st and the 99th percentile of real test sequences; the reference point is 0, nothing is clipped. "
            "Compare it only between runs of the same objectives and the same real sequences."
        )
        rows = [
            [target.name, _raw(target, float(low)), _raw(target, float(high))]
            for target, low, high in zip(targets, *bounds, strict=True)
        ]
        self.report.table(["objective", "utility at 0", "utility at 1"], rows, sortable=False)

    def constraints(self, rules: Sequence[Constraint], broken: Sequence[Violation]) -> None:
        """Every rule, how often it was checked and broken."""
        self.report.section("Constraints")
        if not rules:
            self.report.text("None were asked for.")
            return
        checked = self.body["constraints"]["checked"]
        rows = [[rule.name, checked, sum(found.constraint == rule.name for found in broken)] for rule in rules]
        drawn = (
            "Every drawn sequence was checked; none was discarded." if self.loaded else "Every sequence was checked."
        )
        self.report.table(["constraint", "checked", "violated"], rows, sortable=False, caption=drawn)

    def quality(self, samples: Sequence[Any], real: Sequence[Any]) -> None:
        """Metrics beside the floor of real data, and the domain's pictures."""
        floor = self.body["baselines"].get("real_test_sequences", {})
        registry = self.task.package("metrics").registry
        self.report.section("Quality")
        rows = [[name, self.body["values"][name], value] for name, value in floor.items()]
        size = min(len(samples), len(real))
        self.report.table(
            ["metric", "samples", "real floor"],
            rows,
            caption=f"{len(samples)} samples and, as the floor, draws of {size} {_REAL}, both against the training "
            "sequences. The floor obeys no constraints and seeks no objectives.",
        )
        meaning = [[key, _described(registry.get(key))] for key in self.task.metrics]
        self.report.table(["metric", "what it is"], meaning, sortable=False)
        for picture, caption in self.task.package("render").pictures(samples, real, self.task.make_tokenizer()):
            self.report.figure(picture, caption)

    def samples(self, table: Mapping[str, Sequence[Any]], rules: Sequence[Constraint]) -> None:
        """The first samples, row by row."""
        self.report.section("Samples")
        names = [name for name in table if not name.endswith(" in range")]
        rows = [list(row) for row in zip(*(table[name][:_ROWS] for name in names), strict=True)]
        caption = _shown_of(len(table["id"]), "samples.csv") + " n/a is outside the objective's range."
        checks = [rule.name for rule in rules]
        self.report.table(names, rows, caption=caption, monospace=("sequence", "nearest"), checks=checks)

    def close(self) -> None:
        """Provenance, citations and files; writes the page."""
        body, config = self.body, self.run.config
        self.report.section("Provenance")
        rows = [
            ["command", self.run.command],
            ["repeat", shlex.join(["motif", "rerun", str(config["out"])])],
            ["data", body["data"]["name"]],
            ["sha256 of the data", body["data"]["sha256"]],
            ["seed", str(body["seed"])],
        ]
        if self.loaded is not None:
            rows += [
                ["checkpoint", self.loaded.folder.name],
                ["sha256 of its weights", file_hash(self.loaded.folder / "model.safetensors")],
                ["parameters", str(body["model"]["parameters"])],
            ]
        rows += [["python", platform.python_version()], *([name, text] for name, text in body["versions"].items())]
        self.report.table(["what", "value"], [row for row in rows if row[1]], sortable=False)
        if self.loaded is not None:
            self.report.section("Checkpoint card")
            self._card(self.loaded.folder)
        self.report.section("How to cite")
        model = None if self.loaded is None else self.loaded.config
        rows = [
            [role, name, paper.title, paper.arxiv, paper.deviations or None]
            for role, name, paper in used(self.run.verb, config, model)
        ]
        self.report.table(["role", "member", "paper or source", "arXiv", "where ours differs"], rows, sortable=False)
        self.report.text(f"As BibTeX: {shlex.join(['motif', 'cite', str(config['out'])])}")
        self.report.section("Files")
        files = sorted(path.name for path in self.run.folder.iterdir() if path.name != DRAWN)
        self.report.links({name: name for name in files})
        self.report.write(self.run.folder / "report.html")

    def _card(self, folder: Path) -> None:
        card = folder / "card.md"
        lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else ["There is no card."]
        self.report.bullets(*(line.lstrip("#- ") for line in lines if line.strip()))


def _front(utilities: Float[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
    """Which rows nothing dominates; a row with a gap is never among them."""
    first = next(fronts(utilities), np.zeros(0, dtype=np.int64))
    return np.isin(np.arange(len(utilities)), first)


def _median(values: Float[np.ndarray, " N"]) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def _raw(target: Target, utility: float) -> str:
    """A utility in the objective's own terms."""
    if target.direction == "near":
        return f"{-utility:.4g} away from {target.near:g}"
    return f"{utility if target.direction == 'max' else -utility:.4g}"


def _described(member: type) -> str:
    text = inspect.cleandoc(member.__doc__ or "").replace("`", "")
    return " ".join(text.split())


def _shown_of(count: int, file: str) -> str:
    return f"All {count}; also in {file}." if count <= _ROWS else f"The first {_ROWS} of {count}; all are in {file}."
