"""Registries derived from the files: file stem = registry key = YAML stem = test id."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Paper:
    """Where a member comes from.

    `key` is the catalogue id (`S052`) or `ours`; `deviations` names every point in which the
    member differs from what the paper or its released code does.
    """

    key: str
    title: str
    arxiv: str | None = None
    deviations: str = ""


class Registry(Generic[T]):
    """The members of one abstraction, one per file of the packages given.

    A module whose name is neither `base` nor starts with an underscore defines exactly one
    public concrete subclass of `base`. Members from outside come as `path/to/file.py:Class` or
    through the entry-point group `motif.<name>`.
    """

    def __init__(self, name: str, base: type[T], *packages: str) -> None:
        self.name = name
        self.base = base
        self.packages = packages

    def extended(self, *packages: str) -> Registry[T]:
        """The same registry with further packages, such as a domain's own members."""
        return Registry(self.name, self.base, *self.packages, *packages)

    def _modules(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for package in self.packages:
            path = importlib.import_module(package).__path__
            for info in pkgutil.iter_modules(path):
                if info.name == "base" or info.name.startswith("_") or info.ispkg:
                    continue
                if info.name in found:
                    raise ValueError(f"two {self.name} members are called {info.name}: {found[info.name]}, {package}")
                found[info.name] = f"{package}.{info.name}"
        return found

    def keys(self) -> tuple[str, ...]:
        """Every registered key, ours first, each group sorted."""
        ours = self._modules()
        return (*sorted(ours), *sorted(set(installed(self.name)) - set(ours)))

    def get(self, key: str) -> type[T]:
        """The class registered under `key`.

        Raises `UserError` for an unknown key, naming the nearest ones, and for a file or entry
        point that does not hold a member of this abstraction.
        """
        modules = self._modules()
        if key in modules:
            return self._member(importlib.import_module(modules[key]))
        if is_file_reference(key):
            return checked(load_reference(key), self.base, key)
        plugins = installed(self.name)
        if key in plugins:
            return checked(_loaded(plugins[key]), self.base, key)
        raise UserError(f"unknown {self.name} {key!r}{did_you_mean(key, self.keys())}")

    def members(self) -> dict[str, type[T]]:
        """Every registered class by key."""
        return {key: self.get(key) for key in self.keys()}

    def key_of(self, member: type[T]) -> str:
        """The key of a registered class: its file's stem."""
        return member.__module__.rpartition(".")[2]

    def _member(self, module: ModuleType) -> type[T]:
        own = [
            value
            for name, value in vars(module).items()
            if inspect.isclass(value)
            and value.__module__ == module.__name__
            and issubclass(value, self.base)
            and not inspect.isabstract(value)
            and not name.startswith("_")
        ]
        if len(own) != 1:
            raise ValueError(f"{module.__name__} must define one public {self.base.__name__}, found {len(own)}")
        return own[0]


def checked(member: Any, base: type[T], key: str) -> type[T]:
    """`member` as a class of `base`; `UserError` says what it lacks of that contract."""
    if not (inspect.isclass(member) and issubclass(member, base)):
        raise UserError(f"{key} is not a {base.__name__}: derive the class from {base.__module__}")
    if inspect.isabstract(member):
        missing = ", ".join(sorted(getattr(member, "__abstractmethods__", ())))
        raise UserError(f"{key} lacks {missing} of the {base.__name__} contract")
    if "paper" in inspect.get_annotations(base) and not isinstance(getattr(member, "paper", None), Paper):
        raise UserError(f"{key} names no paper: give the class paper = Paper('ours', 'what it is')")
    return member


def installed(name: str) -> dict[str, EntryPoint]:
    """Members that installed packages add to the registry `name`, by key."""
    return {point.name: point for point in entry_points(group=f"motif.{name}")}


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise UserError(f"installed member {point.name} = {point.value}: {type(error).__name__}: {error}") from error


def is_file_reference(key: str) -> bool:
    """Whether `key` names a class in a file: `path/to/file.py:Class`."""
    return ".py:" in key


def load_reference(reference: str) -> Any:
    """The object that `path/to/file.py:Name` names."""
    path_text, _, name = reference.rpartition(":")
    path = Path(path_text).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"{path_text}: no such file")
    # The path's hash keeps two files of one stem apart, and one file imported once.
    module_name = f"motif_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}.{path.stem}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise UserError(f"{path_text}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise UserError(f"{path_text} defines no {name!r}")
    return getattr(module, name)


def did_you_mean(key: str, known: tuple[str, ...]) -> str:
    """The tail of an error line: the nearest known key, else all of them."""
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    return f": known are {', '.join(known)}" if known else ""
