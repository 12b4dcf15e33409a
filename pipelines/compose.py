"""From `key=value` words to one resolved configuration, by Hydra."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from core.errors import UserError
from core.guidance.items import split_list
from core.registry import did_you_mean, installed, is_file_reference

_KEY = re.compile(r"(?P<indent> *)(?P<name>[\w@.]+):(?: +(?P<value>.*))?$")
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")
# What torch, numpy and the noise all take.
_SEEDS = range(1 << 32)

# Values of these keys are the user's text: Hydra must not read them as its own grammar.
TEXT_KEYS = frozenset(
    "question input checkpoint condition db data.path out mask objectives constraints columns reader source "
    "template".split()
)
LIST_KEYS = frozenset({"objectives", "constraints"})
# Groups whose member may come from a file or an installed package, which has no YAML here.
PLUGIN_GROUPS = ("process", "mixer", "sampler", "guide")


@dataclass(frozen=True)
class _Words:
    """The words of one command, sorted by who reads them: Hydra, or nobody but us."""

    plain: list[str]
    texts: dict[str, str]
    plugins: dict[str, str]
    domain: str | None
    task: str | None

    @property
    def task_words(self) -> list[str]:
        """The task, where the words name one; else an experiment may, or the verb's default stands."""
        if self.domain is None and self.task is None:
            return []
        domain = self.domain or "bio"
        return [f"task={domain}/{self.task or _default_task(domain)}"]

    def for_hydra(self, verb: str, job: Sequence[str]) -> list[str]:
        """The overrides of one job; a member of the user's own takes no option of the default one."""
        groups = tuple(f"{group}." for group in self.plugins)
        removed = ["~process"] if verb == "train" and "process" in self.plugins else []
        return [*self.task_words, *removed, *(f"+{w}" if w.startswith(groups) else w for w in job)]


def configurations(verb: str, words: Sequence[str], multirun: bool = False) -> list[dict[str, Any]]:
    """Every configuration that the words ask for: one, or the sweep's product.

    Each holds the `command` that gives it alone. Raises `UserError` for whatever Hydra or a value
    check finds, before anything is created.
    """
    try:
        asked = _sort(verb, words)
        jobs = _sweep(asked.plain) if multirun else [asked.plain]
        configs = [_configuration(verb, job, asked) for job in jobs]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_refusal(verb, error)) from error
    except yaml.YAMLError as error:
        raise UserError(f"a value is not readable: {_first_line(error)}") from error
    for number, (config, job) in enumerate(zip(configs, jobs, strict=True)):
        if multirun:
            config["out"] = str(Path(config["out"]) / str(number))
        config["command"] = _command(verb, job, asked, config["out"]) if multirun else _joined(verb, words)
    return configs


def _configuration(verb: str, job: Sequence[str], asked: _Words) -> dict[str, Any]:
    config = _compose(verb, asked.for_hydra(verb, job))
    if type(config["seed"]) is not int or config["seed"] not in _SEEDS:
        raise UserError(f"seed={config['seed']}: a whole number from 0 to {_SEEDS[-1]} is needed")
    config["domain"] = asked.domain or config["domain"]
    for key, value in asked.texts.items():
        _assign(config, key, value)
    for group, name in asked.plugins.items():
        config[group] = {"name": name, **(config.get(group) or {})}
    mixer = config.pop("mixer", None) if verb == "train" else None
    if mixer is not None:
        config["model"]["pattern"] = [mixer]
    fusion = config.pop("fusion", None)
    if fusion is not None:
        config["model"]["fusion"] = {**(config["model"].get("fusion") or {}), **fusion}
    return config


def refuse_small(values: Mapping[str, Any], least: Mapping[str, int], group: str = "") -> None:
    """`UserError` for a value that is no whole number from its least one up; `group` is what its key starts with."""
    for key, smallest in least.items():
        if type(values[key]) is not int or values[key] < smallest:
            raise UserError(f"{group}{key}={values[key]}: a whole number from {smallest} up is needed")


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Keyword arguments of a verb's Python function as command-line words."""
    words = []
    for key, value in options.items():
        key = key.replace("__", ".")
        if isinstance(value, (list, tuple)) and key in LIST_KEYS:
            value = "[" + ",".join(value) + "]"
        elif value is None:
            value = "null"
        words.append(f"{key}={value}")
    return words


@dataclass(frozen=True)
class Key:
    """One key of a YAML file: its dotted name, its value as written, the comment above it."""

    name: str
    value: str
    comment: str


