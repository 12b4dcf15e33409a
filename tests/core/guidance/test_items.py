"""The written form of objectives and constraints: what is read, and what is refused by name."""

import math
import textwrap

import numpy as np
import pytest

from core.errors import UserError
from core.guidance import items
from core.guidance.constraints import registry as constraints
from core.guidance.items import parse_item, rules, split_list, targets
from core.guidance.objectives.base import Objective
from core.registry import Paper, Registry

LISTS = {
    "": [],
    "[]": [],
    "a": ["a"],
    "[a]": ["a"],
    "[a,b]": ["a", "b"],
    "a, b ,": ["a", "b"],
    "[length:8-11,forbid:NG]": ["length:8-11", "forbid:NG"],
    "[contains:C-x(2,4)-C,forbid:N-{P}-[ST]]": ["contains:C-x(2,4)-C", "forbid:N-{P}-[ST]"],
    "[forbid:[ST],contains:[KR]]": ["forbid:[ST]", "contains:[KR]"],
    # The outer brackets may be missing, and then the first and the last are not each other's.
    "[KR]x,forbid:[ST]": ["[KR]x", "forbid:[ST]"],
    '[a:"x,y",b]': ['a:"x,y"', "b"],
    '[a:"]",b]': ['a:"]"', "b"],
    "[a:18:00-20:00,b]": ["a:18:00-20:00", "b"],
    "[F#m,NAN,null]": ["F#m", "NAN", "null"],
}


@pytest.mark.parametrize("text", LISTS)
def test_lists_split_at_commas_outside_brackets_and_quotes(text):
    assert split_list(text) == LISTS[text]


ITEMS = {
    "gravy": ("gravy", (), None, None, 1.0),
    "gravy:max": ("gravy", (), "max", None, 1.0),
    "gravy:min@0.5": ("gravy", (), "min", None, 0.5),
    "gravy@2": ("gravy", (), None, None, 2.0),
    "gravy@1e-3": ("gravy", (), None, None, 1e-3),
    "net_charge:7.4:near:-4.5@2": ("net_charge", ("7.4",), "near", -4.5, 2.0),
    "net_charge:near:4": ("net_charge", (), "near", 4.0, 1.0),
    "length:8..20": ("length", ("8..20",), None, None, 1.0),
    "fixed:-2..5:K": ("fixed", ("-2..5", "K"), None, None, 1.0),
    "forbid:N-{P}-[ST]": ("forbid", ("N-{P}-[ST]",), None, None, 1.0),
    "contains:C-x(2,4)-C": ("contains", ("C-x(2,4)-C",), None, None, 1.0),
    "contains:[A:B]": ("contains", ("[A:B]",), None, None, 1.0),
    'open:"18:00-20:00"': ("open", ("18:00-20:00",), None, None, 1.0),
    'a:"x,y":"u:v":"m@n"': ("a", ("x,y", "u:v", "m@n"), None, None, 1.0),
    'a:"m@n"@3': ("a", ("m@n",), None, None, 3.0),
    'a:"max"': ("a", ("max",), None, None, 1.0),
    "a:max:K": ("a", ("max", "K"), None, None, 1.0),
    'a:"":max': ("a", ("",), "max", None, 1.0),
    "./mine.py:Mine": ("./mine.py:Mine", (), None, None, 1.0),
    "./mine.py:Mine:3:min@2": ("./mine.py:Mine", ("3",), "min", None, 2.0),
    "/home of/a b.py:Mine:x": ("/home of/a b.py:Mine", ("x",), None, None, 1.0),
}


@pytest.mark.parametrize("text", ITEMS)
def test_items_are_read(text):
    name, arguments, direction, near, weight = ITEMS[text]
    item = parse_item(text)
    assert (item.name, item.arguments, item.direction, item.weight) == (name, arguments, direction, weight)
    assert math.isnan(item.near) if near is None else item.near == near


@pytest.mark.parametrize("text", ITEMS)
def test_a_label_is_what_was_written_without_the_weight(text):
    item = parse_item(text)
    again = parse_item(item.label)
    assert text.startswith(item.label) and again.weight == 1.0
    assert (again.name, again.arguments, again.direction) == (item.name, item.arguments, item.direction)


@pytest.mark.parametrize("written", ["forbid:@{}", 'forbid:"A:B":@{}', 'forbid:@"{}"', "forbid:@{}:max@2"])
def test_arguments_come_from_a_file(written, tmp_path):
    file = tmp_path / "motifs.txt"
    file.write_text("NG\n\n  DP \nm@n:x,y\n", encoding="utf-8")
    item = parse_item(written.format(file))
    assert item.arguments[-3:] == ("NG", "DP", "m@n:x,y")
    assert (item.direction, item.weight) == (("max", 2.0) if "max" in written else (None, 1.0))


def test_a_file_whose_name_holds_our_signs_stands_in_quotes(tmp_path):
    file = tmp_path / "a:b, 1.txt"
    file.write_text("NG", encoding="utf-8")
    (part,) = split_list(f'[forbid:@"{file}"]')
    assert parse_item(part).arguments == ("NG",)


