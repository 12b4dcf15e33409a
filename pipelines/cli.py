"""`motif`: one command for every verb."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError

RUNS = ("prepare", "train", "generate", "evaluate")
_USAGE = f"""usage: motif VERB key=value ... [--multirun] [--help]

verbs
  prepare   raw files -> checked, split, tokenised shards
  train     shards -> a checkpoint
  generate  a checkpoint -> sequences under objectives and constraints
  evaluate  a model's likelihood, or a file of sequences, against real data
  list      tasks and members of every registry [--json]
  cite      the papers behind a run: motif cite runs/p1
  data      named data sets: motif data list, motif data get NAME
  check     the laws of a member of your own: motif check ./mine.py:Mine
  rerun     repeat a run: motif rerun runs/p1 [out=...]

`motif VERB --help` explains the keys of {", ".join(RUNS)}.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 2 where the user's input is at fault."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_USAGE, end="")
            return 0
        _refuse_shadows()
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
            from core.registry import did_you_mean

            raise UserError(f"unknown verb {verb!r}{did_you_mean(verb, (*RUNS, *commands))}")
        return commands[verb](rest)
    except UserError as error:
        print(f"motif: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("motif: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _refuse_shadows() -> None:
    """A user's own package of our names would be imported in place of ours."""
    home = Path(__file__).resolve().parent.parent
    for name in ("core", "domains", "kernels", "configs"):
        module = __import__(name)
        place = Path(next(iter(module.__path__))).resolve().parent
        if place != home:
            raise UserError(f"{place / name} shadows Motif's package {name}: run from another folder")


def _run(verb: str, rest: list[str]) -> int:
    from pipelines.compose import configurations, help_text

    if "--help" in rest or "-h" in rest:
        print(help_text(verb))
        return 0
    multirun = "--multirun" in rest or "-m" in rest
    words = [word for word in rest if word not in ("--multirun", "-m")]
    for config in configurations(verb, words, multirun):
        print(_perform(verb, config))
    return 0


def _perform(verb: str, config: Mapping[str, Any]) -> str:
    """Run one verb and say where the result is."""
    from importlib import import_module

    getattr(import_module(f"pipelines.{verb}"), verb)(config)
    return f"{verb}: {config['out']}"


def _list(rest: list[str]) -> int:
    from pipelines.catalogue import as_json, as_text, listing

    parser = argparse.ArgumentParser("motif list")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(rest)
    print(as_json(listing()) if options.json else as_text(listing()))
    return 0


def _cite(rest: list[str]) -> int:
    from pipelines.catalogue import citations

    parser = argparse.ArgumentParser("motif cite")
    parser.add_argument("run", type=Path, help="folder of a run")
    print("\n".join(citations(parser.parse_args(rest).run)))
    return 0


def _data(rest: list[str]) -> int:
    from pipelines.catalogue import data_get, data_sets

    parser = argparse.ArgumentParser("motif data")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the named sets")
    commands.add_parser("get", help="where a set is, or how to obtain it").add_argument("name")
    options = parser.parse_args(rest)
    if options.command == "get":
        print(data_get(options.name))
    else:
        for entry in data_sets():
            state = "present" if entry["present"] else "missing"
            print(f"{entry['name']:<16} {state:<8} {entry['domain']:<6} {entry['licence']}  [{entry['upstream']}]")
    return 0


def _check(rest: list[str]) -> int:
    from pipelines.check import check

    parser = argparse.ArgumentParser("motif check")
    parser.add_argument("member", help="path/to/file.py:Class, or the key of an installed member")
    for line in check(parser.parse_args(rest).member):
        print(line)
    return 0


def _rerun(rest: list[str]) -> int:
    from pipelines.catalogue import rerun_words

    parser = argparse.ArgumentParser("motif rerun")
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("out", nargs="?", help="out=FOLDER of the repetition")
    options = parser.parse_args(rest)
    verb, config = rerun_words(options.run, options.out and options.out.removeprefix("out="))
    print(_perform(verb, config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
