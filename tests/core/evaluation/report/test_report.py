import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from core.evaluation.hypervolume import nondominated
from core.evaluation.report import Report, Svg
from core.evaluation.report.plots import bar, histogram, scatter_matrix, sequence_logo, ticks

EVIL = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>'&</style></svg>]]>"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Balanced(HTMLParser):
    """Collects elements and asserts that every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def page(text: str = "plain", n: int = 256) -> str:
    """A report that uses everything, with `text` wherever a string can stand."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(n, 4))
    names = [f"{text}{i}" for i in range(4)]
    columns = [*names, text, f"{text} flag"]
    rows = [[*row, text, bool(i % 2)] for i, row in enumerate(values.tolist())]
    logo = generator.dirichlet(np.ones(20), size=30)
    report = Report(text, text).text(text).bullets(text, text).facts({text: text, "n": n})
    report.section(text).figure(scatter_matrix(values, names, nondominated(values)), text)
    pair = (text, f"{text} real")
    report.section(text).figure([histogram(v, names[i], text, v + 1, pair) for i, v in enumerate(values.T)])
    report.section(text).figure(bar({text: 1.0, "b": float("nan")}, text, text, text, {text: (0.5, 1.5)}))
    report.figure(sequence_logo(logo, 'ACDEFGHIKLMNPQRST<&"', text))
    report.table(columns, rows, caption=text, monospace=[text]).links({text: text.replace("/", "_")})
    return report.render()


def elements(html: str) -> list[str]:
    return [tag for tag, _ in Balanced(html).seen]


def check_harmless(html: str) -> None:
    found = Balanced(html).seen
    tags = [tag for tag, _ in found]
    assert tags.count("script") == 1 and tags.count("style") == 1
    assert not {"img", "iframe", "object", "base", "form", "link", "foreignobject"} & set(tags)
    for _, attributes in found:
        assert not any(name.startswith("on") or name in ("style", "src", "srcset") for name in attributes)
        assert re.match(r"\./|#", attributes.get("href") or "#")


def test_hostile_strings_are_harmless_everywhere() -> None:
    html = page(EVIL)
    check_harmless(html)
    assert "<img" not in html and "<script>alert" not in html
    assert elements(html) == elements(page())


def test_a_planted_fault_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.evaluation.report.report.escape", lambda text, quote=True: text)
    with pytest.raises(AssertionError):
        check_harmless(page(EVIL))


