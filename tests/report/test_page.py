"""The page of a comparison, as text: what is there, that nothing in it can do harm, and that it stays small."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import invsolve
from invsolve.analysis.comparison import Comparison, Source, compared
from invsolve.cli import app
from invsolve.data.solution import HISTORY_EVALUATIONS
from invsolve.report.page import FIRST_ROWS, default_title, embedded, render
from invsolve.report.pictures import pictures_of
from invsolve.report.rows import Column, rows_of
from invsolve.report.words import missing, sentences
from tests.report.comparisons import comparison, solution

CREATED = datetime(2026, 1, 2, tzinfo=UTC)
HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</script><b>", "</title>", "\u202eevil\u2066",
    "{{7*7}}", "émoji 🎱", "nul\0bell\7", "<!--", "a\udcffb", "]]>", "&lt;",
)  # fmt: skip


def page(of: Comparison, title: str = "") -> str:
    """With all pictures."""
    return render(of, pictures_of(of), title or default_title(of), CREATED, "invsolve report a.h5 --out r.html")


class Tags(HTMLParser):
    """What elements and texts a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def hostile(n: int) -> Comparison:
    names = np.array([HOSTILE[i % len(HOSTILE)] for i in range(n)], dtype=object)
    named = [{"name": HOSTILE[0], "unit": HOSTILE[1]}, {"name": HOSTILE[2], "unit": "\u202e"}]
    made = comparison(n, (HOSTILE[1], HOSTILE[0], HOSTILE[2]), example=names, parameters=named, unknowns=2)
    for name, run in made.solutions.items():
        run.attributes |= {"method": name, "command": f"invsolve {name}", HOSTILE[1]: HOSTILE[0], "chosen": "{" * 9999}
    return made


def test_names_are_text_wherever_they_come_from() -> None:
    text = page(hostile(30), HOSTILE[3] + HOSTILE[0])
    found = Tags(text)
    assert [a.get("type") for a in found.of("script")] == ["application/json", None]
    assert all("src" not in a for a in found.of("script"))
    assert not found.of("img")
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    assert len(found.of("title")) == 1 + len(found.of("svg"))
    assert HOSTILE[0] in found.texts
    assert "\0" not in text
    assert "49" not in [t.strip() for t in found.texts if "{{" in t]


def test_embedded_json_has_no_end_within() -> None:
    names = [*HOSTILE[:9], *HOSTILE[10:]]
    text = embedded({"names": names})
    assert not set("<>&") & set(text)
    assert json.loads(text)["names"] == names


def test_pages_fetch_nothing(three: str) -> None:
    text = three
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "unsafe" not in policy[1]
    for tag, attributes in Tags(text).tags:
        assert "style" not in attributes, tag  # the policy allows none
        for key in ("src", "href", "xlink:href", "action"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), f"{tag} {key} {value}"
    assert not re.search(r"url\((?!#)|@import", text)


def test_the_same_comparison_gives_the_same_bytes() -> None:
    one, other = (page(comparison(40, ("bfgs", "jpo"), (0, 1))) for _ in range(2))
    assert one == other
    made = comparison(40, ("bfgs", "jpo"), (0, 1))
    later = render(made, [], "x", datetime(2027, 1, 1, tzinfo=UTC))
    assert later.replace("2027-01-01T", "2026-01-02T") == render(made, [], "x", CREATED)


@pytest.fixture(scope="module")
def three() -> str:
    """The page of three methods."""
    return page(comparison(8, ("bfgs", "gd", "jpo")))


