"""Registries: the files are the list."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from core import registry as registry_module
from core.errors import UserError
from core.registry import Paper, Registry, did_you_mean, load_reference

BASE = """
from abc import ABC, abstractmethod

class Shape(ABC):
    @abstractmethod
    def corners(self): ...
"""
MEMBER = """
from {package}.base import Shape

class {name}(Shape):
    def corners(self):
        return {corners}

class _Helper(Shape):
    def corners(self):
        return 0
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of shapes: `square`, `triangle`, a private module and a subpackage."""
    name = f"shapes_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    (folder / "inner").mkdir(parents=True)
    for path in (folder / "__init__.py", folder / "inner" / "__init__.py", folder / "_private.py"):
        path.write_text("")
    (folder / "base.py").write_text(BASE)
    (folder / "square.py").write_text(MEMBER.format(package=name, name="Square", corners=4))
    (folder / "triangle.py").write_text(MEMBER.format(package=name, name="Triangle", corners=3))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for module in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture
def shapes(package: Path) -> Registry:
    base = __import__(f"{package.name}.base", fromlist=["Shape"]).Shape
    return Registry("shape", base, package.name)


def test_keys_are_file_stems(shapes: Registry) -> None:
    assert shapes.keys() == ("square", "triangle")
    assert {key: member.__name__ for key, member in shapes.members().items()} == {
        "square": "Square",
        "triangle": "Triangle",
    }
    assert shapes.key_of(shapes.get("square")) == "square"


def test_a_new_file_is_a_new_member(shapes: Registry, package: Path) -> None:
    (package / "point.py").write_text(MEMBER.format(package=package.name, name="Point", corners=1))
    assert shapes.keys() == ("point", "square", "triangle")
    assert shapes.get("point")().corners() == 1


@pytest.mark.parametrize(("key", "hint"), [("squre", "did you mean 'square'"), ("zzz", "known are square, triangle")])
def test_unknown_keys(shapes: Registry, key: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        shapes.get(key)
    assert did_you_mean("x", ()) == ""


def test_a_file_holds_one_member(shapes: Registry, package: Path) -> None:
    text = MEMBER.format(package=package.name, name="Star", corners=5)
    (package / "star.py").write_text(text + text.replace("Star", "Other"))
    with pytest.raises(ValueError, match=r"star must define one public Shape, found 2"):
        shapes.get("star")


def test_two_packages_may_not_share_a_key(shapes: Registry, package: Path) -> None:
    (package / "inner" / "square.py").write_text("")
    with pytest.raises(ValueError, match="two shape members are called square"):
        shapes.extended(f"{package.name}.inner").keys()
    (package / "inner" / "square.py").rename(package / "inner" / "circle.py")
    assert "circle" in shapes.extended(f"{package.name}.inner").keys()
    assert "circle" not in shapes.keys()


@pytest.fixture
def outside(tmp_path: Path, package: Path) -> Path:
    path = tmp_path / "mine.py"
    text = MEMBER.format(package=package.name, name="Mine", corners=9)
    path.write_text(text + "\n\nclass Half(Shape):\n    pass\n\n\nNUMBER = 3\n")
    return path


def test_a_member_from_a_file(shapes: Registry, outside: Path) -> None:
    member = shapes.get(f"{outside}:Mine")
    assert member().corners() == 9
    assert shapes.get(f"{outside}:Mine") is member, "one file is imported once"
    assert shapes.key_of(member) == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [("Half", "lacks corners"), ("NUMBER", "is not a Shape"), ("Nobody", "defines no 'Nobody'")],
)
def test_what_is_no_member(shapes: Registry, outside: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shapes.get(f"{outside}:{name}")


def test_files_that_are_missing_or_broken(shapes: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        shapes.get(f"{tmp_path}/nothing.py:Mine")
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    for _ in range(2):  # a failed import leaves nothing behind
        with pytest.raises(UserError, match=r"ZeroDivisionError: division by zero"):
            shapes.get(f"{broken}:Mine")


def test_two_files_of_one_stem_stay_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(f"VALUE = {name!r}")
    assert [load_reference(f"{tmp_path}/{name}/same.py:VALUE") for name in "ab"] == ["a", "b"]


def test_a_member_from_an_entry_point(
    shapes: Registry, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_shape.py").write_text(MEMBER.format(package=package.name, name="Far", corners=7))
    points = [
        EntryPoint("far", "installed_shape:Far", "motif.shape"),
        EntryPoint("square", "installed_shape:Far", "motif.shape"),
    ]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points if group == "motif.shape" else [])
    assert shapes.keys() == ("square", "triangle", "far")
    assert shapes.get("far")().corners() == 7
    assert shapes.get("square")().corners() == 4, "ours is not shadowed"


def test_papers_are_values() -> None:
    assert Paper("ours", "x") == Paper("ours", "x", None, "")
