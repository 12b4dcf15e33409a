"""A tiny model, trained once, and a command line that runs in this process."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.cli import main

TRAINED_LENGTH = 20


@dataclass(frozen=True)
class Outcome:
    """What a command gave: exit code and both streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def motif(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `motif` with these words."""

    def run(*words: str) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def refused(motif: Callable[..., Outcome], tmp_path: Path) -> Callable[..., None]:
    """Check that a command ends with code 2 and one line, and leaves the test's folder as it was."""

    def check(message: str, *words: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        outcome = motif(*words, f"out={tmp_path / 'out'}")
        assert (outcome.code, outcome.out, outcome.err) == (2, "", f"motif: {message}\n")
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `prepared` shards of random peptides and a `model` trained on them for a few steps."""
    folder = tmp_path_factory.mktemp("tiny")
    source = random.Random(0)
    sequences = ["".join(source.choices("ACDEFGHIKLMNPQRSTVWY", k=source.randint(5, 14))) for _ in range(120)]
    records = (f">p{number}\n{sequence}\n" for number, sequence in enumerate(sequences))
    (folder / "in.fasta").write_text("".join(records), encoding="utf-8")
    assert main(["prepare", f"input={folder / 'in.fasta'}", f"out={folder / 'prepared'}"]) == 0
    steps = ["trainer.steps=4", "trainer.validate_every=2", "trainer.warmup_steps=1"]
    words = [f"data.path={folder / 'prepared'}", "model=tiny", f"process.limit={TRAINED_LENGTH}", *steps]
    assert main(["train", *words, f"out={folder / 'model'}"]) == 0
    return folder
