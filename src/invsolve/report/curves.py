"""How losses fall with what is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from invsolve.report.style import (
    PALE,
    WIDTH,
    Look,
    drawing,
    explain,
    linear_ticks,
    log_axis,
    log_range,
    open_frame,
    plain,
)

_LEAST = 1e-10  # of the loss at the start: what lies below is drawn there
_FEW = 12  # marks on a curve


@dataclass(frozen=True)
class Curve:
    """The loss of one method's examples as a part of that at the start, against evaluations of each."""

    evaluations: np.ndarray  # (k,) ≥ 1, ascending
    median: np.ndarray  # (k,), Inf where it is not known
    low: np.ndarray  # (k,) 10 % quantile
    high: np.ndarray  # (k,) 90 % quantile


def curves_figure(curves: Mapping[str, Curve], looks: Mapping[str, Look]) -> Figure:
    """Median and 10–90 % band of each method; a curve goes on to the right as its examples ended."""
    floors = {name: [_shown(v) for v in (c.median, c.low, c.high)] for name, c in curves.items()}
    low, high = log_range(*(v for of_one in floors.values() for v in of_one))
    last = max(2, *(int(c.evaluations[-1]) for c in curves.values()))
    with drawing(WIDTH, 3.4) as figure:
        axes = figure.add_subplot()
        handles = []
        for i, (name, curve) in enumerate(curves.items()):
            how, at = looks[name], np.append(curve.evaluations, last)
            middle, least, most = (np.append(v, v[-1]) for v in floors[name])
            known = np.isfinite(least)
            axes.fill_between(at[known], least[known], np.where(np.isfinite(most[known]), most[known], high),
                color=how.color, alpha=0.13, linewidth=0, step="post")  # fmt: skip
            step = max(1, len(at) // _FEW)
            axes.plot(at, middle, **how.stroke, drawstyle="steps-post", linewidth=1.8, marker=how.marker,
                markersize=4.5, markevery=(i % step, step), zorder=3 + 0.01 * i)  # fmt: skip
            handles.append(
                Line2D([], [], **how.stroke, marker=how.marker, markersize=4.5, linewidth=1.8, label=plain(name))
            )
        log_axis(axes, "x", 1, last * 1.03)
        log_axis(axes, "y", low, high)
        axes.set_xlabel("evaluations per example")
        axes.set_ylabel("loss / loss at x_initial")
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        open_frame(axes)
        explain(figure, handles)
    return figure


def _shown(part: np.ndarray) -> np.ndarray:
    """What is not finite is left out, what is next to nothing is drawn at the least."""
    shown: np.ndarray = np.where(np.isfinite(part), np.maximum(part, _LEAST), np.nan)
    return shown


@dataclass(frozen=True)
class Stage:
    """One stage of the trainings of several methods."""

    label: str  # of what is measured
    courses: Mapping[
        str, Sequence[tuple[np.ndarray, np.ndarray]]
    ]  # of each method its runs: evaluations and values, (p,)


def training_figure(stages: Sequence[Stage], looks: Mapping[str, Look]) -> Figure:
    """A panel for each stage of training, a line for each method and seed."""
    with drawing(WIDTH, 2.3 * len(stages) + 0.5) as figure:
        panels = figure.subplots(len(stages), 1, squeeze=False)
        for axes, stage in zip(panels.flat, stages, strict=True):
            values = [v for runs in stage.courses.values() for _, v in runs]
            for name, runs in stage.courses.items():
                for at, measured in runs:
                    axes.plot(at, np.where(measured > 0, measured, np.nan), **looks[name].stroke, linewidth=1.5,
                        marker=looks[name].marker, markersize=3.5, markevery=max(1, len(at) // _FEW))  # fmt: skip
            low, high = log_range(*values, margin=1.15)
            log_axis(axes, "y", low, high)
            linear_ticks(axes.xaxis, 6)
            axes.set_ylabel(stage.label)
            axes.grid(axis="y", color=PALE, linewidth=0.6)
            axes.set_axisbelow(True)
            open_frame(axes)
        panels[-1, 0].set_xlabel("evaluations per example so far")
        names = dict.fromkeys(name for stage in stages for name in stage.courses)
        explain(figure, [Line2D([], [], **looks[name].stroke, marker=looks[name].marker, markersize=3.5,
            label=plain(name)) for name in names])  # fmt: skip
    return figure
