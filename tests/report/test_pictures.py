"""Pictures of a comparison: which there are, what they show and say, also of failures, zeros, few and many examples."""

from __future__ import annotations

import json
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from invsolve.analysis.comparison import Comparison, Contender, Source, compared
from invsolve.data.solution import Solution
from invsolve.report.losses import waterfall_figure
from invsolve.report.picture import Picture
from invsolve.report.pictures import pictures_of
from invsolve.report.style import PALETTE, log_ticks, plain, share, tick_labels


def solution(loss: np.ndarray, initial: np.ndarray, seed: int = 0, **more: object) -> Solution:
    n = len(loss)
    counts = 5 + np.arange(n) % 7
    return Solution(
        x=np.zeros((n, 1)), loss=loss, loss_initial=initial, status=np.where(np.isfinite(loss), 0, 3).astype(np.int8),
        iterations=counts, evaluations=counts, gradients=counts, grad_norm=np.zeros(n), x_initial=np.ones((n, 1)),
        example=np.arange(n), attributes={"seed": seed, "seconds": 1.0}, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def comparison(losses: dict[str, list[np.ndarray]], true: np.ndarray | None = None) -> Comparison:
    """Losses of each method, by seed; the first method is the baseline, and all begin at a loss of 1."""
    n = len(next(iter(losses.values()))[0])
    seeds = tuple(range(max(len(runs) for runs in losses.values())))
    contenders = {
        name: Contender(tuple(solution(v, np.ones(n), s) for s, v in enumerate(runs)), False, len(runs) > 1)
        for name, runs in losses.items()
    }
    return compared(contenders, next(iter(losses)), seeds, Source(loss_true=true, missing="gone"))


def picture(of: Comparison, name: str) -> Picture:
    return next(p for p in pictures_of(of) if p.name == name)


def svg(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().decode()


def colours(figure: Figure) -> set[str]:
    """Every colour in the SVG that is set by a style or an attribute; and of texts, for black ones have none there."""
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    found: set[str] = {to_hex(text.get_color()) for text in texts}
    for element in ElementTree.fromstring(svg(figure)).iter():
        parts = [part.split(":") for part in element.get("style", "").split(";") if ":" in part]
        values = {k.strip(): v.strip() for k, v in parts} | element.attrib
        found |= {values[k] for k in ("fill", "stroke", "stop-color") if k in values}
    return {c for c in found if c != "none" and not c.startswith("url(")}


RNG = np.random.default_rng(0)
ROUGH = np.concatenate([RNG.lognormal(-3, 2, 36), [np.nan, np.inf, 0.0, 0.0]])
CASES = {
    "one method": comparison({"bfgs": [ROUGH]}),
    "two examples": comparison({"bfgs": [np.array([0.5, 0.2])], "jpo": [np.array([0.1, 0.0])]}, np.array([0.1, 0.0])),
    "one example": comparison({"bfgs": [np.array([0.5])], "jpo": [np.array([0.1])]}),
    "failures": comparison({"bfgs": [ROUGH], "gd": [ROUGH[::-1]], "$x_1$ <b>\n" + "long" * 20: [np.full(40, np.nan)]}),
    "seeds": comparison({"bfgs": [ROUGH], "jpo": [ROUGH, ROUGH[::-1], RNG.permutation(ROUGH)]}, np.zeros(40)),
    "zeros": comparison({"bfgs": [np.zeros(9)], "lm": [np.zeros(9)]}),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_the_losses_all_pictures_are_drawn_in_the_palette(case: str) -> None:
    pictures = pictures_of(CASES[case])
    scatter = [] if case == "one method" else ["scatter"]
    assert [p.name for p in pictures] == ["waterfall", *scatter, "profile", "status", "estimates"]
    for each in pictures:
        figure = each.draw()
        figure.draw_without_rendering()
        assert colours(figure) <= set(PALETTE.values()), each.name
        assert len(each.caption) > 40


def test_sorted_losses_end_where_failures_begin() -> None:
    figure = waterfall_figure({"bfgs": ROUGH[None], "lm": np.sort(ROUGH)[None]}, np.ones(40))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    bfgs, lm = (line for line in axes.lines if len(line.get_xdata()) == 38)
    np.testing.assert_array_equal(bfgs.get_ydata(), lm.get_ydata())
    assert (np.diff(np.asarray(bfgs.get_ydata())) >= 0).all()
    assert list(bfgs.get_xdata()) == list(range(1, 39))
    above = [line for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
    assert [list(line.get_xdata()) for line in above] == [[38.5, 40.5]] * 2
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["at x_initial", "bfgs (2 failed)", "lm (2 failed)"]


def test_captions_tell_the_counts_of_the_comparison() -> None:
    c = CASES["failures"]
    told = picture(c, "scatter").caption
    of_gd = c.methods["gd"]
    assert f"gd is better in {of_gd['better']}, tied in {of_gd['tied']} and worse in {of_gd['worse']}" in told
    assert "Failed: 2 of bfgs, 2 of gd, 40 of" in picture(c, "waterfall").caption
    assert "bfgs 38 converged, 2 nonfinite" in picture(c, "status").caption


def test_every_pair_is_a_point_and_failures_are_on_the_frame() -> None:
    figure = picture(CASES["seeds"], "scatter").draw()
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in points) == 3 * 40
    high = axes.get_xlim()[1]
    edge = [line for line in points if line.get_marker() in "^>X"]
    for line in edge:
        assert all(high in (x, y) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True))
    failed = ~np.isfinite(ROUGH)
    runs = CASES["seeds"].contenders["jpo"].runs
    assert sum(len(line.get_xdata()) for line in edge) == sum((failed | ~np.isfinite(r.loss)).sum() for r in runs)


def test_a_hundred_thousand_examples_make_a_small_picture() -> None:
    losses = {name: [np.random.default_rng(i).lognormal(0, 3, 100_000)] for i, name in enumerate(("bfgs", "gd"))}
    for each in pictures_of(comparison(losses)):
        assert len(svg(each.draw())) < 300_000, each.name


def test_ticks_are_few_and_read_as_they_are_written_by_hand() -> None:
    assert tick_labels(log_ticks(0.4, 30)) == ["0.5", "1", "2", "5", "10", "20"]
    assert tick_labels(log_ticks(1e-12, 3.0)) == ["10⁻¹²", "10⁻⁹", "10⁻⁶", "10⁻³", "10⁰"]
    assert tick_labels(log_ticks(11.2, 11.9)) == ["11.2", "11.4", "11.6", "11.8"]
    assert tick_labels([2e-7, 5e-7]) == ["2·10⁻⁷", "5·10⁻⁷"]
    for low, high in ((1e-300, 1e300), (3e-9, 3.01e-9), (1, 1.5), (0.3, 70), (1, 1e5)):
        ticks = log_ticks(low, high, 4)
        assert 2 <= len(ticks) <= 5
        assert all(low <= tick <= high for tick in ticks)
        assert len(set(tick_labels(ticks))) == len(ticks)


def test_text_from_anywhere_is_no_formula_and_has_an_end() -> None:
    assert plain("$\\frac$\n x") == r"\$\frac\$ x"
    assert len(plain("x" * 100)) == 28


def test_shares_are_not_rounded_to_all_or_nothing() -> None:
    assert [share(s) for s in (0, 0.5, 0.997, 0.9996, 0.0004, 1)] == [
        "0 %",
        "50 %",
        "99.7 %",
        "99.96 %",
        "0.04 %",
        "100 %",
    ]


def test_trainings_are_drawn_and_what_is_none_is_left_out() -> None:
    c = comparison({"bfgs": [ROUGH], "jpo": [ROUGH, ROUGH, ROUGH]})
    proposals = {"evaluations": [1, 2, 3], "error": [0.5, None, 0.1]}
    told = {"proposals": proposals, "training": {"evaluations": [1], "loss": []}}
    for run, attribute in zip(c.contenders["jpo"].runs, (json.dumps(told), "[" * 10**5, {"proposals": 3}), strict=True):
        run.attributes["training_curve"] = attribute
    figure = picture(c, "training").draw()
    (line,) = [line for axes in figure.axes for line in axes.lines]
    np.testing.assert_array_equal(line.get_ydata(), [0.5, np.nan, 0.1])
    assert "training" not in [p.name for p in pictures_of(CASES["one method"])]
