"""Estimated parameters: against the truth, or how they are spread."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from invsolve.report.style import (
    GREY,
    PALE,
    SMALL,
    WIDTH,
    Look,
    drawing,
    explain,
    linear_ticks,
    log_axis,
    log_range,
    look,
    open_frame,
    plain,
)

MOST = 9  # parameters with a panel of their own
FEW = 40  # examples, up to which each has its place on the axis
_BARS = 400  # examples, up to which error bars are drawn
_MANY = 3000  # points of a panel, from which they are drawn as pixels
_BEYOND = 0.5  # of the range of the truth, that is seen to either side of it
_BINS = 40
_LEAST = 1e-10  # of the largest error: what lies below is drawn there


@dataclass(frozen=True)
class Estimates:
    """What one method found, of all seeds together."""

    x: np.ndarray  # (p, d)
    std_error: np.ndarray | None = None  # (p, d), NaN or Inf where it is not known


def against_truth(estimates: Mapping[str, Estimates], truth: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Each method's estimates against its truth (p, d), a panel for each of up to nine parameters.

    What lies far from the range of the truth is on the frame's edge.
    """
    with _panels(estimates, names, "truth", "estimate") as (figure, panels):
        for j, axes in enumerate(panels):
            _truth_panel(axes, estimates, truth, j)
    return figure


def _truth_panel(axes: Axes, estimates: Mapping[str, Estimates], truth: Mapping[str, np.ndarray], j: int) -> None:
    low, high = _range(np.concatenate([t[:, j][np.isfinite(t[:, j])] for t in truth.values()]))
    beyond = _BEYOND * (high - low)
    found = np.concatenate([e.x[:, j][np.isfinite(e.x[:, j])] for e in estimates.values()])
    bottom, top = max(low - beyond, found.min(initial=low)), min(high + beyond, found.max(initial=high))
    margin = 0.04 * (top - bottom)
    bottom, top = bottom - margin, top + margin
    axes.plot([low, high], [low, high], color=PALE, linewidth=3, zorder=0, solid_capstyle="butt")
    for i, (name, e) in enumerate(estimates.items()):
        known = np.isfinite(e.x[:, j]) & np.isfinite(truth[name][:, j])
        at, x, how = truth[name][known, j], e.x[known, j], look(i)
        if e.std_error is not None and len(at) <= _BARS:
            error = np.where(np.isfinite(e.std_error[known, j]), e.std_error[known, j], 0.0)
            axes.errorbar(at, x, error, fmt="none", ecolor=how.color, elinewidth=0.8, alpha=0.6)
        inside = (x >= bottom) & (x <= top)
        _points(axes, at[inside], x[inside], how)
        if not inside.all():
            _points(axes, at[~inside], np.clip(x[~inside], bottom, top), how, clip_on=False)
    axes.set_ylim(bottom, top)


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, how: Look, *, clip_on: bool = True) -> None:
    size, alpha = (4.0, 0.7) if len(x) <= 300 else (2.5, 0.35)
    axes.plot(x, y, **how.mark, markersize=size, alpha=alpha, markeredgewidth=0, clip_on=clip_on,
        rasterized=len(x) > _MANY)  # fmt: skip


