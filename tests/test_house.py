"""The rules of the house, counted on the source text; each rule is shown to catch a planted fault."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "domains", "kernels", "pipelines", "configs")
CORE_ROOMS = {
    "backbones", "data", "decoding", "evaluation", "guidance", "losses", "parallel", "processes", "retrieval",
    "structured", "tokenizers", "training",
}  # fmt: skip
DOMAINS = {"bio", "music", "recsys", "text2sql", "timeseries"}
FORBIDDEN_IMPORTS = {
    "kernels": {"core", "domains", "pipelines", "configs"},
    "core": {"domains", "pipelines", "configs"},
    "domains": {"pipelines", "configs"},
}
DOMAIN_LIBRARIES = {"Bio", "rdkit", "music21", "miditok", "symusic", "sqlglot"}
# Groups of YAML files that stand one to one beside member files.
GROUPS = {
    "mixer": "core/backbones/mixers",
    "fusion": "core/backbones/memories",
    "process": "core/processes",
    "sampler": "core/decoding",
    "guide": "core/guidance/guides",
    "schedule": "core/processes/schedules",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        return self.path.split("/")[0]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def stem(self) -> str:
        return Path(self.path).stem

    def nodes(self, *kinds: type) -> Iterator:
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


def sources() -> list[Source]:
    """Every Python file of the packages."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def imported(node: ast.AST) -> set[str]:
    """Top-level names of the modules that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").split(".")[0]}
    return set()


def size(node: ast.AST) -> int:
    return (node.end_lineno or 0) - node.lineno + 1  # type: ignore[attr-defined]


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def is_registry(source: Source) -> bool:
    """Whether this `__init__` makes its folder a registry of members."""
    return source.stem == "__init__" and bool(re.search(r"\bRegistry\(|\.extended\(", source.text))


def members(files: list[Source]) -> list[Source]:
    """The member files of every registry folder."""
    folders = {source.folder for source in files if is_registry(source)}
    return [s for s in files if s.folder in folders and s.stem != "base" and not s.stem.startswith("_")]


def public_classes(source: Source) -> list[ast.ClassDef]:
    return [node for node in source.tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def one_way_imports(files: list[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno} imports {name}"
        for source in files
        for node in source.nodes(ast.Import, ast.ImportFrom)
        for name in imported(node) & FORBIDDEN_IMPORTS.get(source.package, set())
    ]


def domain_libraries_stay_lazy(files: list[Source]) -> list[str]:
    found = []
    for source in files:
        lazy = {id(node) for function in source.nodes(*Function.__args__) for node in ast.walk(function)}
        for node in source.nodes(ast.Import, ast.ImportFrom):
            if imported(node) & DOMAIN_LIBRARIES and (source.package != "domains" or id(node) not in lazy):
                found.append(f"{source.path}:{node.lineno} imports {imported(node)} too early or too low")
    return found


def names_say_what_is_inside(files: list[Source]) -> list[str]:
    vague = re.compile(r"(utils?|misc|helpers?|common)|.*_(v\d+|simple|old|new|common|utils?|helpers?)")
    second_home = {"nursery", "experiments", "deprecated", "scratch", "legacy", "contrib"}
    return [
        source.path
        for source in files
        if vague.fullmatch(source.stem.strip("_")) or second_home & set(source.folder.split("/"))
    ]


def rooms_are_frozen(files: list[Source]) -> list[str]:
    rooms = {"core": CORE_ROOMS, "domains": DOMAINS}
    return sorted(
        {
            "/".join(parts[:2])
            for parts in (source.path.split("/") for source in files)
            if parts[0] not in PACKAGES or (len(parts) > 2 and parts[0] in rooms and parts[1] not in rooms[parts[0]])
        }
    )


def members_are_called_as_their_file(files: list[Source]) -> list[str]:
    return [
        f"{source.path} defines {[node.name for node in public_classes(source)]}"
        for source in members(files)
        if [snake_case(node.name) for node in public_classes(source)] != [source.stem]
    ]


def members_name_their_paper(files: list[Source]) -> list[str]:
    def names_paper(node: ast.ClassDef) -> bool:
        return any(
            isinstance(child, ast.Assign | ast.AnnAssign)
            and isinstance(child.value, ast.Call)
            and ast.unparse(child.value.func) == "Paper"
            and "paper" in {ast.unparse(t) for t in getattr(child, "targets", [getattr(child, "target", None)])}
            for child in node.body
        )

    return [
        f"{source.path}: {node.name} has no paper"
        for source in members(files)
        for node in public_classes(source)
        if not names_paper(node)
    ]


def classes_stay_small(files: list[Source]) -> list[str]:
    found = []
    for source in files:
        for node in source.nodes(ast.ClassDef):
            methods = [child for child in node.body if isinstance(child, Function)]
            start = [size(child) for child in methods if child.name == "__init__"]
            if size(node) > 300 or len(methods) > 25 or max(start, default=0) > 60:
                found.append(f"{source.path}: {node.name} has {size(node)} lines, {len(methods)} methods, init {start}")
    return found


def functions_ask_for_little(files: list[Source]) -> list[str]:
    found = []
    for source in files:
        for node in source.nodes(*Function.__args__):
            inputs = node.args
            defaults = [*inputs.defaults, *inputs.kw_defaults]
            flags = sum(isinstance(value, ast.Constant) and isinstance(value.value, bool) for value in defaults)
            count = len(inputs.posonlyargs) + len(inputs.args) + len(inputs.kwonlyargs)
            if flags >= 4 or count > 12:
                found.append(f"{source.path}:{node.lineno} {node.name} takes {count} parameters, {flags} flags")
    return found


def long_files_are_few(files: list[Source]) -> list[str]:
    lines = {source.path: source.text.count("\n") for source in files}
    long = {path: count for path, count in lines.items() if count > 400}
    return [f"{path}: {count} lines" for path, count in long.items()] if _over(long, lines, 0.15) else []


def _over(part: dict[str, int], whole: dict[str, int], share: float) -> bool:
    return sum(part.values()) >= share * max(1, sum(whole.values()))


def only_the_command_line_prints(files: list[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno}"
        for source in files
        if source.path != "pipelines/cli.py"
        for node in source.nodes(ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def nothing_is_left_to_do(files: list[Source]) -> list[str]:
    mark = re.compile(r"#.*\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    return [
        f"{source.path}: {line.strip()}" for source in files for line in source.text.splitlines() if mark.search(line)
    ]


def paths_are_relative(files: list[Source]) -> list[str]:
    absolute = re.compile(r"(?<![\w.:/}])/(?:home|root|Users|tmp|work|mnt|opt|scratch)/|[\"'][A-Z]:\\\\")
    return [
        f"{source.path}: {line.strip()}"
        for source in files
        for line in source.text.splitlines()
        if absolute.search(line)
    ]


def code_lines(source: Source) -> list[str]:
    """Lines of code alone: no imports, docstrings, comments or blanks; white space normalised."""
    skipped: set[int] = set()
    for node in ast.walk(source.tree):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    numbered = enumerate(source.text.splitlines(), 1)
    kept = (" ".join(line.split()) for number, line in numbered if number not in skipped)
    return [line for line in kept if line and not line.startswith("#")]


def copies_are_few(files: list[Source]) -> list[str]:
    """At most 4 % of the code lines lie in an 8-line window that occurs twice."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    total = 0
    for source in files:
        lines = code_lines(source)
        total += len(lines)
        for start in range(len(lines) - 7):
            places[tuple(lines[start : start + 8])].append((source.path, start))
    copied: dict[str, set[int]] = defaultdict(set)
    for found in places.values():
        for path, start in found if len(found) > 1 else ():
            copied[path] |= set(range(start, start + 8))
    if sum(map(len, copied.values())) <= 0.04 * total:
        return []
    return [f"{path}: {len(lines)} of {total} lines occur twice" for path, lines in copied.items()]


