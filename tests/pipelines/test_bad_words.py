"""Commands that ask for what there is not, or cannot be: one line that helps, and nothing is left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.data.shards import TokenShards

INFEASIBLE = {
    "above_the_trained_length": (
        "[length:30..40]",
        "constraint length:30..40: no sequence of length 1 to 20 obeys it; loosen it",
    ),
    "a_pair_among_four": (
        "[length:5..6,forbid:A,contains:AAA,repeat:3]",
        "constraints forbid:A and contains:AAA: no sequence of length 1 to 20 obeys them together; loosen or drop one",
    ),
    "length_against_motif": (
        "[forbid:NG,contains:KKKK,length:2..3]",
        "constraints contains:KKKK and length:2..3: no sequence of length 1 to 20 obeys them together; "
        "loosen or drop one",
    ),
}


@pytest.mark.parametrize("case", INFEASIBLE)
def test_constraints_that_nothing_obeys_are_refused_by_a_smallest_conflicting_subset(
    case: str, refused: Callable, tiny: Path
) -> None:
    constraints, message = INFEASIBLE[case]
    refused(message, "generate", f"checkpoint={tiny / 'model'}", f"constraints={constraints}")


UNKNOWN = {
    "verb": ("generat", (), "unknown verb 'generat': did you mean 'generate'?"),
    "domain": ("generate", ("domain=bios",), "unknown domain 'bios': did you mean 'bio'?"),
    "task": ("generate", ("task=peptid",), "unknown task 'bio/peptid': did you mean 'bio/peptide'?"),
    "key": ("prepare", ("inputt=x",), "unknown key 'inputt': did you mean 'input'?"),
    "key_below_a_list": (
        "generate",
        ("objectives.gravy=max",),
        "unknown key 'objectives.gravy': write the whole list, as in objectives=[a,b]",
    ),
    "no_key": ("generate", ("oops",), "'oops' is not key=value"),
    "data": ("prepare", ("data=peptide",), "unknown data 'peptide': did you mean 'peptides'?"),
    "model": ("train", ("model=tinny",), "unknown model 'tinny': did you mean 'tiny'?"),
    "process": ("train", ("process=mixture_flo",), "unknown process 'mixture_flo': did you mean 'mixture_flow'?"),
    "mixer": ("train", ("mixer=atention",), "unknown mixer 'atention': did you mean 'attention'?"),
    "trainer": ("train", ("trainer=gpus",), "unknown trainer 'gpus': did you mean 'gpu'?"),
    "sampler": ("generate", ("sampler=stepwize",), "unknown sampler 'stepwize': did you mean 'stepwise'?"),
    "experiment": (
        "generate",
        ("experiment=peptide_dem",),
        "unknown experiment 'peptide_dem': did you mean 'peptide_demo'?",
    ),
    "objective": ("generate", ("objectives=[gravi]",), "unknown objective 'gravi': did you mean 'gravy'?"),
    "constraint": ("generate", ("constraints=[lenght:8]",), "unknown constraint 'lenght': did you mean 'length'?"),
    "argument": (
        "generate",
        ("objectives=[gravy:upwards]",),
        "objective 'gravy:upwards': Gravy() takes no arguments",
    ),
    "file": ("generate", ("objectives=[./none.py:Mine]",), "./none.py: no such file"),
    "sampler_of_another_process": (
        "generate",
        ("sampler=ancestral",),
        "sampler=ancestral needs an autoregressive checkpoint, drop it or name another",
    ),
    "steps": (
        "generate",
        ("sampler=stepwise", "sampler.steps=0"),
        "sampler stepwise: sampling takes at least one step, got 0",
    ),
    "count": ("generate", ("n=0",), "n=0: a whole number from 1 up is needed"),
    "count_of_words": ("generate", ("n=many",), "n=many: a whole number from 1 up is needed"),
    "best_of_nothing": ("generate", ("best_of=2",), "best_of needs objectives to choose by"),
    "seed": ("generate", ("seed=-1",), "seed=-1: a whole number from 0 to 4294967295 is needed"),
    "seed_of_words": ("prepare", ("seed=x",), "seed=x: a whole number from 0 to 4294967295 is needed"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_unknown_is_refused_with_the_nearest_name(case: str, refused: Callable) -> None:
    verb, words, message = UNKNOWN[case]
    refused(message, verb, *words)


def test_an_out_that_holds_something_is_left_alone(refused: Callable, tiny: Path, tmp_path: Path) -> None:
    kept = tmp_path / "out" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    message = f"{tmp_path / 'out'}: exists and is not empty, choose another out="
    refused(message, "generate", f"checkpoint={tiny / 'model'}", "n=2")
    assert kept.read_text(encoding="utf-8") == "mine"


FAST = ("model=tiny", "trainer.steps=4", "trainer.validate_every=2")
UNTRAINABLE = {
    "no_gpu": (
        (*FAST, "trainer.accelerator=gpu"),
        "trainer.accelerator=gpu: this machine has no GPU that torch can use, pass trainer=cpu",
    ),
    "steps": (("model=tiny", "trainer.steps=x"), "trainer.steps=x: a whole number from 1 up is needed"),
    "never_validated": (
        ("model=tiny", "trainer.steps=4"),
        "trainer.validate_every is above trainer.steps=4: no weights would be kept",
    ),
    "limit": ((*FAST, "process.limit=0"), "MixtureFlow: limit 0: a sequence holds at least one token"),
    "width": ((*FAST, "model.width=-1"), "width -1 and depth 2: they must be at least 1 and 0"),
    "heads": (
        (*FAST, "model.pattern=[{name: attention, heads: 0}]"),
        "mixer attention: 0 heads on 0 key heads: at least one of each is needed",
    ),
    "mixer_of_the_pattern": (
        (*FAST, "model.pattern=[{name: atention}]"),
        "unknown mixer 'atention': did you mean 'attention'?",
    ),
    "above_the_trained_length": (
        (*FAST, "process.limit=10"),
        "a sequence has 14 tokens, above the model's 10: train with process.limit=14, or prepare with max_length=10",
    ),
    "above_the_trained_length_of_the_twin": (
        (*FAST, "process=autoregressive", "process.limit=10"),
        "a sequence has 14 tokens, above the model's 10: train with process.limit=14, or prepare with max_length=10",
    ),
}


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_what_cannot_be_trained_is_refused(
    case: str, refused: Callable, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words, message = UNTRAINABLE[case]
    refused(message, "train", f"data.path={tiny / 'prepared'}", *words)


def test_too_few_records_to_train_or_judge_are_refused(
    motif: Callable, refused: Callable, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.fasta").write_text(">a\nGIGKFLHSAKK\n>b\nKWKLFKKIEKV\n>c\nMRWQEMGYIFY\n", encoding="utf-8")
    few = tmp_path / "few"
    assert motif("prepare", f"input={tmp_path / 'in.fasta'}", f"out={few}").code == 0
    refused(f"{few}: the split valid is empty, prepare more sequences", "train", f"data.path={few}")
    words = ("evaluate", f"checkpoint={tiny / 'model'}", f"data.path={few}")
    refused(f"{few}: the split valid is empty, prepare more sequences", *words)


def test_sequences_above_the_trained_length_are_not_judged(
    motif: Callable, refused: Callable, tiny: Path, tmp_path: Path
) -> None:
    records = (f">p{n}\n{'KWKLFKKIEKVGQNIRDGIIKAG'[n % 7 :]}{'GIL'[n % 3]}{'ACDEF'[n % 5]}\n" for n in range(100))
    (tmp_path / "in.fasta").write_text("".join(records), encoding="utf-8")
    long = tmp_path / "long"
    assert motif("prepare", f"input={tmp_path / 'in.fasta'}", f"out={long}").code == 0
    longest = max(TokenShards.open(long).split("test").lengths)
    message = (
        f"a sequence has {longest} tokens, above the model's 20: "
        f"train with process.limit={longest}, or prepare with max_length=20"
    )
    refused(message, "evaluate", f"checkpoint={tiny / 'model'}", f"data.path={long}")