def test_the_policy_admits_only_the_pages_own_style_and_script() -> None:
    html = page()
    policy = next(a["content"] for _, a in Balanced(html).seen if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        body = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body.group(1).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_nothing_is_loaded_and_the_page_is_small_and_reproducible() -> None:
    html = page()
    assert not re.search(r"https?://|url\(|@import|//[a-z]", html)
    assert len(html.encode()) < 400_000
    assert html == page()
    identifiers = [a["id"] for _, a in Balanced(html).seen if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_cells() -> None:
    rows = [["b", True, np.float64(12.345678), None, True], ["c", np.bool_(False), float("nan"), 3, False]]
    html = Report("t").table(["a", "flag", "x", "w", "holds"], rows, checks=["holds"]).render()
    assert '<td>b</td><td>yes</td><td class="n">12.35</td><td class="n"></td><td class="yes">yes</td>' in html
    assert '<td>c</td><td class="off">no</td><td class="n">n/a</td><td class="n">3</td><td class="no">no</td>' in html
    with pytest.raises(ValueError, match="cells under"):
        Report("t").table(["a"], [[1, 2]])


def test_a_column_shares_its_decimals_unless_that_hides_a_value() -> None:
    html = Report("t").table(["x", "y"], [[3.14159, 1e-9], [-0.07, 250.0]]).render()
    assert '<td class="n">3.142</td><td class="n">1e-09</td>' in html
    assert '<td class="n">-0.070</td><td class="n">250</td>' in html


@pytest.mark.parametrize("path", ["javascript:alert(1)", "https://example.org/x", "a b<c>.csv"])
def test_links_are_relative_whatever_they_say(path: str) -> None:
    check_harmless(Report("t").links({"x": path}).render())
    with pytest.raises(ValueError, match="beside it"):
        Report("t").links({"x": "//example.org/x"})


def test_write_leaves_one_whole_file(tmp_path: Path) -> None:
    Report("é \udc80").write(tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert "é ?" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_plots_of_almost_nothing(n: int) -> None:
    values = np.full((n, 2), 3.0)
    Balanced(scatter_matrix(values, ["a", "b"], np.ones(n, dtype=bool)).render("p"))
    Balanced(histogram(values[:, 0], "a", "a (e)").render("p"))
    Balanced(histogram(np.array([np.nan]), "a", "a (e)", values[:, 0]).render("p"))
    Balanced(bar({}, "a", "a (e)").render("p"))
    Balanced(bar({"a": -1.0, "b": 0.0}, "a", "a (e)").render("p"))


def test_gaps_are_left_out_and_coordinates_stay_finite() -> None:
    values = np.array([[1.0, np.nan], [2.0, 1.0], [np.inf, 2.0]])
    rendered = scatter_matrix(values, ["a", "b"], np.array([True, False, False])).render("p")
    assert "nan" not in rendered and "inf" not in rendered
    with pytest.raises(ValueError, match="do not fit"):
        scatter_matrix(values, ["a"], np.zeros(3, dtype=bool))


def texts(svg: Svg, kind: str) -> list[str]:
    return re.findall(f'<text class="{kind}"[^>]*>([^<]*)</text>', svg.render("p"))


def check_axes(svg: Svg, title: str, labels: set[str]) -> None:
    """A title, both axes named, and numbers along them."""
    assert texts(svg, "name") == [title] and svg.title == title and svg.description
    assert set(texts(svg, "unit")) == labels
    assert len(texts(svg, "label")) >= 5


SHARE = "share of sequences (%)"


def drawings() -> list[tuple[Svg, str, set[str]]]:
    values = np.random.default_rng(0).normal(size=(50, 3))
    labels = ["a (e)", "b (Da)", "c (pH)"]
    logo = sequence_logo(np.full((12, 4), 0.25) + np.eye(4)[[0] * 12] / 4, "ACGT", "logo")
    return [
        (scatter_matrix(values, labels, values[:, 0] > 1, "pairs"), "pairs", set(labels)),
        (histogram(values[:, 0], "one", "a (e)", values[:, 1]), "one", {"a (e)", SHARE}),
        (bar({"x": 3.0, "y": 17.5}, "bars", "perplexity"), "bars", {"perplexity"}),
        (logo, "logo", {"position", "information (bits)"}),
    ]


def test_every_plot_has_a_title_and_names_its_axes_with_units() -> None:
    for svg, title, labels in drawings():
        check_axes(svg, title, labels)


def test_a_plot_without_axis_names_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.evaluation.report.plots._draw_axes", lambda *_: None)
    with pytest.raises(AssertionError):
        check_axes(*drawings()[1])


def test_text_stays_inside_the_drawing() -> None:
    """At about 6 units a letter, nothing that is drawn is cut off at the edge."""
    for svg, _, _ in drawings():
        for attributes, body in re.findall(r"<text ([^>]*)>([^<]*)</text>", svg.render("p")):
            if "transform" in attributes:
                continue
            x = float(re.search(r'x="([-\d.]+)"', attributes)[1])  # type: ignore[index]
            anchor = re.search(r'text-anchor="(\w+)"', attributes)[1]  # type: ignore[index]
            start = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * 6 * len(body)
            assert start >= -4 and start + 6 * len(body) <= svg.width + 4, body


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.85), (-3.1, 1.7), (0.0, 103.0), (2.0, 2.4)])
def test_ticks_are_round_and_neither_few_nor_many(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7 and all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    step = (found[1] - found[0]) / 10 ** np.floor(np.log10(found[1] - found[0]) + 1e-9)
    assert min(abs(step - m) for m in (1, 2, 5)) < 1e-6


def test_svg_describes_itself() -> None:
    rendered = Svg(10, 10, "a < b", "c & d").render("k")
    assert 'aria-labelledby="k-t k-d"' in rendered
    assert '<title id="k-t">a &lt; b</title><desc id="k-d">c &amp; d</desc>' in rendered