def no_function_stands_twice(files: list[Source]) -> list[str]:
    """Functions of 8 lines or more whose syntax trees differ in name and docstring alone."""
    seen: dict[str, list[str]] = defaultdict(list)
    for source in files:
        for node in source.nodes(*Function.__args__):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body and size(node) >= 8:
                shape = ast.dump(node.args) + "".join(map(ast.dump, body))
                seen[shape].append(f"{source.path}:{node.lineno} {node.name}")
    return [" = ".join(found) for found in seen.values() if len(found) > 1]


REGISTRY = Source("core/processes/__init__.py", "registry = Registry('process', Process, __name__)")
LONG = "\n".join(f"    x{number} = {number}" for number in range(301))
# rule -> sources that break it
RULES: dict[Callable[[list[Source]], list[str]], list[Source]] = {
    one_way_imports: [Source("core/data/a.py", "def f():\n    from domains.bio import tasks")],
    domain_libraries_stay_lazy: [Source("domains/bio/a.py", "import Bio.Seq")],
    names_say_what_is_inside: [Source("core/data/utils.py", "")],
    rooms_are_frozen: [Source("core/extras/a.py", "")],
    members_are_called_as_their_file: [REGISTRY, Source("core/processes/flow.py", "class MixtureFlow:\n    pass")],
    members_name_their_paper: [REGISTRY, Source("core/processes/flow.py", "class Flow:\n    paper = None")],
    classes_stay_small: [Source("core/data/a.py", f"class A:\n{LONG}")],
    functions_ask_for_little: [Source("core/data/a.py", "def f(a=True, b=False, *, c=True, d=False): ...")],
    long_files_are_few: [Source("core/data/a.py", "x = 1\n" * 401)],
    only_the_command_line_prints: [Source("core/data/a.py", "print('x')")],
    nothing_is_left_to_do: [Source("core/data/a.py", "x = 1  # TO" + "DO later")],
    paths_are_relative: [Source("core/data/a.py", "PLACE = '/home" + "/someone/data'")],
    copies_are_few: [Source(f"core/data/{name}.py", f"class A:\n{LONG}") for name in "ab"],
    no_function_stands_twice: [Source("core/data/a.py", f"def f():\n{LONG}\ndef g():\n    'Text.'\n{LONG}")],
}
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


