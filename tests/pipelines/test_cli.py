"""The command: exit codes, one-line errors, help, and names that a user's folder must not take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli
from tests.pipelines.conftest import Outcome

ROOT = Path(__file__).parents[2]
VERBS = ("prepare", "train", "finetune", "generate", "evaluate", "list", "cite", "data", "check", "rerun")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=str)
def test_usage_names_every_verb(words: list[str], motif: Callable[..., Outcome]) -> None:
    done = motif(*words)
    assert done.code == 0 and not done.err
    assert all(f"\n  {verb} " in done.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str, motif: Callable[..., Outcome], capfd: pytest.CaptureFixture[str]) -> None:
    try:
        done = motif(verb, "--help")
    except SystemExit as stop:
        done = Outcome(int(stop.code or 0), *capfd.readouterr())
    assert done.code == 0 and done.out.count("\n") >= 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generat"], "unknown verb 'generat': did you mean 'generate'"),
        (["generate", "m=3"], "unknown key 'm'"),
        (["generate", "checkpoint=no where"], "checkpoint no where: no such folder"),
        (["generate", "constraints=[length:9..3]"], "length:9..3"),
        (["generate", "best_of=2"], "best_of needs objectives"),
        (["generate", "n=0"], "n=0: a whole number from 1 up is needed"),
        (["train", "data.path=no where"], "no where: not a prepared folder"),
        (["evaluate"], "evaluate needs input="),
        (["prepare", "input=no where.fasta"], "no where.fasta"),
        (["check", "nobody"], "nobody: neither path/to/file.py:Class nor a registered member"),
        (["check", "no.py:Where"], "no.py: no such file"),
        (["cite", "no where"], "no where: not a run"),
        (["rerun", "no where"], "no where: not a run"),
        (["cite"], "required: run; motif cite --help tells more"),
        (["list", "--jsn"], "unrecognized arguments: --jsn"),
        (["data"], "required: command"),
        (["data", "fetch"], "invalid choice: 'fetch'"),
        (["data", "get", "peptide"], "unknown data set 'peptide': did you mean 'peptides'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_error_is_one_line_and_code_2(
    words: list[str], message: str, motif: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = motif(*words)
    assert done.code == 2 and not done.out
    assert done.err.startswith("motif: ") and done.err.count("\n") == 1 and message in done.err
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_our_own_errors_are_not_the_users(motif: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_dispatch", lambda words: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        motif("list")


def test_ctrl_c_is_code_130(motif: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", stop)
    done = motif("list")
    assert done.code == 130 and "the same command goes on from here" in done.err


@pytest.fixture
def shadows(tmp_path: Path) -> Path:
    """A user's folder that holds core.py and core/."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("raise RuntimeError('not Motif')")
    (tmp_path / "core.py").write_text("raise RuntimeError('not Motif')")
    return tmp_path


def started(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_installed_command_ignores_a_users_core(shadows: Path) -> None:
    """As the console script does: the interpreter looks beside the script, not into the working folder."""
    script = shadows / "bin" / "motif"
    script.parent.mkdir()
    script.write_text("import sys\nfrom pipelines.cli import main\nsys.exit(main())\n")
    done = started([sys.executable, str(script), "list"], shadows)
    assert done.returncode == 0, done.stderr
    assert "mixture_flow" in done.stdout


def test_a_core_that_shadows_ours_is_refused_in_one_line(shadows: Path) -> None:
    done = started([sys.executable, "-m", "pipelines.cli", "list"], shadows)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("motif: ") and done.stderr.count("\n") == 1
    assert "shadows Motif's package core" in done.stderr and str(shadows.resolve()) in done.stderr


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys\nfrom pipelines.cli import main\nmain(['generate', '--help'])\nassert 'torch' not in sys.modules"
    done = started([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
