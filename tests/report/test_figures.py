"""Pictures are made, say what they show, and are not empty."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

import invsolve
from invsolve.report.alignment import alignment_figure
from invsolve.report.landscapes import BEST, ENDS, START, Landscape, Marks, lines_figure, planes_figure
from invsolve.report.saving import check_figures, save_figure

T = np.linspace(0, 1, 21)


def line(title: str, loss: np.ndarray) -> Landscape:
    return Landscape(title, ("t0 (s)",), (T,), loss, marks(np.zeros(1), np.ones(1), np.array([[0.3]])))


def marks(start: np.ndarray, best: np.ndarray, ends: np.ndarray) -> tuple[Marks, ...]:
    return Marks("x0", start[None], START), Marks("the solution", best[None], BEST), Marks("ends", ends, ENDS)


def texts(figure: Figure) -> str:
    figure.canvas.draw()
    found = [t.get_text() for axes in figure.axes for t in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    legends = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    return " ".join([*found, *legends, *(a.get_title(loc="left") for a in figure.axes)])


def ink(path: Path) -> float:
    """Share of the pixels that are not white."""
    return float((imread(path)[..., :3] < 0.98).any(-1).mean())


def drawn(kind: str) -> Figure:
    if kind == "alignment":
        return alignment_figure([1, 2, 4], [0.1, 0.2, 0.5], [0.1, 0.1, 0.0], 0.1, subject="wave-packet",
            joint_label="joint", plain_label="plain")  # fmt: skip
    if kind == "lines":
        losses = [1 + T, 10.0 ** (-8 * T), np.where(T < 0.2, np.nan, T), np.zeros(21), np.full(21, np.inf)]
        return lines_figure([line(f"example {i}", loss) for i, loss in enumerate(losses)])
    plane = (T[:, None] - 1) ** 2 + T[None] ** 2
    plane[:2] = np.nan
    where = np.array([0.2, 0.1])
    landscapes = [Landscape(f"example {i}", ("vx (1/s)", "vy"), (T, T), plane, marks(where, where, where[None]))
        for i in range(3)]  # fmt: skip
    return planes_figure(landscapes, subject="three examples")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("alignment", ["examples in one joint step, k", "cosine to the solution", "wave-packet"]),
        ("lines", ["t0 (s)", "loss", "example 4", "x0", "the solution", "ends"]),
        ("planes", ["vx (1/s)", "vy", "log₁₀ loss", "example 2", "x0"]),
    ],
)
def test_a_picture_says_what_it_shows_and_is_not_empty(kind: str, said: list[str], tmp_path: Path) -> None:
    figure = drawn(kind)
    for word in said:
        assert word in texts(figure)
    svg, png = save_figure(figure, tmp_path, kind, overwrite=False)
    assert svg.read_text().startswith("<?xml")
    assert 0.02 < ink(png) < 0.9
    first = svg.read_bytes()
    save_figure(drawn(kind), tmp_path, kind, overwrite=True)
    assert svg.read_bytes() == first


def test_pictures_that_exist_are_kept(tmp_path: Path) -> None:
    check_figures(tmp_path / "new", ["alignment"], overwrite=False)
    (tmp_path / "new" / "alignment.png").touch()
    with pytest.raises(invsolve.OutputError, match="exists; choose another name, or --overwrite it"):
        check_figures(tmp_path / "new", ["alignment"], overwrite=False)
    check_figures(tmp_path / "new", ["alignment"], overwrite=True)


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(invsolve.OutputError, match="folder .* for figures"):
        check_figures(tmp_path / "a" / "b", ["alignment"], overwrite=False)


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(invsolve.OptionError, match=r"pip install 'invsolve\[report\]'"):
        check_figures(tmp_path, ["alignment"], overwrite=False)
