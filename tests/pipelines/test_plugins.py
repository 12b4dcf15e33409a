"""Members written outside the repository: from a file and from an installed package, trained, used and checked."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import pipelines as motif
from core.errors import UserError
from core.processes.autoregressive import Autoregressive
from domains.bio.objectives.gc_content import GcContent
from tests.pipelines.conftest import Outcome
from tests.pipelines.own_members import BAD, GOOD, OBJECTIVE

KINDS = tuple(GOOD)
TRAINING = {"model": "tiny", "trainer.steps": 2, "trainer.validate_every": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each member in a file of its own, as `path.py:Class`."""
    folder = tmp_path_factory.mktemp("my members")
    for kind, (_, text) in GOOD.items():
        (folder / f"my_{kind}.py").write_text(text)
    return {kind: f"{folder / f'my_{kind}.py'}:{name}" for kind, (name, _) in GOOD.items()}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same members in an installed distribution, under the keys `far_<kind>`."""
    site = tmp_path / "site"
    (site / "far_members").mkdir(parents=True)
    (site / "far_members" / "__init__.py").write_text("")
    points = []
    for kind, (name, text) in GOOD.items():
        (site / "far_members" / f"{kind}.py").write_text(text)
        points += [f"[motif.{kind}]", f"far_{kind} = far_members.{kind}:{name}"]
    info = site / "far_members-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: far-members\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield site
    for module in [name for name in sys.modules if name.split(".")[0] == "far_members"]:
        del sys.modules[module]


@pytest.mark.parametrize("kind", KINDS)
def test_check_runs_the_laws(kind: str, files: dict[str, str]) -> None:
    lines = motif.check(files[kind])
    assert lines[0].startswith(files[kind]) and lines[-1] == "all laws hold"
    assert sum(line.startswith("ok  ") for line in lines) >= 3


def test_check_knows_installed_members(package: Path, motif: Callable[..., Outcome]) -> None:
    for kind in KINDS:
        done = motif("check", f"far_{kind}")
        assert done.code == 0 and done.out.endswith("all laws hold\n")


def test_check_takes_arguments(files: dict[str, str]) -> None:
    assert motif.check(f"{files['constraint']}:W")[-1] == "all laws hold"
    assert motif.check("forbid:N-{P}-[ST]")[-1] == "all laws hold"


@pytest.mark.parametrize("kind", KINDS)
def test_check_finds_a_fault(kind: str, tmp_path: Path, motif: Callable[..., Outcome]) -> None:
    text, law = BAD[kind]
    (tmp_path / "bad.py").write_text(text)
    done = motif("check", f"{tmp_path / 'bad.py'}:{GOOD[kind][0]}")
    assert done.code == 2 and "law broken" in done.err and law in done.err
    assert "all laws hold" not in done.out


def test_check_tells_own_faults_from_bugs_of_ours(
    monkeypatch: pytest.MonkeyPatch, motif: Callable[..., Outcome]
) -> None:
    done = motif("check", "bidirectional")
    assert done.code == 2 and "Bidirectional" in done.err and "mixer" in done.err
    for member, method in ((Autoregressive, "loss"), (GcContent, "score")):
        monkeypatch.setattr(member, method, lambda self, *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            motif("check", member.__module__.rpartition(".")[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Mine: pass", "derives from none of Objective"),
        (OBJECTIVE.replace("SHIFT", "").replace("paper = ", "source_paper = "), "names no paper"),
        (OBJECTIVE.replace("SHIFT", "").replace("def score", "def scores"), "lacks score"),
        (OBJECTIVE.replace("SHIFT", "/ 0 + nothing"), "NameError"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
    ],
)
def test_check_refuses_what_is_no_member(
    text: str, message: str, tmp_path: Path, motif: Callable[..., Outcome]
) -> None:
    (tmp_path / "bad.py").write_text(text.replace("Lysines", "Mine"))
    done = motif("check", f"{tmp_path / 'bad.py'}:Mine")
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1


def test_trained_and_used_from_files(files: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    own = {key: files[key] for key in ("process", "mixer")}
    model = motif.train(
        data__path=tiny / "prepared",
        out=tmp_path / "model",
        **own,
        **{"mixer.gain": 0.5, "process.limit": 14},
        **TRAINING,
    )
    config = yaml.safe_load((model / "config.yaml").read_text())
    assert config["process"] == {"name": files["process"], "limit": 14}
    assert config["model"]["pattern"] == [{"name": files["mixer"], "gain": 0.5}]
    asked = {"n": 6, "objectives": [f"{files['objective']}:W:max"], "constraints": [f"{files['constraint']}:C"]}
    result = motif.generate(checkpoint=model, out=tmp_path / "g", **own, **asked)
    assert all(peptide.startswith("C") and len(peptide) <= 14 for peptide in result.sequences)
    assert result.scores[:, 0].tolist() == [peptide.count("W") / len(peptide) for peptide in result.sequences]
    again = motif.rerun(tmp_path / "g", tmp_path / "again")
    assert again.metrics["samples"] == result.metrics["samples"]
    loaded = motif.load(model, **own).generate(out=tmp_path / "loaded", **asked)
    assert loaded.sequences == result.sequences
    repeated = motif.rerun(tmp_path / "loaded", tmp_path / "loaded again")
    assert repeated.metrics["samples"] == result.metrics["samples"]
    judged = motif.evaluate(checkpoint=model, data__path=tiny / "prepared", out=tmp_path / "e", **own)
    assert judged["values"]["likelihood"] == "NLL (exact)"
    text = motif.cite(tmp_path / "g")
    for title in ("Independent sites \\& uniform lengths", "Mean of the sequence", "Share of lysine", "first letter"):
        assert title in text


def test_a_checkpoint_loads_no_file_by_itself(files: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    own = {key: files[key] for key in ("process", "mixer")}
    model = motif.train(data__path=tiny / "prepared", out=tmp_path / "model", **own, **TRAINING)
    for left in ("process", "mixer"):
        with pytest.raises(UserError, match=f"its {left} comes from a file.*{left}=path/to/file.py:Class"):
            motif.generate(checkpoint=model, out=tmp_path / "g", **{k: v for k, v in own.items() if k != left})
    with pytest.raises(UserError, match="its process is a registered one"):
        motif.generate(checkpoint=tiny / "model", out=tmp_path / "g", process=files["process"])
    with pytest.raises(UserError, match="its process is a registered one"):
        motif.generate(checkpoint=tiny / "model", out=tmp_path / "g", process="autoregressive")
    assert not list(tmp_path.glob("g*"))


def test_trained_and_used_from_a_package(package: Path, tiny: Path, tmp_path: Path) -> None:
    own = {"process": "far_process", "mixer": "far_mixer"}
    model = motif.train(data__path=tiny / "prepared", out=tmp_path / "model", **own, **TRAINING)
    asked = {"n": 6, "objectives": ["far_objective:max"], "constraints": ["far_constraint:C"]}
    result = motif.generate(checkpoint=model, out=tmp_path / "g", **asked)
    assert all(peptide.startswith("C") for peptide in result.sequences)
    assert {"far_process", "far_mixer"} <= {key for group in motif.list().values() for key in group}


def test_an_installed_package_that_fails_is_named(package: Path, motif: Callable[..., Outcome]) -> None:
    (package / "far_members" / "objective.py").write_text("raise RuntimeError('half installed')")
    done = motif("generate", "objectives=[far_objective]", f"out={package / 'g'}")
    assert done.code == 2 and "far_objective = far_members.objective:Lysines" in done.err


def test_wrong_options_of_an_own_member(files: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="taps"):
        motif.train(
            data__path=tiny / "prepared",
            out=tmp_path / "m",
            process=files["process"],
            mixer=files["mixer"],
            **{"mixer.taps": 3},
            **TRAINING,
        )
    assert not list(tmp_path.glob("m*"))


def test_the_listing_names_members_and_papers(package: Path, motif: Callable[..., Outcome]) -> None:
    body = json.loads(motif("list", "--json").out)
    assert body["process"]["far_process"]["title"] == "Independent sites & uniform lengths"