def _range(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


@contextlib.contextmanager
def _panels(
    estimates: Mapping[str, Estimates], names: Sequence[str], x_label: str, y_label: str, *, lines: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a panel for each parameter, called by its name."""
    across = 1 if len(names) == 1 else 2 if len(names) in (2, 4) else 3
    down = math.ceil(len(names) / across)
    with drawing(WIDTH, down * (min(WIDTH / across, 3.0) + 0.2) + 0.5) as figure:
        panels = figure.subplots(down, across, squeeze=False)
        for axes in panels.flat[len(names) :]:
            axes.remove()
        used = list(panels.flat[: len(names)])
        yield figure, used
        for axes, name in zip(used, names, strict=True):
            axes.set_title(plain(name), fontsize=SMALL)
            linear_ticks(axes.xaxis, 4 if across < 3 else 3, integer=x_label == "example")
            linear_ticks(axes.yaxis, 4)
            open_frame(axes)
        explain(
            figure,
            [
                Line2D([], [], **(look(i).stroke if lines else look(i).mark), markersize=5, label=plain(name))
                for i, name in enumerate(estimates)
            ],
        )
        figure.supxlabel(x_label, fontsize=10)
        figure.supylabel(y_label, fontsize=10)


def spread(estimates: Mapping[str, Estimates], names: Sequence[str]) -> Figure:
    """The estimates of up to nine parameters: by example with standard errors, or of many as histograms."""
    count = max(len(e.x) for e in estimates.values())
    if count <= FEW:
        with _panels(estimates, names, "example", "estimate") as (figure, panels):
            for j, axes in enumerate(panels):
                _by_example(axes, estimates, j)
    else:
        with _panels(estimates, names, "estimate", "examples", lines=True) as (figure, panels):
            for j, axes in enumerate(panels):
                _histograms(axes, estimates, j)
    return figure


def _by_example(axes: Axes, estimates: Mapping[str, Estimates], j: int) -> None:
    for i, e in enumerate(estimates.values()):
        at = np.arange(len(e.x)) + 0.5 * (i - (len(estimates) - 1) / 2) / len(estimates)
        if e.std_error is not None:
            error = np.where(np.isfinite(e.std_error[:, j]), e.std_error[:, j], 0.0)
            axes.errorbar(at, e.x[:, j], error, fmt="none", ecolor=look(i).color, elinewidth=0.9)
        _points(axes, at, e.x[:, j], look(i))


def _histograms(axes: Axes, estimates: Mapping[str, Estimates], j: int) -> None:
    """All with the same bins, over the middle 99 % of all estimates; what lies outside is in the outermost ones."""
    every = np.concatenate([e.x[:, j] for e in estimates.values()])
    every = every[np.isfinite(every)]
    low, high = _range(np.quantile(every, [0.005, 0.995]) if len(every) else every)
    edges = np.linspace(low, high, _BINS + 1)
    for i, e in enumerate(estimates.values()):
        x = e.x[:, j]
        counts, _ = np.histogram(np.clip(x[np.isfinite(x)], low, high), edges)
        axes.stairs(counts, edges, color=look(i).color, linestyle=look(i).line, linewidth=1.5, zorder=2)
        if i == 0:
            axes.stairs(counts, edges, color=look(i).color, alpha=0.15, fill=True, zorder=1)
    axes.set_ylim(bottom=0)


def error_figure(errors: Mapping[str, np.ndarray]) -> Figure:
    """The share of examples whose estimate is at most so far from the truth: errors (p,) of each method."""
    least = max((float(e[np.isfinite(e)].max(initial=0.0)) for e in errors.values()), default=0.0) * _LEAST or 1e-300
    low, high = log_range(*(np.maximum(e, least) for e in errors.values()))
    with drawing(WIDTH, 3.2) as figure:
        axes = figure.add_subplot()
        handles = []
        for i, (name, error) in enumerate(errors.items()):
            known = np.sort(np.maximum(error[np.isfinite(error)], least))
            part = np.arange(1, len(known) + 1) / max(len(error), 1)
            some = np.unique(np.linspace(0, len(known) - 1, min(len(known), 1000)).astype(int))
            at = np.concatenate([[low], known[some], [high]])
            shares = np.concatenate([[0.0], part[some], part[-1:] if len(part) else [0.0]])
            step = max(1, len(at) // 7)
            axes.plot(at, shares, **look(i).stroke, drawstyle="steps-post", linewidth=1.8, marker=look(i).marker,
                markersize=4.5, markevery=(1 + i * step // len(errors), step))  # fmt: skip
            handles.append(Line2D([], [], **look(i).stroke, marker=look(i).marker, markersize=4.5, label=plain(name)))
        log_axis(axes, "x", low, high)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axes.set_xlabel("‖x − x_true‖ / ‖x_true‖")
        axes.set_ylabel("examples")
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        open_frame(axes)
        explain(figure, handles)
    return figure


def components_figure(estimates: Mapping[str, Estimates]) -> Figure:
    """Median and 10–90 % band over the examples of every component of x, flat."""
    with drawing(WIDTH, 3.2) as figure:
        axes = figure.add_subplot()
        handles = []
        for i, (name, e) in enumerate(estimates.items()):
            x = np.where(np.isfinite(e.x), e.x, np.nan)
            x = x[np.isfinite(x).all(1)]
            if len(x):
                low, middle, high = np.quantile(x, [0.1, 0.5, 0.9], axis=0)
                at = np.arange(x.shape[1])
                axes.fill_between(at, low, high, color=look(i).color, alpha=0.15, linewidth=0)
                axes.plot(at, middle, **look(i).stroke, linewidth=1.5)
            handles.append(Line2D([], [], **look(i).stroke, linewidth=1.5, label=plain(name)))
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
        linear_ticks(axes.xaxis, 6, integer=True)
        axes.set_xlabel("component of x")
        axes.set_ylabel("estimate")
        open_frame(axes)
        explain(figure, handles)
    return figure
