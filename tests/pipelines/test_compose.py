"""The command line's words: what Hydra reads, what it never sees, and what is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from core.errors import UserError
from pipelines.compose import commented_keys, configurations, help_text, words_of

CONFIGS = Path(__file__).parents[2] / "configs"
VERBS = ("prepare", "train", "finetune", "generate", "evaluate")


def one(verb: str, *words: str) -> dict:
    (config,) = configurations(verb, words)
    return config


@pytest.mark.parametrize(
    "text",
    [
        "my file.fasta",
        "a,b.fasta",
        "it's.fasta",
        "a=b.fasta",
        "f(1)[2]{3}.fasta",
        "straße/データ.fasta",
        "NAN",
        "${oc.env:HOME}",
        "~/x:y\\z",
        '"quoted"',
        "1e5",
        "true",
        "-5",
        "",
    ],
)
@pytest.mark.parametrize(("verb", "key"), [("evaluate", "input"), ("generate", "checkpoint"), ("train", "data.path")])
def test_text_arrives_as_written(verb: str, key: str, text: str) -> None:
    config = one(verb, f"{key}={text}")
    for part in key.split("."):
        config = config[part]
    assert config == text
    (config,) = configurations(verb, words_of({key.replace(".", "__"): text}))
    for part in key.split("."):
        config = config[part]
    assert config == text


def test_null_is_no_text() -> None:
    assert one("generate", "checkpoint=null")["checkpoint"] is None
    (config,) = configurations("generate", words_of({"checkpoint": None}))
    assert config["checkpoint"] is None


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[]", []),
        ("length:8-11", ["length:8-11"]),
        ("[length:8..20, forbid:NG]", ["length:8..20", "forbid:NG"]),
        ("[forbid:N-{P}-[ST],contains:C-x(2,4)-C]", ["forbid:N-{P}-[ST]", "contains:C-x(2,4)-C"]),
        ("[within:2:GIGK,fixed:-1C]", ["within:2:GIGK", "fixed:-1C"]),
        ('[a:"x,y:z@1",b:-2..5,c:18:00-20:00]', ['a:"x,y:z@1"', "b:-2..5", "c:18:00-20:00"]),
        ("[contains:NAN,key:F#m,forbid:null]", ["contains:NAN", "key:F#m", "forbid:null"]),
        ("[./my file.py:Mine:max@0.5]", ["./my file.py:Mine:max@0.5"]),
    ],
)
def test_lists_of_items_are_split_outside_brackets(text: str, items: list[str]) -> None:
    assert one("generate", f"constraints={text}")["constraints"] == items
    (config,) = configurations("generate", words_of({"constraints": items}))
    assert config["constraints"] == items


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n"], "'n' is not key=value"),
        (["m=3"], "unknown key 'm'"),
        (["n=[1"], "no viable|mismatched|missing"),
        (["db=x"], "key 'db' is not one of this verb's"),
        (["task=protein"], "protein"),
        (["domain=biology"], "unknown domain 'biology': did you mean 'bio'"),
        (["sampler=stepwize"], "unknown sampler 'stepwize': did you mean 'stepwise'"),
        (["sampler.steps=3"], "unknown key 'sampler"),
        (["experiment=none"], "unknown experiment 'none'"),
        (["constraints=[forbid:N-{P]"], "unbalanced"),
        (["n=${seed}${"], "token recognition error|mismatched input|extraneous|no viable"),
        (["n=1,2"], "add --multirun to run each"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        configurations("generate", words)
    assert "\n" not in str(caught.value)


def test_defaults_and_groups() -> None:
    config = one("train", "process=autoregressive", "process.limit=30", "model=tiny", "trainer=gpu")
    assert (config["process"]["name"], config["process"]["limit"]) == ("autoregressive", 30)
    assert (config["domain"], config["task"]["name"]) == ("bio", "peptide")
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert "mixer" not in config
    assert one("train", "mixer=min_gru", "domain=bio", "task=peptide")["model"]["pattern"] == [
        {"name": "min_gru", "expansion": 1.0}
    ]
    sampler = one("generate", "sampler=stepwise", "sampler.steps=8")["sampler"]
    assert sampler == {"name": "stepwise", "steps": 8, "corrector": 0.0}


def test_an_experiment_names_its_task_and_words_name_another() -> None:
    assert one("train", "experiment=dhs_autoregressive")["task"]["name"] == "regulatory_dna"
    assert one("train", "experiment=dhs_autoregressive", "task=peptide")["task"]["name"] == "peptide"
    assert one("train")["task"]["name"] == "peptide"


def test_an_experiment_is_overridden_by_words() -> None:
    config = one("generate", "experiment=peptide_demo", "best_of=2", "constraints=[length:9..9]")
    assert (config["n"], config["best_of"], config["constraints"]) == (256, 2, ["length:9..9"])
    assert len(config["objectives"]) == 4


def test_members_from_files_keep_their_options_and_drop_the_defaults() -> None:
    config = one("train", "process=./my own.py:P", "process.limit=9", "mixer=m.py:M", "mixer.taps=3")
    assert config["process"] == {"name": "./my own.py:P", "limit": 9}
    assert config["model"]["pattern"] == [{"name": "m.py:M", "taps": 3}]
    config = one("generate", "process=./p.py:P", "mixer=m.py:M", "sampler=s.py:S", "sampler.steps=3")
    assert (config["process"], config["mixer"]) == ({"name": "./p.py:P"}, {"name": "m.py:M"})
    assert config["sampler"] == {"name": "s.py:S", "steps": 3}


def test_a_sweep_is_the_product_in_numbered_folders(tmp_path: Path) -> None:
    out = tmp_path / "my runs"
    words = ["n=1,2", "sampler=stepwise,ancestral", f"out={out}", "constraints=[forbid:N,repeat:2]", "seed=range(0,2)"]
    configs = configurations("generate", words, multirun=True)
    assert [(c["n"], c["sampler"]["name"], c["seed"]) for c in configs] == [
        (n, name, seed) for n in (1, 2) for name in ("stepwise", "ancestral") for seed in (0, 1)
    ]
    assert [c["out"] for c in configs] == [str(out / str(number)) for number in range(8)]
    assert all(c["constraints"] == ["forbid:N", "repeat:2"] for c in configs)
    assert not out.exists()


def test_the_command_of_a_job_gives_that_job_alone(tmp_path: Path) -> None:
    import shlex

    words = ["n=1,2", f"out={tmp_path / 'my runs'}", "constraints=[forbid:N-{P}-[ST]]", "domain=bio", "task=peptide"]
    for config in [*configurations("generate", words, multirun=True), *configurations("generate", words[1:])]:
        motif, verb, *rest = shlex.split(config["command"])
        assert (motif, verb) == ("motif", "generate")
        (again,) = configurations(verb, rest)
        assert {**again, "command": None} == {**config, "command": None}


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_key_with_its_comment(verb: str) -> None:
    text = help_text(verb)
    config = one(verb)
    for key, value in config.items():
        if key not in ("command", "task", "process", "model", "adapt", "trainer", "data"):
            assert re.search(rf"^  {key}=\S+ +\S", text, re.MULTILINE), key
            # A default may be taken from the task.
            assert value is None or str(value).lower() in text.lower() or f"{key}=${{" in text
    assert "--multirun" in text


def test_help_of_finetune_explains_both_adaptations() -> None:
    text = help_text("finetune")
    assert re.search(r"^adapt=lora unless told\n  full: \S.*\n", text, re.MULTILINE)
    assert re.search(r"^ +adapt\.rank=8 +\S", text, re.MULTILINE) and text.count("adapt.learning_rate=") == 2


EXPLAINED = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "experiment")


@pytest.mark.parametrize("path", EXPLAINED, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_key_has_a_comment(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    keys = commented_keys(text)
    assert {key.name.split(".")[0] for key in keys} == set(yaml.safe_load(text)) - {"defaults"}
    # The entries of a model's pattern are a mixer's, which its own file explains.
    bare = [key.name for key in keys if not key.comment and not key.name.startswith("pattern.")]
    assert not bare


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_experiments_set_known_keys(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n# ")
    known = {key for verb in VERBS for key in one(verb)}
    assert set(yaml.safe_load(text)) - {"defaults"} <= known


def test_a_key_without_comment_is_seen() -> None:
    keys = commented_keys(
        "# File.\ndefaults:\n  - a: b\n# One.\none: 1\ntwo: 2\n# Three.\nthree:\n  # Four.\n  four: x\n"
    )
    assert [(key.name, key.comment) for key in keys] == [
        ("one", "One."),
        ("two", ""),
        ("three", "Three."),
        ("three.four", "Four."),
    ]


def test_a_fusion_takes_the_place_of_the_models_own() -> None:
    config = one("train", "model=encoder_decoder", "model.fusion.pointer=source", "fusion=flat", "fusion.heads=2")
    assert config["model"]["fusion"] == {
        "name": "flat",
        "heads": 2,
        "pointer": "source",
        "rotary": False,
        "layers": None,
    }
    assert "fusion" not in config
