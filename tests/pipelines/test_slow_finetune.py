"""Two hundred sequences of a user's: the bundled model learns them on a CPU in minutes, and what is held out tells."""

from __future__ import annotations

import csv
import gzip
import json
import random
import time
from pathlib import Path

import pytest

import pipelines as motif

# Peptides rich in tryptophan, from the split that no bundled model was trained on: a tenth of the corpus.
RICH = 0.1
COUNT = 200
SECONDS = 300


@pytest.fixture(scope="module")
def mine(motif_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with gzip.open(motif_data / "bio" / "peptides" / "corpus.csv.gz", "rt", encoding="utf-8") as stream:
        unseen = [row["sequence"] for row in csv.DictReader(stream) if row["split"] == "test"]
    chosen = sorted(sequence for sequence in unseen if sequence.count("W") >= RICH * len(sequence))
    random.Random(0).shuffle(chosen)
    file = tmp_path_factory.mktemp("mine") / "mine.fasta"
    file.write_text("".join(f">m{n}\n{sequence}\n" for n, sequence in enumerate(chosen[:COUNT])))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("adapt", ["lora", "full"])
def test_two_hundred_sequences_lower_the_held_out_nll(
    adapt: str, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.process_time()
    out = motif.finetune(input=mine, adapt=adapt, out=tmp_path / "model")
    # Of this process, on one thread: other work on the machine does not count.
    seconds = time.process_time() - began
    body = json.loads((out / "metrics.json").read_text())
    values = body["values"]
    with capsys.disabled():
        print(
            f"\n{adapt}: held out {values['held_out_sequences']} sequences, {values['likelihood']} "
            f"{body['baselines']['parent']['nll']:.4f} -> {values['nll']:.4f} nats a token, change "
            f"[{values['nll_change_low']:+.4f}, {values['nll_change_high']:+.4f}], {seconds:.0f} s"
        )
    assert body["data"]["n"] == COUNT and values["held_out_sequences"] >= 30
    assert values["nll_change_high"] < 0
    assert seconds < SECONDS