def commented_keys(text: str) -> list[Key]:
    """The keys of one of our YAML files outside its `defaults`, with the comment above each."""
    found: list[Key] = []
    path: list[str] = []
    comment = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment = line.strip("# ")
            continue
        match = _KEY.match(line)
        if match is not None:
            path = [*path[: len(match["indent"]) // 2], match["name"]]
            if path[0] != "defaults":
                found.append(Key(".".join(path), match["value"] or "", comment))
        comment = ""
    return found


def help_text(verb: str) -> str:
    """Every key of a verb, with its default and the comment above it, and the groups it composes."""
    source = (config_folder() / f"{verb}.yaml").read_text(encoding="utf-8")
    lines = [source.splitlines()[0].strip("# "), "", "keys"]
    lines += [_shown(key) for key in commented_keys(source) if key.value]
    for entry in yaml.safe_load(source)["defaults"]:
        for group, chosen in entry.items() if isinstance(entry, dict) else ():
            lines += _group_help(group.removeprefix("optional "), chosen)
    sweep = "--multirun runs every combination of values like n=1,2, each in a folder of its own below out="
    return "\n".join([*lines, "", sweep])


def _group_help(group: str, chosen: str | None) -> list[str]:
    """The members of a group; their keys too, except where they are data and not choices."""
    lines = ["", f"{group}=" + (f"{chosen} unless told" if chosen else "")]
    for member in _members(group):
        text = (config_folder() / group / f"{member}.yaml").read_text(encoding="utf-8")
        about = next(line.strip("# ") for line in text.splitlines() if not line.startswith("# @"))
        lines.append(f"  {member}: {about}")
        if group not in ("task", "data", "experiment"):
            options = [key for key in commented_keys(text) if key.name != "name" and key.value and key.comment]
            lines += ["  " + _shown(replace(key, name=f"{group}.{key.name}")) for key in options]
    return lines


def _shown(key: Key) -> str:
    return f"  {key.name + '=' + key.value:<34} {key.comment}".rstrip()


def config_folder() -> Path:
    """Where our YAML files lie."""
    return Path(str(resources.files("configs")))


def _members(group: str) -> list[str]:
    """The YAML files of a group, by the name that the command line gives them."""
    folder = config_folder() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _sort(verb: str, words: Sequence[str]) -> _Words:
    plain: list[str] = []
    texts: dict[str, str] = {}
    plugins: dict[str, str] = {}
    domain, task = None, None
    for word in words:
        key, mark, value = word.partition("=")
        if not mark:
            raise UserError(f"{word!r} is not key=value")
        if key == "domain":
            domain = value
        elif key == "task":
            task = value
        elif key in TEXT_KEYS:
            texts[key] = value
        elif key.partition(".")[0] in LIST_KEYS:
            raise UserError(f"unknown key {key!r}: write the whole list, as in {key.partition('.')[0]}=[a,b]")
        elif key in PLUGIN_GROUPS and _is_foreign(verb, key, value):
            plugins[key] = value
        else:
            plain.append(word)
    return _Words(plain, texts, plugins, domain, task)


def _is_foreign(verb: str, group: str, value: str) -> bool:
    """Whether a group's member is none of the YAML files: a file's class or an installed one.

    A verb that opens a checkpoint takes its process and mixer from there, so the words only name
    the files to trust.
    """
    if is_file_reference(value) or (verb in ("finetune", "generate", "evaluate") and group in ("process", "mixer")):
        return True
    return value in installed(group) and value not in _members(group)


def _default_task(domain: str) -> str:
    from domains.tasks import default_task

    return default_task(domain).name


def _assign(config: dict[str, Any], key: str, text: str) -> None:
    *folders, leaf = key.split(".")
    place = config
    for folder in folders:
        place = place.setdefault(folder, {})
    if leaf not in place:
        raise UserError(f"key {key!r} is not one of this verb's")
    place[leaf] = split_list(text) if key in LIST_KEYS else None if text == "null" else text


def _sweep(words: Sequence[str]) -> list[list[str]]:
    choices = []
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([f"{key}={override.get_value_element_as_str()}"])
    return [list(job) for job in itertools.product(*choices)]


def _compose(verb: str, words: Sequence[str]) -> dict[str, Any]:
    with initialize_config_module("configs", version_base="1.3"):
        config = compose(verb, overrides=list(words))
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _refusal(verb: str, error: Exception) -> str:
    """What Hydra refuses, with the nearest name where one is unknown."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        return f"unknown {group} {name!r}{did_you_mean(name, tuple(_members(group)))}"
    key = _UNKNOWN_KEY.match(str(error))
    if key is None:
        several = ", or add --multirun to run each" if str(error).startswith("Ambiguous value") else ""
        return _first_line(error) + several
    source = (config_folder() / f"{verb}.yaml").read_text(encoding="utf-8")
    known = tuple(entry.name for entry in commented_keys(source))
    return f"unknown key {key[1]!r}{did_you_mean(key[1], known)}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _command(verb: str, job: Sequence[str], asked: _Words, out: str) -> str:
    """The command that gives one job of a sweep again, alone."""
    quoted = {**asked.plugins, **asked.texts, "out": out}
    words = [f"{key}={value}" for key, value in {"domain": asked.domain, "task": asked.task}.items() if value]
    return _joined(verb, [*words, *job, *(f"{key}={value}" for key, value in quoted.items())])


def _joined(verb: str, words: Sequence[str]) -> str:
    return shlex.join(["motif", verb, *words])
