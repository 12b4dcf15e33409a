"""Checkpoints: what is saved comes back, and whatever else lies there is refused by name."""

import json
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from core.errors import UserError
from core.tokenizers.base import Vocabulary
from core.training import checkpoint
from core.training.checkpoint import load_weights, read_config, read_tokenizer, save_checkpoint
from core.training.model import build_model

CONFIG = {
    "domain": "bio",
    "task": {"name": "peptide"},
    "process": {"name": "mixture_flow", "schedule": {"name": "polynomial"}, "limit": 8},
    "model": {"width": 8, "depth": 1, "pattern": [{"name": "attention", "heads": 2}]},
    "seed": 0,
}
TOKENIZER = json.dumps({"tokenizer": "amino_acid", "settings": {"levels": 3}, "letters": []})


def _model(config=CONFIG):
    return build_model(config, Vocabulary(5))


@pytest.fixture
def folder(tmp_path):
    model = _model()
    model.process.fit(torch.tensor([3, 4, 4]))
    save_checkpoint(tmp_path / "model", CONFIG, model, TOKENIZER, "# A card\n")
    return tmp_path / "model"


def _rewrite(folder, change):
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def _refused(message, call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    said = str(error.value)
    assert message in said, said
    assert "\n" not in said
    return said


def check_round_trip(folder: Path, half: bool) -> None:
    """The law of checkpoints: weights come back equal, or as near as 16 bits are."""
    model = _model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.process.fit(torch.tensor([3, 4, 4]))
    save_checkpoint(folder, CONFIG, model, TOKENIZER, "# A card\n", half)
    again = _model()
    load_weights(folder, again)
    for name, value in model.state_dict().items():
        loaded = again.state_dict()[name]
        assert loaded.dtype == value.dtype
        expected = value.half().to(value.dtype) if half and value.dtype == torch.float32 else value
        assert torch.equal(loaded, expected), name
    assert read_config(folder) == CONFIG
    assert read_tokenizer(folder) == {"name": "amino_acid", "levels": 3}
    assert (folder / "card.md").read_text(encoding="utf-8") == "# A card\n"


@pytest.mark.parametrize("half", [False, True])
def test_what_is_saved_comes_back(half, tmp_path):
    check_round_trip(tmp_path / "model", half)
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert (stored["network.backbone.head.weight"].dtype == torch.float16) == half
    # The length prior stays exact.
    assert stored["process.length_prior.log_probability"].dtype == torch.float64


@pytest.mark.parametrize("half", [False, True])
def test_the_law_of_checkpoints_catches_a_planted_fault(half, tmp_path, monkeypatch):
    real = checkpoint.load_file
    monkeypatch.setattr(checkpoint, "load_file", lambda file: {k: v * 1.001 for k, v in real(file).items()})
    with pytest.raises(AssertionError):
        check_round_trip(tmp_path / "model", half)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    _refused(f"{folder}: not a checkpoint, {name} is missing", read_config, folder)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    _refused("not a checkpoint, config.yaml is missing", read_config, tmp_path)


ANOTHER_MODELS = {
    "empty": "",
    "text": "hello",
    "list": "- 1\n",
    "hub": "architectures: [BertModel]\nhidden_size: 768\n",
    "no_process": "task: {name: peptide}\nmodel: {}\n",
    "task_is_text": "task: peptide\nmodel: {}\nprocess: {name: x}\n",
}


@pytest.mark.parametrize("case", ANOTHER_MODELS)
def test_the_config_of_something_else_is_refused(case, folder):
    (folder / "config.yaml").write_text(ANOTHER_MODELS[case], encoding="utf-8")
    _refused("config.yaml: not a Motif checkpoint", read_config, folder)


CODE = {
    "target": ({"_target_": "os.system"}, "key _target_ is refused"),
    "target_inside": ({"model": {"_target_": "os.system"}}, "key model._target_ is refused"),
    "target_in_a_list": ({"extra": [{"deep": {"_target_": "x"}}]}, "key extra.0.deep._target_ is refused"),
    "partial": ({"extra": {"_partial_": True}}, "key extra._partial_ is refused"),
    "resolver": ({"seed": "${oc.env:HOME}"}, "value of seed is refused"),
    "resolver_in_a_list": ({"extra": ["${now:}"]}, "value of extra.0 is refused"),
    "file": ({"extra": {"schedule": "./evil.py:Evil"}}, "value of extra.schedule is refused"),
    "process_file": ({"process": {"name": "./evil.py:Evil"}}, "its process comes from a file"),
    "mixer_file": ({"model": {"pattern": [{"name": "./evil.py:Evil"}]}}, "its mixer comes from a file"),
    "schedule_file": (
        {"process": {"name": "mixture_flow", "schedule": {"name": "./evil.py:Evil"}}},
        "value of process.schedule.name is refused",
    ),
    "task_as_a_path": ({"task": {"name": "../../../evil"}}, "task.name is '../../../evil', not the name of one"),
    "domain_as_a_module": ({"domain": "bio.tasks"}, "domain is 'bio.tasks', not the name of one"),
    "nameless_task": ({"task": {}}, "task.name is None"),
    "nameless_process": ({"process": {}}, "process.name is missing"),
    "process_of_a_number": ({"process": {"name": 3}}, "process.name is missing"),
}


@pytest.mark.parametrize("case", CODE)
def test_a_config_is_data_only(case, folder):
    change, message = CODE[case]
    _rewrite(folder, lambda config: config.update(change))
    assert str(folder / "config.yaml") in _refused(message, read_config, folder)


NO_YAML = {
    "alias": ("a: &a [1]\nb: *a\n", "YAML aliases are refused"),
    "bomb": ("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "YAML aliases are refused"),
    "python_tag": ("task: !!python/object/apply:os.system ['true']\n", "unreadable"),
    "python_name": ("task: !!python/name:os.system\n", "unreadable"),
    "unclosed": ("task: {name: peptide\n", "unreadable"),
    "control": ("task: \x07\n", "unreadable"),
    "bad_date": ("task: 2020-13-45\n", "unreadable"),
    "nested": ("task: " + "[" * 20_000, "unreadable"),
    "large": ("a: " + "x" * (1 << 20), "more than any description of ours holds"),
    "latin_1": ("task: M\udcfcller\n", "unreadable (invalid start byte)"),
}


@pytest.mark.parametrize("case", NO_YAML)
def test_yaml_that_could_do_more_than_hold_data_is_refused(case, folder):
    text, message = NO_YAML[case]
    (folder / "config.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    _refused(message, read_config, folder)


def test_a_process_from_a_file_is_loaded_when_its_user_names_it(folder, tmp_path):
    marker = tmp_path / "ran"
    theirs, mine = tmp_path / "theirs.py", tmp_path / "mine.py"
    theirs.write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    mine.write_text(
        textwrap.dedent(
            """
            from core.backbones.mixers.attention import Attention as Mixer
            from core.processes.mixture_flow import MixtureFlow as Flow
            """
        ),
        encoding="utf-8",
    )

    def outside(config):
        config["process"]["name"] = f"{theirs}:Flow"
        config["model"]["pattern"][0]["name"] = f"{theirs}:Mixer"

    _rewrite(folder, outside)
    _refused("name the file you trust as process=path/to/file.py:Class", read_config, folder)
    _refused("name the file you trust as mixer=path/to/file.py:Class", read_config, folder, f"{mine}:Flow")
    config = read_config(folder, f"{mine}:Flow", f"{mine}:Mixer")
    assert config["process"]["name"] == f"{mine}:Flow"
    assert config["model"]["pattern"] == [{"name": f"{mine}:Mixer", "heads": 2}]
    load_weights(folder, _model(config))
    assert not marker.exists()


@pytest.mark.parametrize(("key", "place"), [("process", 0), ("mixer", 1)])
def test_a_file_is_named_only_where_one_is_needed(key, place, folder):
    named = [None, None]
    named[place] = "mine.py:Mine"
    _refused(f"its {key} is a registered one, drop {key}=mine.py:Mine", read_config, folder, *named)


def _weights(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


HEAD, PRIOR = "network.backbone.head.weight", "process.length_prior.log_probability"


def _filled(name, value):
    def change(tensors):
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[0] = value

    return change


DAMAGED = {
    "lacks": (lambda tensors: tensors.pop(HEAD), f"lacks tensor {HEAD}; the checkpoint is of another model version"),
    "foreign": (lambda tensors: tensors.update(x=torch.zeros(1)), "has an unknown tensor x"),
    "shape": (lambda tensors: tensors.update({HEAD: torch.zeros(2, 8)}), f"{HEAD} is (2, 8), the model needs (5, 8)"),
    "nan": (_filled(HEAD, float("nan")), f"{HEAD} holds values that are not finite"),
    "infinite": (_filled(HEAD, float("-inf")), f"{HEAD} holds values that are not finite"),
    "nan_in_a_buffer": (_filled(PRIOR, float("nan")), f"{PRIOR} holds values that are not finite"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_weights_of_another_model_are_refused_before_any_is_loaded(case, folder):
    change, message = DAMAGED[case]
    _weights(folder, change)
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _refused(message, load_weights, folder, model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_impossible_length_is_no_damage(folder):
    assert load_file(folder / "model.safetensors")[PRIOR][0] == -torch.inf
    load_weights(folder, _model())


BYTES = {
    "empty": lambda raw: b"",
    "text": lambda raw: b"not tensors at all",
    "pickle": lambda raw: b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00cposix\nsystem\n.",
    "truncated_header": lambda raw: raw[:40],
    "truncated": lambda raw: raw[:-7],
    "longer": lambda raw: raw + b"\0" * 8,
    "header_of_gigabytes": lambda raw: (1 << 40).to_bytes(8, "little") + raw[8:],
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_are_no_safetensors_are_refused(case, folder):
    file = folder / "model.safetensors"
    file.write_bytes(BYTES[case](file.read_bytes()))
    assert str(file) in _refused("corrupt or not safetensors", load_weights, folder, _model())


DESCRIPTIONS = {
    "empty": ("", "unreadable"),
    "list": ("[]", "unreadable"),
    "no_settings": ('{"tokenizer": "amino_acid"}', "unreadable (KeyError('settings'))"),
    "settings_of_text": ('{"tokenizer": "amino_acid", "settings": "x"}', "unreadable"),
    "nested": ("[" * 200_000, "unreadable"),
    "code": ('{"tokenizer": "./evil.py:Evil", "settings": {}}', "value of name is refused"),
    "target": ('{"tokenizer": "amino_acid", "settings": {"_target_": "x"}}', "key _target_ is refused"),
    "number": ('{"tokenizer": 3, "settings": {}}', "unreadable"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_tokenizer_is_data_only(case, folder):
    text, message = DESCRIPTIONS[case]
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    assert str(folder / "tokenizer.json") in _refused(message, read_tokenizer, folder)


def _places(value, path=()):
    """Every place inside nested dictionaries and lists."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*path, key)
        yield from _places(part, (*path, key))


@pytest.mark.parametrize("place", list(_places(CONFIG)), ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 0, 2.5, [[1]], {"name": {"a": 1}}], ids=str)
def test_whatever_stands_in_a_config_is_read_or_the_users_error(place, value, folder):
    def change(config):
        *outer, last = place
        inner = config
        for key in outer:
            inner = inner[key]
        inner[last] = value

    _rewrite(folder, change)
    try:
        model = _model(read_config(folder))
        load_weights(folder, model)
    except UserError as error:
        assert "\n" not in str(error)
