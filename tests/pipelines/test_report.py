"""What a run tells: metrics.json, the lines on the terminal, and a report that a user's text cannot break."""

import csv
import importlib
import json
import math
import re
import shutil
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipelines
from core.data.shards import TokenShards
from core.evaluation.ngram import NGram
from pipelines.evaluate import likelihood_of, ngram_floors
from pipelines.load import load
from tests.pipelines.schema import SCHEMA, check_metrics

# The package's attribute of this name is the verb.
MODULE = importlib.import_module("pipelines.evaluate")
LIKELIHOOD = {
    *("likelihood", "test_sequences", "tokens", "nll", "perplexity", "perplexity_low", "perplexity_high"),
    *("nll_upper", "perplexity_upper", "floor"),
    *("nll_minus_floor", "nll_minus_floor_low", "nll_minus_floor_high"),
}
METRICS = {
    *("valid", "unique", "novel", "novel_below_0.8", "nearest_identity", "diversity", "kmer_js_2", "kmer_js_3"),
    *("length_wasserstein", "length_ks", "composition_js"),
}
OURS = set(
    "html head meta title style script body header main nav section h1 h2 p a ul li dl dt dd div figure figcaption "
    "table thead tbody tr th td svg desc text path rect polyline".split()
)
# Knows the length of short sequences only.
HOLES = """
import numpy as np
from core.guidance.objectives.base import Objective
from core.registry import Paper


class Holes(Objective):
    \"\"\"Length, where it is at most 8.\"\"\"

    paper = Paper("ours", "a test <b>")
    direction = "max"
    unit = "residues"
    source = "rule"

    def score(self, sequences):
        return np.array([float(len(s)) if len(s) <= 8 else np.nan for s in sequences])
"""
HOSTILE = """>a" onload="x <script>alert(1)</script>
GIGKFLHSAKK
><img/src=x>
KLAKLAKKLAK
>c</td><b>
ACDX1
>=d()
GIGKFLHSAKK
"""


def body_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def sections(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def text_of(page: str) -> str:
    """What a reader sees."""
    return unescape(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2].partition("<script>")[0]))


