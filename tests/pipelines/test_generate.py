"""Generation: resumed equals uninterrupted, rerun repeats, and what metrics.json holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipelines as motif
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from pipelines.page import Page
from tests.pipelines.conftest import Outcome
from tests.pipelines.schema import check_metrics

HASH = re.compile(r"[0-9a-f]{64}")


def read(out: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((out / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)


WORDS: dict[str, Any] = {
    "n": 10,
    "batch_size": 4,
    "sampler": "stepwise",
    "sampler.steps": 6,
    "objectives": ["gravy:max", "net_charge:near:2"],
    "constraints": ["length:5..9", "forbid:K-x-K"],
}


def generated(tiny: Path, out: Path, **more: Any) -> Any:
    return motif.generate(checkpoint=tiny / "model", out=out, **{**WORDS, **more})


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    generated(tiny, out)
    return out


@pytest.mark.parametrize("torn", [False, True], ids=["between batches", "inside a line"])
def test_resumed_is_uninterrupted(
    torn: bool, tiny: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, calls = Stepwise.sample, []

    def stop_at_third(self: Stepwise, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return true(self, *arguments, **options)

    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(Stepwise, "sample", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            generated(tiny, out)
    partial = tmp_path / "cut.partial"
    drawn = (partial / "drawn.jsonl").read_text().splitlines()
    assert not out.exists() and len(drawn) == 2
    if torn:
        (partial / "drawn.jsonl").write_text("\n".join([drawn[0], drawn[1][:20]]))
    with pytest.raises(UserError, match="unfinished run of another configuration"):
        generated(tiny, out, seed=1)
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Stepwise, "sample", lambda *a, **o: (calls.append(1), true(*a, **o))[1])
        generated(tiny, out)
    assert len(calls) == (2 if torn else 1)
    cut, one = read(out), read(whole)
    for body in (cut, one):
        del body["seconds"]
    assert cut == one
    for name in ("samples.fasta", "samples.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert not partial.exists()


def test_a_stop_in_the_report_draws_nothing_again(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Page, "close", fail)
        with pytest.raises(RuntimeError):
            generated(tiny, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Stepwise, "sample", fail)
        assert len(generated(tiny, tmp_path / "run").sequences) == 10


def test_rerun_gives_the_same_samples(whole: Path, tmp_path: Path, motif: Callable[..., Outcome]) -> None:
    done = motif("rerun", whole, f"out={tmp_path / 'again'}")
    assert done.code == 0 and str(tmp_path / "again") in done.out
    again, one = read(tmp_path / "again"), read(whole)
    assert again["samples"] == one["samples"]
    assert HASH.fullmatch(again["samples"]["sha256"])
    config, first = (yaml.safe_load((out / "config.yaml").read_text()) for out in (tmp_path / "again", whole))
    assert {**config, "out": None} == {**first, "out": None}
    (start, *_) = (json.loads(line) for line in (tmp_path / "again" / "log.jsonl").read_text().splitlines())
    assert start["command"] == f"motif rerun {whole} out={tmp_path / 'again'}"
    refused = motif("rerun", whole, f"out={tmp_path / 'again'}")
    assert refused.code == 2 and "not empty" in refused.err


def test_rerun_of_training_gives_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    again = motif.rerun(tiny / "model", tmp_path / "again")
    name = "model.safetensors"
    assert (again / name).read_bytes() == (tiny / "model" / name).read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda config: config.pop("batch_size"), "key batch_size is missing, the run is of another version"),
        (lambda config: config.update(verb="dance"), "verb 'dance' is none of prepare, train"),
        (lambda config: config.pop("verb"), "not the configuration of a run"),
    ],
)
def test_what_cannot_be_rerun(spoil: Callable[[dict], Any], message: str, whole: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((whole / "config.yaml").read_text())
    spoil(config)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=message):
        motif.rerun(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_samples_do_not_depend_on_the_batch(tiny: Path, whole: Path, tmp_path: Path) -> None:
    generated(tiny, tmp_path / "run", batch_size=3)
    assert read(tmp_path / "run")["samples"] == read(whole)["samples"]
    assert generated(tiny, tmp_path / "other", seed=1).metrics["samples"] != read(whole)["samples"]


def test_every_verb_writes_the_schema(tiny: Path, whole: Path, tmp_path: Path) -> None:
    runs = [tiny / "prepared", tiny / "model", whole]
    runs.append(tmp_path / "judged")
    motif.evaluate(checkpoint=tiny / "model", input=whole / "samples.fasta", out=runs[-1])
    runs.append(tmp_path / "likelihood")
    motif.evaluate(checkpoint=tiny / "model", data__path=tiny / "prepared", points=4, out=runs[-1])
    for out, verb in zip(runs, ("prepare", "train", "generate", "evaluate", "evaluate"), strict=True):
        body = read(out)
        check_metrics(body)
        assert body["verb"] == verb
        assert HASH.fullmatch(body["data"]["sha256"]) or out.name == "judged"
        config = yaml.safe_load((out / "config.yaml").read_text())
        assert config["verb"] == verb
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert log[0]["event"] == "start" and log[0]["command"].startswith(f"motif {verb} ")
        assert log[-1]["event"] == "end"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.pop("seed"),
        lambda body: body.update(seed=body.pop("seed")),
        lambda body: body.update(schema="1"),
        lambda body: body["data"].pop("sha256"),
        lambda body: body["values"].update({"Bad Name": 1}),
        lambda body: body["values"].update(nested={}),
    ],
)
def test_the_schema_refuses_another_body(spoil: Callable[[dict], Any], whole: Path) -> None:
    body = read(whole)
    spoil(body)
    with pytest.raises(AssertionError):
        check_metrics(body)


def test_a_folder_that_holds_something_is_refused(tiny: Path, whole: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in whole.iterdir())
    with pytest.raises(UserError, match="exists and is not empty"):
        generated(tiny, whole)
    assert sorted(path.name for path in whole.iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        generated(tiny, tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        generated(tiny, tmp_path / "file" / "below")
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="is not an unfinished run of ours"):
        generated(tiny, tmp_path / "x")
    assert (tmp_path / "x.partial" / "mine.txt").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    assert generated(tiny, tmp_path / "empty", n=1).out == tmp_path / "empty"


def test_multirun_writes_one_folder_a_job(tiny: Path, tmp_path: Path, motif: Callable[..., Outcome]) -> None:
    words = [f"checkpoint={tiny / 'model'}", "seed=0,1", "n=3", "sampler=stepwise", "sampler.steps=2"]
    done = motif("generate", *words, f"out={tmp_path / 'all'}", "--multirun")
    assert done.code == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["0", "1"]
    bodies = [read(tmp_path / "all" / job) for job in ("0", "1")]
    assert [body["seed"] for body in bodies] == [0, 1]
    assert bodies[0]["samples"] != bodies[1]["samples"]
    refused = motif("generate", *words, "m=1", f"out={tmp_path / 'none'}", "--multirun")
    assert refused.code == 2 and not (tmp_path / "none").exists()


def test_the_task_of_the_command_line_counts(tiny: Path, tmp_path: Path) -> None:
    done = motif.generate(checkpoint=tiny / "model", n=2, task__metrics="[validity]", out=tmp_path / "run")
    assert set(done.metrics["values"]) == {"sequences", "without_value", "valid"}
    with pytest.raises(UserError, match="unknown metric 'validty'"):
        motif.generate(checkpoint=tiny / "model", n=2, task__metrics="[validty]", out=tmp_path / "none")
    assert not list(tmp_path.glob("none*"))