WRONG = {
    "": "item '' names nothing",
    ":max": "item ':max' names nothing",
    ":K@2": "item ':K@2' names nothing",
    "a:near:x": "item 'a:near:x': 'x' is not a number",
    "a:near:": "item 'a:near:': '' is not a number",
    "a:near:inf": "item 'a:near:inf': 'inf' is not a number",
    "a@x": "item 'a@x': 'x' is not a number",
    "a@": "item 'a@': '' is not a number",
    "a@nan": "item 'a@nan': 'nan' is not a number",
    "a@inf": "item 'a@inf': 'inf' is not a number",
    "a@1@2": "item 'a@1@2'",
    "a:(1": "unbalanced quotes or brackets in 'a:(1'",
    "a:1)": "unbalanced quotes or brackets in 'a:1)'",
    'a:"1': "unbalanced quotes or brackets in 'a:\"1'",
    "a:@none.txt": "item 'a:@none.txt': cannot read none.txt (No such file",
    "a:@.": "item 'a:@.': cannot read .",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_items_are_refused_in_one_line_that_names_them(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        parse_item(text)
    assert WRONG[text] in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_arguments_must_be_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a.txt is not a text file in UTF-8"):
        parse_item(f"a:@{tmp_path / 'a.txt'}")


@pytest.mark.parametrize("text", ["[a,(b]", '[a,"b]', "[a]]", "a,b)"])
def test_unbalanced_lists_are_refused(text):
    with pytest.raises(UserError, match="unbalanced quotes or brackets"):
        split_list(text)


@pytest.fixture
def objectives():
    return Registry("objective", Objective)


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from core.errors import UserError
            from core.guidance.objectives.base import Objective
            from core.registry import Paper

            class Mine(Objective):
                paper = Paper("ours", "a test")
                direction = "max"
                unit = source = ""
                hazardous = "min"

                def __init__(self, scale="1"):
                    if scale == "0":
                        raise UserError("objective Mine: a scale of 0 is no scale")
                    self.scale = float(scale)

                def score(self, sequences):
                    return np.array([self.scale * len(s) for s in sequences])

            class Half:
                pass
            """
        ),
        encoding="utf-8",
    )
    return f"{file}:Mine"


def test_a_member_of_a_file_is_built_with_its_arguments(objectives, mine):
    (target,) = targets([f"{mine}:2.5@3"], objectives)
    assert (target.name, target.direction, target.weight) == (f"{mine}:2.5", "max", 3.0)
    assert target.objective.score(["AC"]).tolist() == [5.0]
    (near,) = targets([f"{mine}:near:4"], objectives)
    assert near.utility(np.array([1.0, 5.0])).tolist() == [-3.0, -1.0]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("{}:x", "Mine:x': could not convert string to float"),
        ("{}:1:2", "Mine:1:2': "),
        ("{}:0", "objective Mine: a scale of 0 is no scale"),
        ("{}:min", "seeking its minimum is refused as hazardous"),
        ("{}@0", "a weight is a positive number, got 0.0"),
        ("{}@-1", "a weight is a positive number, got -1.0"),
        ("{}s", "defines no 'Mines'"),
    ],
)
def test_wrong_objectives_are_refused(item, message, objectives, mine):
    with pytest.raises(UserError) as error:
        targets([item.format(mine)], objectives)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_class_of_another_kind_is_refused(objectives, mine):
    with pytest.raises(UserError, match="Half is not a Objective"):
        targets([mine.replace("Mine", "Half")], objectives)


def test_an_objective_is_asked_for_once(objectives, mine):
    with pytest.raises(UserError, match="asked for twice"):
        targets([f"{mine}:2@1", f"{mine}:2@3"], objectives)
    assert len(targets([f"{mine}:2", f"{mine}:3"], objectives)) == 2


def test_rules_are_built_and_take_neither_direction_nor_weight():
    assert [rule.name for rule in rules(["length:8..20", "forbid:NG"], constraints)] == ["length:8..20", "forbid:NG"]
    for item in ("length:8..20@2", "length:8..20:max", "length:near:4"):
        with pytest.raises(UserError, match="only an objective takes a direction or a weight|length: wrong number"):
            rules([item], constraints)


def test_an_unknown_member_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown constraint 'lenght': did you mean 'length'?"):
        rules(["lenght:3"], constraints)


class _Upset(Objective):
    paper = Paper("ours", "a test")
    direction, unit, source = "max", "", ""

    def __init__(self) -> None:
        raise RuntimeError("a fault of the member's own")

    def score(self, sequences):
        return np.zeros(len(sequences))


def test_a_fault_of_a_member_is_not_blamed_on_the_user(objectives, monkeypatch):
    monkeypatch.setattr(Registry, "get", lambda self, key: _Upset)
    with pytest.raises(RuntimeError, match="of the member's own"):
        targets(["a"], objectives)


def check_quotes_protect(text: str) -> None:
    assert parse_item(f'a:"{text}"').arguments == (text,)


@pytest.mark.parametrize("text", ["a,b", "a:b", "a@b", "near", "max", "(", "]", "1@2", "a/b@3"])
def test_whatever_stands_in_quotes_is_text(text):
    check_quotes_protect(text)
    assert split_list(f'[b,a:"{text}"]') == ["b", f'a:"{text}"']


def test_the_law_of_quotes_catches_a_planted_fault(monkeypatch):
    monkeypatch.setattr(items, "_unquoted", lambda text: text)
    with pytest.raises(AssertionError):
        check_quotes_protect("a,b")
