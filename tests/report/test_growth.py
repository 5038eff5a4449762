"""The picture of a study: what it draws, says and leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import invsolve
from invsolve.analysis.comparison import Comparison
from invsolve.analysis.study import Axis, Study
from invsolve.report.growth import Growth, growth_figure, pictures_of_study
from invsolve.report.pictures import pictures_of
from invsolve.report.style import PALETTE
from tests.report.test_pictures import colours, comparison


def lines(figure: Figure) -> list[list[tuple[Any, list[float]]]]:
    """Colour and heights of the lines of each panel."""
    return [[(one.get_color(), np.asarray(one.get_ydata()).tolist()) for one in axes.lines] for axes in figure.axes]


def compared_to(jpo: list[float], *more: list[float], true: bool = True) -> Comparison:
    """bfgs, whose losses are 1/2 all, and jpo from one or several seeds; x_true has a loss of 1/10."""
    known = np.full(len(jpo), 0.1) if true else None
    return comparison({"bfgs": [np.full(len(jpo), 0.5)], "jpo": [np.array(v) for v in (jpo, *more)]}, known)


def study(axis: Axis = "examples", true: bool = True) -> Study:
    two, four = compared_to([0.5, 0.1], [0.1, 0.1], true=true), compared_to([0.1] * 3 + [0.9], [0.1] * 4, true=true)
    return Study(axis, {20: two, 4096: four}, (), None)


def test_means_and_bands_over_seeds_are_drawn_in_the_methods_own_looks() -> None:
    values = np.array([[0.0, 0.5], [0.5, 1.0], [1.0, 1.0]])
    panels = [Growth("better", {"jpo": values}), Growth("evaluations", {"bfgs": values + 1, "jpo": values + 2}, False)]
    figure = growth_figure([2, 8, 32], panels, ["bfgs", "jpo"], label="examples")
    blue, orange = PALETTE["blue"], PALETTE["orange"]
    assert lines(figure) == [
        [(orange, [0.25, 0.75, 1.0])],
        [(blue, [1.25, 1.75, 2.0]), (orange, [2.25, 2.75, 3.0])],
    ]
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in np.asarray(band).tolist()} >= {(2.0, 0.0), (2.0, 0.5), (8.0, 1.0)}
    assert [axes.get_ylabel() for axes in figure.axes] == ["better", "evaluations"]
    assert figure.axes[-1].get_xlabel() == "examples"
    assert figure.axes[1].get_yscale() == "log"
    assert colours(figure) <= set(PALETTE.values()) | {"none"}


def test_one_seed_has_no_band_and_one_point_is_a_picture() -> None:
    figure = growth_figure([25], [Growth("solved", {"gd": np.array([[0.5]])})], ["gd"], label="evaluations")
    assert lines(figure) == [[(PALETTE["blue"], [0.5])]]
    assert not figure.axes[0].collections
    low, high = figure.axes[0].get_xlim()
    assert low < 25 < high


@pytest.mark.parametrize(
    ("at", "named"),
    [
        ([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"]),
        ([100, 1000, 1024, 1100, 10000], ["100", "1,000", "10,000"]),
        ([2, 1000, 1020], ["2", "1,020"]),
    ],
)
def test_numbers_below_the_axis_keep_apart(at: list[int], named: list[str]) -> None:
    panel = Growth("solved", {"gd": np.full((len(at), 1), 0.5)})
    figure = growth_figure(at, [panel], ["gd"], label="examples")
    figure.canvas.draw()
    assert [t.get_text() for t in figure.axes[0].get_xticklabels() if t.get_text()] == named
    assert figure.axes[0].get_xticks().tolist() == at


def test_the_picture_of_a_study_says_what_it_shows() -> None:
    (picture,) = pictures_of_study(study())
    assert (picture.name, picture.title) == ("growth", "With more examples")
    for words in ("From 20 to 4,096: ", "better than bfgs jpo 75 % to 88 %; ", "solved bfgs 0 %, jpo 75 % to 88 %; ",
        "means over 2 seeds", "first n examples alone"):  # fmt: skip
        assert words in picture.caption
    better, solved, evaluations = lines(picture.draw())
    assert better == [(PALETTE["orange"], [0.75, 0.875])]
    assert [heights for _, heights in solved] == [[0.0, 0.0], [0.75, 0.875]]
    assert [heights for _, heights in evaluations] == [[5.5, 6.5]] * 2


def test_what_is_not_known_is_left_out() -> None:
    (picture,) = pictures_of_study(study("budgets"))
    assert picture.title == "With more evaluations"
    assert len(picture.draw().axes) == 2  # that methods keep within their budget is nothing to see
    (picture,) = pictures_of_study(study("budgets", true=False))
    assert "solved" not in picture.caption
    assert len(picture.draw().axes) == 1
    assert pictures_of_study(Study("examples", {}, (2, 4), None)) == []
    alone = comparison({"bfgs": [np.ones(3)]})
    assert pictures_of_study(Study("budgets", {9: alone}, (), None)) == []
    assert len(pictures_of_study(Study("examples", {3: alone}, (), 3))) == 1


def test_pictures_of_a_comparison_over_examples_show_it() -> None:
    data = invsolve.generate("wave-packet", 5, seed=3)
    found = invsolve.compare(data, methods=["bfgs", "gd"], examples=[2, 5])
    names = [picture.name for picture in pictures_of(found)]
    assert names.index("profile") < names.index("growth") < names.index("status")
    assert "growth" not in [picture.name for picture in pictures_of(invsolve.compare(data, methods=["bfgs", "gd"]))]