def test_parts_are_named_and_names_are_unique(three: str) -> None:
    found = Tags(three)
    ids = [str(a["id"]) for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [str(a["href"])[1:] for a in found.of("a")]
    assert set(targets) <= set(ids)
    assert {"summary", "methods", "pictures", "parameters", "examples", "provenance"} <= set(targets)
    for svg in found.of("svg"):
        assert svg["role"] == "img"
        assert {svg["aria-labelledby"], svg["aria-describedby"]} <= set(ids)
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_colours_of_pictures_are_the_themes(three: str) -> None:
    text = three
    start = text.index(".f0{")
    rules = text[start : text.index("</style>", start)]
    assert "var(--fig-blue)" in rules
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", rules)
    used = set(re.findall(r"var\((--fig-[a-z]+)\)", rules))
    for name in used:
        assert text.count(f"{name}:#") == 3, name  # light; dark by the system, and by the button


@pytest.mark.parametrize("n", [1, 2])
def test_few_examples_make_a_page(n: int) -> None:
    text = page(comparison(n))
    assert ("One example: neither intervals nor p-values." in text) == (n == 1)
    assert f"{n} example{'s' if n > 1 else ''}, 2 methods" in re.sub(r"\s+", " ", text)


def test_one_solution_makes_a_page() -> None:
    made = comparison(30, ("bfgs",))
    text = page(made)
    assert not re.search(
        "better|worse|baseline|Wilcoxon", text[text.index('id="summary"') : text.index('id="pictures"')]
    )
    assert "came down from 120 at x_initial" in sentences(made)[1]
    assert "<title>wave-packet by bfgs</title>" in text


def test_the_summary_says_who_solves_what_for_how_much() -> None:
    made = comparison(
        4, ("bfgs", "gd"), loss=np.array([1e-9, 1.0, 1.0, np.nan]), evaluations=np.array([10, 10, 10, 20])
    )
    first, second = sentences(made)
    assert first == (
        "<strong><bdi>bfgs</bdi></strong> solves 25 % of 4 examples for 12.5 evaluations each; "
        "<strong><bdi>gd</bdi></strong> 25 % for 12.5."
    )
    assert "better on 0 of 4 examples, tied on 4 and worse on 0" in second
    assert "p = 1.000" in second


def test_a_summary_without_truth_tells_losses_and_infinite_ratios() -> None:
    made = comparison(3, ("bfgs", "gd"), source=Source(missing="gone"))
    made.contenders["gd"].runs[0].loss[:] = np.inf
    again = compared(made.contenders, "bfgs", (0,), made.source)
    first, second = sentences(again)
    assert "reaches a median loss of" in first
    assert "<strong><bdi>gd</bdi></strong> ∞ for " in first
    assert "Its loss is ∞ times the" in second


def test_what_is_missing_is_said(three: str) -> None:
    assert "The dataset is not at hand (file data.h5 is gone)" in three
    assert "No histories of bfgs, gd, jpo: " in three
    history = np.ones((4, len(HISTORY_EVALUATIONS)), np.float32)
    assert not [note for note in missing(comparison(4, history=history)) if "histories" in note]


def test_provenance_tells_seeds_and_commands() -> None:
    made = comparison(5, ("bfgs", "jpo"), (3, 4))
    text = render(made, [], "x", CREATED, "invsolve report a.h5 --out r.html")
    assert "<dt>seed</dt><dd><bdi>3, 4</bdi></dd>" in text
    for seed in (3, 4):
        assert f"--method jpo --seed {seed}" in text
    assert "invsolve report a.h5 --out r.html" in text
    assert "ab" * 32 in text


def test_rows_are_those_of_the_comparison() -> None:
    made = comparison(7, ("bfgs", "gd", "jpo"), (0, 1))
    head, *expected = made.rows()
    rows = rows_of(made)
    assert rows.count == len(expected) == 42
    by_label = {column.label: column for column in rows.columns}
    shown = rows.first(FIRST_ROWS)
    for i, row in enumerate(expected):
        told = dict(zip(head, row, strict=True))
        assert shown[i][0] == str(told["example"])
        cells = {c.label: c.cell(i) for c in rows.columns}
        assert cells["method"] == told["method"]
        assert cells["seed"] == str(told["seed"])
        assert float(cells["loss"]) == pytest.approx(told["loss"], rel=1e-3)
        assert [cells[k] for k in ("status", "solved", "against bfgs")] == [
            told["status"], told["solved"], told["outcome"],
        ]  # fmt: skip
        assert [cells["evaluations"], cells["gradients"]] == [str(told["evaluations"]), str(told["gradients"])]
    assert len(by_label["loss at x_initial"].values) == 7  # once for all


def test_numbers_keep_their_range_and_six_digits() -> None:
    values = np.array([1e-300, -2.5, 0.0, np.inf, -np.inf, np.nan, 123456.789, 1.7976931348623157e308])
    column = Column("x", values)
    told = column.to_json()
    halves = np.frombuffer(base64.b64decode(told["data"]), "<u4").astype("<u8") << np.uint64(32)
    back = halves.view("<f8")
    np.testing.assert_allclose(back[:-1], values[:-1], rtol=5e-7)
    assert column.cell(5) == ""
    assert column.cell(3) == "∞"
    large = Column("count", np.array([3, 70000]))
    assert large.to_json()["kind"] == "u4"
    assert Column("count", np.array([3, 255])).to_json()["kind"] == "u1"


def test_tables_of_many_rows_are_cut_and_say_so() -> None:
    made = comparison(3000, ("bfgs", "gd"))
    rows = rows_of(made, most_bytes=20_000)
    assert 100 < rows.shown < 3000
    assert len(json.dumps(rows.to_json())) < 21_000
    np.testing.assert_array_equal(
        next(c for c in rows.columns if c.label == "loss").values,
        np.concatenate([run.loss[: rows.shown] for run in made.solutions.values()]),
    )


def test_long_names_are_cut() -> None:
    names = np.array(["x" * 5000, "y"], dtype=object)
    rows = rows_of(comparison(2, example=names))
    assert rows.examples is not None
    assert [len(name) for name in rows.examples] == [81, 1]


def test_pages_of_many_examples_are_small() -> None:
    made = comparison(100_000, ("bfgs", "gd", "lbfgs"))
    text = page(made)
    assert len(text.encode()) < 10_000_000
    assert f"first {FIRST_ROWS} are shown" in text
    document = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert document["rows"] == 300_000


def test_many_unknowns_have_no_columns() -> None:
    rows = rows_of(comparison(3, unknowns=100))
    assert not [c for c in rows.columns if c.label.startswith("x")]
    assert "x has 100 components" in render(comparison(3, unknowns=100), [], "x", CREATED)


def test_write_report(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    invsolve.write_report(comparison(3), path, title="Mine")
    assert "<title>Mine</title>" in path.read_text()
    with pytest.raises(invsolve.OutputError, match="exists; choose another name, or --overwrite it"):
        invsolve.write_report(comparison(3), path)
    invsolve.write_report(comparison(3), path, overwrite=True)
    assert "gd against bfgs</title>" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_what_is_not_installed_is_told(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == module else real(name, *a))
    with pytest.raises(invsolve.OptionError, match=r"not installed: pip install 'invsolve\[report\]'"):
        invsolve.write_report(comparison(3), tmp_path / "r.html")


Invoke = Callable[..., Any]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """The command line, in this process."""

    def run(*words: object) -> Any:
        monkeypatch.setattr("sys.argv", ["invsolve", *map(str, words)])
        return CliRunner().invoke(app, [*map(str, words)])

    return run


def test_the_command(wave_packets: Path, tmp_path: Path, invoke: Invoke) -> None:
    files = []
    for method in ("bfgs", "gd"):
        files.append(tmp_path / f"{method}.h5")
        invsolve.solve(wave_packets, method=method, max_evaluations=30, out=files[-1])
    out, new = tmp_path / "r.html", tmp_path / "n.html"
    done = invoke("report", *files, "--out", out, "--figures", tmp_path / "f", "--title", "A <title>")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"written to {out} (")
    text = out.read_text()
    assert "A &lt;title&gt;</title>" in text
    assert f"invsolve report {files[0]} {files[1]} --out {out}" in text
    pictures = re.findall(r'<figure id="([\w-]+)"', text)
    assert {"waterfall", "scatter"} <= set(pictures)
    assert {p.name for p in (tmp_path / "f").iterdir()} == {f"{n}.{k}" for n in pictures for k in ("svg", "pdf", "png")}
    for words, message in (
        ((*files, "--out", out), "exists; choose another name"),
        ((*files, "--out", files[0], "--overwrite"), "is an input"),
        ((files[0], files[0], "--out", new), "is given twice"),
        ((*files, "--out", new, "--baseline", "gdd"), "did you mean 'gd'?"),
        ((*files, "--out", new, "--data", files[0]), "dataset"),
        ((*files, "--out", new, "--figures", tmp_path / "f"), "exists; choose another name"),
        ((wave_packets, "--out", new), "solution"),
    ):
        refused = invoke("report", *words)
        assert isinstance(refused.exception, invsolve.InvsolveError), refused.output
        assert message in str(refused.exception)
    assert not new.exists()
    assert text == out.read_text()


def test_compare_writes_a_page(wave_packets: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "r.html"
    words = ("compare", wave_packets, "--methods", "bfgs,gd", "--max-evaluations", "20", "--report", out)
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("12 examples, against bfgs")
    assert "gd against bfgs</title>" in out.read_text()
    for more, message in (
        ((), "exists; choose another name"),
        (("--csv", out, "--overwrite"), "are both"),
    ):
        refused = invoke(*words, *more)
        assert isinstance(refused.exception, invsolve.OutputError)
        assert message in str(refused.exception)
    assert "is an input" in str(invoke(*words[:-1], wave_packets, "--overwrite").exception)


def test_a_solution_without_its_dataset_makes_a_page_with_a_note(
    wave_packets: Path, tmp_path: Path, invoke: Invoke
) -> None:
    file, out = tmp_path / "s.h5", tmp_path / "r.html"
    invsolve.solve(wave_packets, out=file)
    wave_packets.unlink()
    done = invoke("report", file, "--out", out)
    assert done.exit_code == 0, done.output
    assert "invsolve: The dataset is not at hand" in done.stderr
    assert 'id="gallery"' not in out.read_text()
    quiet = invoke("report", file, "--out", out, "--overwrite", "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_solutions_of_different_datasets_are_refused(tmp_path: Path) -> None:
    for i in range(2):
        invsolve.write_solution(tmp_path / f"{i}.h5", solution(3, "bfgs", i, loss=np.ones(3)))
    one = solution(3, "gd")
    one.attributes["input_sha256"] = "cd" * 32
    invsolve.write_solution(tmp_path / "other.h5", one)
    with pytest.raises(invsolve.DataError, match="not of the same dataset and model: input_sha256"):
        invsolve.compare_solutions([tmp_path / "0.h5", tmp_path / "other.h5"], least=1)