class Tags(HTMLParser):
    """The names of a page's elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def check_page(page: str, title: str) -> None:
    """Whole, with the title, every figure described, and no markup but our own."""
    assert f"<h1>{title}</h1>" in page
    for svg in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        assert 'role="img"' in svg and re.search(r"<title id=.*?>.+?</title><desc id=.*?>.+?</desc>", svg)
        assert 'class="name"' in svg and 'class="unit"' in svg
    tags = Tags(page)
    assert tags.names <= OURS and not any(name.startswith("on") for name in tags.attributes)
    assert "prefers-color-scheme:dark" in page and 'name="viewport"' in page


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("mine") / "holes.py"
    file.write_text(HOLES, encoding="utf-8")
    return f"{file}:Holes"


def test_generate_reports_everything(motif: Callable, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["n=6", "objectives=[net_charge,gravy:near:0]", "constraints=[length:5..9,forbid:NG]", f"out={out}"]
    outcome = motif("generate", f"checkpoint={tiny / 'model'}", *words)
    assert outcome.code == 0
    assert "6 sequences, 6 checked against the constraints, 0 violating one\n" in outcome.out
    body = body_of(out)
    check_metrics(body)
    assert body["values"].keys() == METRICS | {"sequences", "without_value", "hypervolume"}
    assert body["baselines"]["real_test_sequences"].keys() == METRICS | {"hypervolume"}
    # Scores of real sequences are no calls of this run.
    assert body["objective_calls"] <= 6 and body["constraints"] == {"checked": 6, "violated": 0}
    page = (out / "report.html").read_text(encoding="utf-8")
    check_page(page, "bio / peptide: generate")
    assert sections(page) == [
        *("Summary", "Objectives", "Hypervolume", "Constraints", "Quality", "Samples"),
        *("Provenance", "Checkpoint card", "How to cite", "Files"),
    ]
    shown = text_of(page)
    for part in ("net_charge (e)", "gravy:near:0", "length:5..9", "forbid:NG", "motif rerun", body["data"]["sha256"]):
        assert part in shown
    assert "motif generate " in shown and "checkpoint=" in shown
    assert len(re.findall("<svg ", page)) == 5


def test_best_of_never_gives_out_a_gap_and_says_so(motif: Callable, tiny: Path, tmp_path: Path, holes: str) -> None:
    words = [f"checkpoint={tiny / 'model'}", "n=8", "best_of=2", f"objectives=[{holes},net_charge]"]
    outcome = motif("generate", *words, f"out={tmp_path / 'run'}")
    assert outcome.code == 0
    with open(tmp_path / "run" / "samples.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert all(len(row[1]) <= 8 and "" not in row for row in rows[1:])
    body = body_of(tmp_path / "run")
    kept, gaps = body["values"]["sequences"], body["values"]["without_value"]
    assert len(rows) - 1 == kept == 16 - gaps < 8
    said = [
        f"16 drawn (best_of=2), {kept} kept by non-dominated sorting; sequences without a value in every objective "
        f"are never kept ({gaps} of 16)",
        f"fewer than n=8: no more than {kept} sequences have a value in every objective",
    ]
    shown = text_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert all(part in outcome.out and part in shown for part in said)


def test_nothing_kept_is_still_a_report(motif: Callable, tiny: Path, tmp_path: Path, holes: str) -> None:
    words = [f"checkpoint={tiny / 'model'}", "n=3", "best_of=2", f"objectives=[{holes}]", "constraints=[length:9..12]"]
    outcome = motif("generate", *words, f"out={tmp_path / 'run'}")
    assert outcome.code == 0 and "0 kept" in outcome.out
    check_metrics(body_of(tmp_path / "run"))


def test_gaps_stay_in_the_files_without_best_of(motif: Callable, tiny: Path, tmp_path: Path, holes: str) -> None:
    words = [f"checkpoint={tiny / 'model'}", "n=8", f"objectives=[{holes}]", f"out={tmp_path / 'run'}"]
    outcome = motif("generate", *words)
    body = body_of(tmp_path / "run")
    assert body["values"]["sequences"] == 8 and body["values"]["without_value"] > 0
    assert f"{body['values']['without_value']} of 8 sequences have no value in some objective" in outcome.out


def test_a_file_is_judged_without_weights_and_its_text_is_harmless(motif: Callable, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(HOSTILE, encoding="utf-8")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "reference.csv.gz").write_bytes((tiny / "model" / "reference.csv.gz").read_bytes())
    out = tmp_path / "run"
    words = [f"input={tmp_path / 'in.fasta'}", f"checkpoint={tmp_path / 'real'}", "objectives=[net_charge]"]
    outcome = motif("evaluate", *words, "constraints=[contains:HSAKK]", f"out={out}")
    assert outcome.code == 0 and "2 sequences, 2 checked against the constraints, 1 violating one" in outcome.out
    with open(out / "skipped.csv", encoding="utf-8", newline="") as stream:
        skipped = list(csv.DictReader(stream))
    assert [row["record"] for row in skipped] == ["c</td><b>", "'=d()"]
    body = body_of(out)
    check_metrics(body)
    assert body["model"] == {"name": None, "parameters": 0} and body["network_calls"] == 0
    assert body["constraints"] == {"checked": 2, "violated": 1}
    assert body["objective_calls"] == 2 and body["objective_evaluations"] == {"net_charge": 2}
    assert_figures_are_told(outcome.out, body)
    page = (out / "report.html").read_text(encoding="utf-8")
    check_page(page, "bio / peptide: evaluate")
    assert "Input" in sections(page) and "Checkpoint card" not in sections(page)
    shown = text_of(page)
    for part in ("2 records were read, 2 skipped", "c</td><b>", "<img/src=x>", *(row["reason"] for row in skipped)):
        assert part in shown


def assert_figures_are_told(text: str, body: dict[str, Any]) -> None:
    """Each metric on a line of its own, beside that of real sequences."""
    floor, told = body["baselines"]["real_test_sequences"], text.splitlines()
    assert set(floor) >= METRICS
    number = lambda value: "not defined" if value is None else f"{value:.4g}"  # noqa: E731
    for name, real in floor.items():
        assert f"{name}: {number(body['values'][name])} (real test sequences {number(real)})" in told


def test_the_statements_of_the_reader_are_shown(motif: Callable, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("sequence;x\nGIGKFLHSAKK;1\nKLAKLAKKLAK;2\n", encoding="utf-8")
    words = [f"input={tmp_path / 'in.csv'}", f"checkpoint={tiny / 'model'}", f"out={tmp_path / 'run'}"]
    assert motif("evaluate", *words).code == 0
    assert "the delimiter is a semicolon" in text_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))


def test_evaluate_puts_the_model_beside_ngrams(motif: Callable, tiny: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={tiny / 'model'}", f"data.path={tiny / 'prepared'}", "n=5", "points=4"]
    outcome = motif("evaluate", *words, f"out={tmp_path / 'run'}")
    assert outcome.code == 0
    body = body_of(tmp_path / "run")
    check_metrics(body)
    values, shards = body["values"], TokenShards.open(tiny / "prepared")
    assert values.keys() == LIKELIHOOD | METRICS | {"sequences", "without_value"}
    test = [row.tolist() for row in shards.split("test")]
    assert values["tokens"] == sum(len(row) + 1 for row in test) and values["test_sequences"] == len(test)
    assert values["likelihood"] == "ELBO (bound)" and body["network_calls"] > 4
    assert values["perplexity"] == pytest.approx(math.exp(values["nll"]))
    assert values["perplexity_upper"] >= values["perplexity"]
    assert values["perplexity_low"] < values["perplexity"] < values["perplexity_high"]
    grams = {name: floor for name, floor in body["baselines"].items() if "perplexity" in floor}
    assert [name.partition("gram")[0] for name in grams] == [str(order) for order in MODULE._ORDERS]
    assert values["floor"] == min(grams, key=lambda name: grams[name]["valid_perplexity"])
    assert values["nll_minus_floor"] == pytest.approx(values["nll"] - grams[values["floor"]]["nll"])
    for name, floor in grams.items():
        assert f"{name}: perplexity {floor['perplexity']:.3f} [95 % " in outcome.out
    assert f"floor {values['floor']} (best on the validation split)" in outcome.out
    assert "upper 95 % limit of the bound's quadrature" in outcome.out
    assert_figures_are_told(outcome.out, body)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    check_page(page, "bio / peptide: evaluate")
    found = sections(page)
    assert found[:4] == ["Summary", "Likelihood", "Quality", "Data"] and "Provenance" in found


def test_the_floor_is_counted_on_train_tuned_on_valid_and_blind_to_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "_ORDERS", range(1, 4))
    rows = np.random.default_rng(0).integers(0, 3, size=(90, 6)).tolist()
    splits = {"train": rows[:50], "valid": rows[50:70], "test": rows[70:]}
    shards = TokenShards.write(tmp_path / "a", splits, "x")
    floors, (best, nll) = ngram_floors(shards, 3, seed=0)
    for order, (name, floor) in enumerate(floors.items(), start=1):
        model = NGram(order, 3).fit(splits["train"], splits["valid"])
        assert name == f"{order}gram_{model.smoothing}"
        assert floor["perplexity"] == pytest.approx(model.perplexity(splits["test"]))
    assert floors[best]["nll"] == pytest.approx(nll.sum() / (20 * 7))
    other = TokenShards.write(tmp_path / "b", {**splits, "test": [[0], [1, 1]]}, "x")
    changed, (same, _) = ngram_floors(other, 3, seed=0)
    assert same == best
    assert [floor["valid_perplexity"] for floor in changed.values()] == [f["valid_perplexity"] for f in floors.values()]


def check_order(tiny: Path) -> None:
    """The n-th likelihood is that of the n-th sequence, alone or among others."""
    loaded, test = load(tiny / "model"), TokenShards.open(tiny / "prepared").split("test")
    together = likelihood_of(loaded, test, 4, 0)
    assert together.tokens.tolist() == [len(row) + 1 for row in test]
    assert len(set(together.tokens.tolist())) > 1
    by_length = loaded.model.process.length_prior.nll(torch.as_tensor(test.lengths))  # type: ignore[union-attr,operator]
    assert bool((together.nll > by_length).all())


def test_likelihoods_come_in_the_order_of_the_split(tiny: Path) -> None:
    check_order(tiny)


def test_an_order_of_batches_is_caught(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "argsort", lambda rows, **_: np.arange(len(rows)))
    with pytest.raises(AssertionError):
        check_order(tiny)


REFUSED = {
    "nothing": ([], "evaluate needs input= (a file of sequences), data= (a named set) or data.path= (prepared)"),
    "points": (["points=1"], "points=1: a whole number from 2 up is needed"),
    "n": (["n=-1"], "n=-1: a whole number from 0 up is needed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_leave_nothing(motif: Callable, tiny: Path, tmp_path: Path, case: str) -> None:
    words, message = REFUSED[case]
    outcome = motif("evaluate", f"checkpoint={tiny / 'model'}", *words, f"out={tmp_path / 'run'}")
    assert (outcome.code, outcome.err) == (2, f"motif: {message}\n")
    assert not list(tmp_path.iterdir())


def test_markup_from_outside_is_caught() -> None:
    page = '<h1>a</h1><style>prefers-color-scheme:dark</style><meta name="viewport">'
    check_page(page, "a")
    for stranger in ("<img>", '<p onload="x">', '<svg role="img"></svg>'):
        with pytest.raises(AssertionError):
            check_page(page + stranger, "a")


def test_a_body_off_the_schema_is_caught() -> None:
    body: dict[str, Any] = {key: {} for key in SCHEMA}
    with pytest.raises(AssertionError):
        check_metrics(body)


def test_a_named_set_is_prepared_for_the_while(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of the set stand in a folder that is gone afterwards."""
    seen: list[Path] = []

    def prepare(domain: str, task: str, data: str, out: Path) -> Path:
        assert (domain, task, data) == ("bio", "peptide", "peptides")
        return Path(shutil.copytree(tiny / "prepared", out))

    monkeypatch.setattr(pipelines, "prepare", prepare)
    monkeypatch.setattr(MODULE, "_evaluate_model", lambda config, task, loaded, folder: seen.append(folder))
    pipelines.evaluate(checkpoint=tiny / "model", data="peptides", out=tmp_path / "run")
    assert len(seen) == 1 and not seen[0].exists()


@pytest.mark.parametrize("rules", ["constraints=[length:5..9]", "objectives=[gravy]"])
def test_rules_without_a_file_to_judge_are_refused(rules: str, tiny: Path, refused: Callable[..., None]) -> None:
    words = ("evaluate", f"checkpoint={tiny / 'model'}", f"data.path={tiny / 'prepared'}", rules)
    refused("objectives and constraints judge the sequences of input=: drop them, or name a file", *words)
