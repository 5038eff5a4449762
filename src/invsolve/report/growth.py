"""What methods gain by more examples, or by more evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from invsolve.analysis.study import Study
from invsolve.report.picture import Picture
from invsolve.report.style import (
    PALE,
    WIDTH,
    drawing,
    explain,
    log_axis,
    log_range,
    look,
    number,
    open_frame,
    plain,
    share,
)

_APART = 0.085  # of the width, between points that are both named below it


@dataclass(frozen=True)
class Growth:
    """One quantity of some methods along an axis."""

    label: str
    values: Mapping[str, np.ndarray]  # (p, K) by method: of each point and seed
    is_share: bool = True  # from 0 to 1; else a count, on a logarithmic axis


def growth_figure(at: Sequence[int], panels: Sequence[Growth], methods: Sequence[str], *, label: str) -> Figure:
    """A panel for each quantity, one below the other: means over the seeds, with bands from the least to the largest.

    `at` (p,) are the points, ascending and > 0. `methods` are all that appear, in the order of their looks; a panel may
    have fewer of them.
    """
    with drawing(WIDTH, 1.9 * len(panels) + 0.7) as figure:
        rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            _panel(axes, np.asarray(at, float), panel, methods)
        _axis_of_points(rows[-1], at)
        rows[-1].set_xlabel(label)
        figure.align_ylabels(rows)
        handles = [
            Line2D([], [], **look(i).stroke, marker=look(i).marker, markersize=4.5, linewidth=1.8, label=plain(name))
            for i, name in enumerate(methods)
        ]
        explain(figure, handles)
    return figure


def _panel(axes: Axes, at: np.ndarray, panel: Growth, methods: Sequence[str]) -> None:
    for i, name in enumerate(methods):
        if name in panel.values:
            values, style = panel.values[name], look(i)
            low, high = values.min(1), values.max(1)
            if (low < high).any():
                axes.fill_between(at, low, high, color=style.color, alpha=0.18, linewidth=0)
            axes.plot(at, values.mean(1), **style.stroke, marker=style.marker, markersize=4.5, linewidth=1.8,
                clip_on=False, zorder=3 + 0.01 * i)  # fmt: skip
    if panel.is_share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    else:
        log_axis(axes, "y", *log_range(*panel.values.values()))
    axes.set_ylabel(panel.label)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    open_frame(axes)


def _axis_of_points(axes: Axes, at: Sequence[int]) -> None:
    """A logarithmic axis with the points as ticks; those that are too close to others have no number."""
    axes.set_xscale("log")
    beyond = max((at[-1] / at[0]) ** 0.04, 1.05)
    axes.set_xlim(at[0] / beyond, at[-1] * beyond)
    width = np.log(at[-1] / at[0]) or 1.0
    named: list[int] = []
    for value in at:
        clear = not named or np.log(value / named[-1]) >= _APART * width
        if value == at[-1] or (clear and np.log(at[-1] / value) >= _APART * width):
            named.append(value)
    axes.xaxis.set_major_locator(FixedLocator([float(value) for value in at]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{value:,}" if value in named else "" for value in at]))
    axes.xaxis.set_minor_locator(NullLocator())


def pictures_of_study(study: Study) -> list[Picture]:
    """The picture of a study, if there is anything to show: one point and one quantity at least."""
    if not study.points:
        return []
    at, last = list(study.points), next(reversed(study.points.values()))
    methods, baseline, seeds = list(last.contenders), last.baseline, len(last.seeds)
    others = [name for name in methods if name != baseline]
    panels = []
    if others:
        panels.append(Growth(f"better than {plain(baseline, 12)}", {name: study.better(name) for name in others}))
    solved = {name: found for name in methods if (found := study.solved(name)) is not None}
    if solved:
        panels.append(Growth("solved", solved))
    if study.axis == "examples":
        counts = {name: study.evaluations(name) for name in methods}
        panels.append(Growth("evaluations", counts, is_share=False))
        words = "With more examples", "first examples of the data, n"
        caption = (
            "Every point is a comparison over the first n examples alone, with which a method that learns from all "
            "examples together is run anew."
        )
    else:
        words = "With more evaluations", "evaluations per example, at most"
        caption = "At every point all methods are run anew, with no more evaluations for an example than it says."
    if not panels:
        return []
    title, label = words
    told = [_told(panel, at) for panel in panels]
    caption += f" From {at[0]:,} to {at[-1]:,}: {'; '.join(told)}."
    if seeds > 1:
        caption += f" Lines are means over {seeds} seeds, bands go from the least of them to the largest."
    return [Picture("growth", title, caption, partial(growth_figure, at, panels, methods, label=label))]


def _told(panel: Growth, at: Sequence[int]) -> str:
    """What becomes of each method between the first point and the last."""
    write = share if panel.is_share else number
    ends = []
    for name, values in panel.values.items():
        first, last = (write(float(values[i].mean())) for i in (0, len(at) - 1))
        ends.append(f"{name} {first}" if first == last else f"{name} {first} to {last}")
    return f"{panel.label} {', '.join(ends)}"