@rules
def test_rule_holds(rule: Callable[[list[Source]], list[str]]) -> None:
    found = rule(sources())
    assert not found, "\n".join(found)


@rules
def test_rule_catches_a_planted_fault(rule: Callable[[list[Source]], list[str]]) -> None:
    assert rule(RULES[rule])


def modules_that_no_test_names(files: list[Source], texts: list[str]) -> list[str]:
    """Modules of which no test names the path, a public name, or the key where the file is a member."""
    words = {word for text in texts for word in re.findall(r"[\w.]+", text)}
    words |= {part for word in words for part in word.split(".")}
    # The laws enumerate the members of an abstraction, so that none is named.
    laws = {path.stem.removeprefix("test_") for path in (ROOT / "tests/laws").glob("test_*.py")}
    keys = {source.path for source in members(files)}
    lawful = {path for path in keys if path.split("/")[-2] in laws}
    missing = []
    for source in files:
        if source.stem.startswith("_") or source.package == "configs" or source.path in lawful:
            continue
        kinds = (*Function.__args__, ast.ClassDef)
        names = {node.name for node in source.tree.body if isinstance(node, kinds) and not node.name.startswith("_")}
        names |= {source.path.removesuffix(".py").replace("/", ".")} | ({source.stem} if source.path in keys else set())
        if not names & words:
            missing.append(source.path)
    return missing


def test_tests_name_every_module() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    missing = modules_that_no_test_names(sources(), texts)
    assert not missing, "\n".join(missing)
    planted = Source("core/data/never_tested.py", "def unheard_of(): ...")
    assert modules_that_no_test_names([planted], ["from core.data.layout import Layout"]) == [planted.path]
    assert not modules_that_no_test_names([planted], ["from core.data.never_tested import unheard_of"])


def test_top_level_is_frozen() -> None:
    found = {path.parent.name for path in ROOT.glob("*/*.py") if not path.parent.name.startswith(".")}
    assert found <= {*PACKAGES, "tests"}, found


def test_every_abstraction_has_its_laws() -> None:
    """A registry folder of core with a base.py has a file tests/laws/test_<folder>.py."""
    bases = [path for path in (ROOT / "core").rglob("base.py")]
    assert bases
    missing = [path.parent.name for path in bases if not (ROOT / f"tests/laws/test_{path.parent.name}.py").is_file()]
    assert not missing, f"no law file tests/laws/test_<name>.py for {sorted(missing)}"


@pytest.mark.parametrize("group", GROUPS)
def test_members_and_yaml_files_are_the_same(group: str) -> None:
    stems = {source.stem for source in members(sources()) if source.folder == GROUPS[group]}
    folder = ROOT / "configs" / group
    written = {path.stem for path in folder.glob("*.yaml")}
    assert stems == written, f"without YAML: {sorted(stems - written)}; without member: {sorted(written - stems)}"


def test_configs_hold_no_absolute_paths() -> None:
    texts = [Source(path.as_posix(), path.read_text("utf-8")) for path in (ROOT / "configs").rglob("*.yaml")]
    assert not paths_are_relative(texts)
    tests = [Source(path.as_posix(), path.read_text("utf-8")) for path in (ROOT / "tests").rglob("*.py")]
    assert not paths_are_relative(tests)
