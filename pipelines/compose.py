"""From `key=value` words to one resolved configuration, by Hydra."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from core.errors import UserError
from core.guidance.items import split_list
from core.registry import is_file_reference

# Values of these keys are the user's text: Hydra must not read them as its own grammar.
TEXT_KEYS = frozenset("question input checkpoint db data.path out mask objectives constraints columns".split())
LIST_KEYS = frozenset({"objectives", "constraints"})
PLUGIN_GROUPS = frozenset({"process", "mixer", "sampler", "guide"})


def configurations(verb: str, words: Sequence[str], multirun: bool = False) -> list[dict[str, Any]]:
    """Every configuration that the words ask for: one, or the sweep's product.

    Raises `UserError` for whatever Hydra or a value check finds, before anything is created.
    """
    plain, texts, plugins, domain, task = _sort(words)
    task = task or _default_task(domain)
    plain.append(f"task={domain}/{task}")
    try:
        jobs = _sweep(plain) if multirun else [plain]
        configs = []
        for number, job in enumerate(jobs):
            config = _compose(verb, job)
            config["domain"] = domain
            for key, value in texts.items():
                _assign(config, key, value)
            for group, reference in plugins.items():
                config[group] = (
                    {**config.get(group, {}), "name": reference} if group != "process" else {"name": reference}
                )
            if multirun:
                config["out"] = str(Path(config["out"]) / str(number))
            configs.append(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error
    return configs


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


def help_text(verb: str) -> str:
    """Every key of a verb with the comment above it."""
    lines = (resources.files("configs") / f"{verb}.yaml").read_text(encoding="utf-8").splitlines()
    text, comment = [lines[0].lstrip("# "), ""], ""
    for line in lines[1:]:
        if line.lstrip().startswith("#"):
            comment = line.strip("# ")
        elif ":" in line and not line.lstrip().startswith("-") and not line.startswith("defaults"):
            text.append(f"  {line.rstrip():<28} {comment}")
    groups = [line.split(":")[0].removeprefix("optional ").strip(" -") for line in lines if line.startswith("  - ")]
    text += ["", "groups: " + ", ".join(g for g in (g.removeprefix("optional ") for g in groups) if g != "_self_")]
    return "\n".join(text)


def _sort(words: Sequence[str]) -> tuple[list[str], dict[str, str], dict[str, str], str, str | None]:
    plain: list[str] = []
    texts: dict[str, str] = {}
    plugins: dict[str, str] = {}
    domain, task = "bio", None
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
        elif key in PLUGIN_GROUPS and is_file_reference(value):
            plugins[key] = value
        else:
            plain.append(word)
    return plain, texts, plugins, domain, task


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


def _sweep(words: list[str]) -> list[list[str]]:
    choices = []
    for override in OverridesParser.create().parse_overrides(words):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([f"{key}={override.get_value_element_as_str()}"])
    return [list(job) for job in itertools.product(*choices)]


def _compose(verb: str, words: list[str]) -> dict[str, Any]:
    with initialize_config_module("configs", version_base="1.3"):
        config = compose(verb, overrides=words)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def command(verb: str, words: Sequence[str]) -> str:
    """The command line that gives this run again."""
    return shlex.join(["motif", verb, *words])


def dump(config: Mapping[str, Any]) -> str:
    """A configuration as YAML."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
