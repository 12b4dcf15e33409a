"""`motif`: one command for every verb."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

RUNS = ("prepare", "train", "finetune", "generate", "evaluate")
_USAGE = f"""usage: motif VERB key=value ... [--multirun] [--help]

verbs
  prepare   raw files -> checked, split, tokenised shards
  train     shards -> a checkpoint
  finetune  a checkpoint and sequences of your own -> a checkpoint of them
  generate  a checkpoint -> sequences under objectives and constraints
  evaluate  a model's likelihood, or a file of sequences, against real data
  list      tasks and members of every registry [--json]
  cite      the papers behind a run, as BibTeX: motif cite runs/p1
  data      named data sets: motif data list, motif data get NAME
  check     the laws of a member of your own: motif check ./mine.py:Mine
  rerun     repeat a run: motif rerun runs/p1 [out=...]

`motif VERB --help` explains the keys of {", ".join(RUNS)}.
"""


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as every verb does."""

    def error(self, message: str) -> NoReturn:
        from core.errors import UserError

        raise UserError(f"{message}; {self.prog} --help tells more")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 2 where the user's input is at fault."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    shadow = _shadow()
    if shadow is not None:
        print(f"motif: {shadow}", file=sys.stderr)
        return 2
    from core.errors import UserError

    try:
        return _dispatch(words)
    except UserError as error:
        print(f"motif: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        return 0
    except KeyboardInterrupt:
        print("motif: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _shadow() -> str | None:
    """What is wrong if a user's own module of our names would be imported in place of ours."""
    home = Path(__file__).resolve().parent.parent
    for name in ("core", "domains", "kernels", "configs"):
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
        for place in (Path(place).resolve() for place in places if place):
            if home not in place.parents:
                return f"{place} shadows Motif's package {name}: rename it, or run from another folder"
    return None


def _dispatch(words: list[str]) -> int:
    from core.errors import UserError
    from core.registry import did_you_mean

    if not words or words[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    verb, rest = words[0], words[1:]
    if verb in RUNS:
        return _run(verb, rest)
    commands: dict[str, Callable[[list[str]], int]] = {
        "list": _list,
        "cite": _cite,
        "data": _data,
        "check": _check,
        "rerun": _rerun,
    }
    if verb not in commands:
        raise UserError(f"unknown verb {verb!r}{did_you_mean(verb, (*RUNS, *commands))}")
    return commands[verb](rest)


def _run(verb: str, rest: list[str]) -> int:
    from pipelines.compose import configurations, help_text

    if "--help" in rest or "-h" in rest:
        print(help_text(verb))
        return 0
    multirun = "--multirun" in rest or "-m" in rest
    words = [word for word in rest if word not in ("--multirun", "-m")]
    for config in configurations(verb, words, multirun):
        _perform(verb, config)
    return 0


def _perform(verb: str, config: Mapping[str, Any]) -> None:
    from pipelines.summary import lines

    getattr(importlib.import_module(f"pipelines.{verb}"), verb)(config)
    print("\n".join([*lines(Path(config["out"])), f"{verb}: {config['out']}"]))


def _list(rest: list[str]) -> int:
    from pipelines.catalogue import as_text, listing

    parser = _Parser("motif list")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(rest)
    print(json.dumps(listing(), indent=1) if options.json else as_text(listing()))
    return 0


def _cite(rest: list[str]) -> int:
    from pipelines.catalogue import bibliography

    parser = _Parser("motif cite")
    parser.add_argument("run", type=Path, help="folder of a run")
    print(bibliography(parser.parse_args(rest).run))
    return 0


def _data(rest: list[str]) -> int:
    from domains.data_sets import data_sets
    from pipelines.data_sets import data_get

    parser = _Parser("motif data")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the named sets")
    commands.add_parser("get", help="where a set is, or how to obtain it").add_argument("name")
    options = parser.parse_args(rest)
    if options.command == "get":
        print(f"{options.name}: {data_get(options.name)}")
    else:
        for entry in data_sets():
            state = "present" if entry["present"] else "missing"
            print(f"{entry['name']:<16} {state:<8} {entry['domain']:<6} {entry['licence']}  [{entry['upstream']}]")
    return 0


def _check(rest: list[str]) -> int:
    from pipelines.check import check

    parser = _Parser("motif check")
    parser.add_argument("member", help="path/to/file.py:Class, or the key of an installed member, with its arguments")
    for line in check(parser.parse_args(rest).member):
        print(line)
    return 0


def _rerun(rest: list[str]) -> int:
    from pipelines.catalogue import repetition

    parser = _Parser("motif rerun")
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("out", nargs="?", help="out=FOLDER of the repetition")
    options = parser.parse_args(rest)
    _perform(*repetition(options.run, options.out and options.out.removeprefix("out=")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
