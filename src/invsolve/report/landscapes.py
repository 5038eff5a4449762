"""The loss of single examples along lines and over planes, with what is to be seen on it marked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from invsolve.report.style import (
    BLUE,
    INK,
    MAP,
    ORANGE,
    PALE,
    PAPER,
    PINK,
    SMALL,
    Look,
    drawing,
    explain,
    keep_ticks,
    linear_ticks,
    open_frame,
)

_DECADES = 2.0  # between the least and the largest loss, from which an axis is logarithmic
_SHORT = 20  # characters of a label that fits below each panel
_LEAST = 1e-6  # of the largest loss: what lies below is drawn there

_MARK: dict[str, Any] = {"linestyle": "none", "clip_on": False, "zorder": 5}
START = _MARK | {"marker": "o", "markersize": 8, "color": PAPER, "markeredgecolor": INK, "markeredgewidth": 1.6}
BEST = _MARK | {"marker": "*", "markersize": 14, "color": ORANGE, "markeredgecolor": PAPER, "markeredgewidth": 0.8}
ENDS: dict[str, Any] = {"linestyle": "none", "zorder": 4, "marker": "D", "markersize": 5, "color": PINK,
    "markeredgecolor": PAPER, "markeredgewidth": 0.7}  # fmt: skip


def end_of(look: Look, above: int) -> dict[str, Any]:
    """The mark where a series ends; the more are drawn above it, the larger, for they may be at the same place."""
    size = min(7.0 + 5.0 * above, 22)
    return _MARK | look.mark | {"markersize": size, "markeredgecolor": PAPER, "markeredgewidth": 1.0, "zorder": 6}


@dataclass(frozen=True)
class Marks:
    """Points on a landscape that mean the same."""

    label: str
    points: np.ndarray  # (s, 1) or (s, 2)
    style: dict[str, Any]


@dataclass(frozen=True)
class Landscape:
    """The loss of one example along a line or over a plane, as it is drawn."""

    title: str
    axes: tuple[str, ...]  # one label, or two
    coordinates: tuple[np.ndarray, ...]  # (m,) of each
    loss: np.ndarray  # (m,) or (m, m), the first axis first; NaN where there is none
    marks: tuple[Marks, ...]  # the first below


def lines_figure(
    landscapes: Sequence[Landscape], *, subject: str = "", size: tuple[float, float] = (3.4, 2.5), across: int = 3
) -> Figure:
    """The loss along a line, a panel of about `size` inches for each example, all with the same axis below."""
    with _panels(landscapes, across, size, subject, share_x=True) as (figure, panels):
        for axes, landscape in zip(panels.flat, landscapes, strict=False):
            _line(axes, landscape)
        for axes in panels[:, 0]:
            axes.set_ylabel("loss")
    return figure


@contextlib.contextmanager
def _panels(
    landscapes: Sequence[Landscape],
    most_across: int,
    size: tuple[float, float],
    subject: str,
    *,
    share_x: bool = False,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure with a panel of about `size` inches for each landscape, whose marks and lower axis are named after."""
    across = min(most_across, len(landscapes))
    down = math.ceil(len(landscapes) / across)
    width, height = size
    with drawing(max(width * across, 6.4) if subject else width * across, height * down + 1.0) as figure:
        if subject:
            figure.suptitle(subject, fontsize=12, x=0.01, ha="left")
        one_axis = share_x and len({a.axes for a in landscapes}) == 1
        panels = figure.subplots(down, across, squeeze=False, sharex=one_axis)
        for axes in panels.flat[len(landscapes) :]:
            axes.remove()
        yield figure, panels
        _label_below(panels, len(landscapes), landscapes[0].axes[0])
        _explain(figure, landscapes)


def _label_below(panels: np.ndarray, used: int, label: str) -> None:
    """Name the horizontal axis at the lowest panel of each column; a long name at the middle one alone."""
    across = panels.shape[1]
    lowest = [panels.flat[i] for i in range(max(0, used - across), used)]
    for axes in lowest:
        axes.tick_params(labelbottom=True)
    for axes in lowest if len(label) <= _SHORT else lowest[len(lowest) // 2 :][:1]:
        axes.set_xlabel(label)


def _line(axes: Axes, landscape: Landscape) -> None:
    (x,), loss = landscape.coordinates, landscape.loss
    known = loss[np.isfinite(loss)]
    largest = known.max(initial=0.0)
    floor = _LEAST * largest if largest > 0 else 1e-300
    axes.plot(x, np.maximum(loss, floor), color=BLUE, linewidth=1.6)
    if len(known) and largest > 10**_DECADES * max(float(known.min()), floor):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
        linear_ticks(axes.yaxis, 5)
    height = np.maximum(np.where(np.isfinite(loss), loss, np.nan), floor)
    for marks in landscape.marks:
        axes.plot(marks.points[:, 0], np.interp(marks.points[:, 0], x, height), **marks.style)
    axes.set_title(landscape.title)
    open_frame(axes)


def planes_figure(
    landscapes: Sequence[Landscape], *, subject: str = "", size: tuple[float, float] = (4.6, 3.7), across: int = 2
) -> Figure:
    """The loss over a plane by the logarithm of its value, a panel of about `size` inches for each example."""
    with _panels(landscapes, across, size, subject) as (figure, panels):
        for axes, landscape in zip(panels.flat, landscapes, strict=False):
            _plane(figure, axes, landscape)
        for axes in panels[:, 0]:
            axes.set_ylabel(landscapes[0].axes[1])
    return figure


def _plane(figure: Figure, axes: Axes, landscape: Landscape) -> None:
    x, y = landscape.coordinates
    loss = np.where(np.isfinite(landscape.loss), landscape.loss, np.nan)
    largest = np.nanmax(loss, initial=0.0)
    height = np.log10(np.maximum(loss, _LEAST * largest if largest > 0 else 1e-300)).T
    mesh = axes.pcolormesh(x, y, height, cmap=MAP, shading="nearest", rasterized=True)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_facecolor(PALE)
    linear_ticks(axes.xaxis, 5)
    linear_ticks(axes.yaxis, 5)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label("log₁₀ loss", fontsize=SMALL)
    for some in (axes, bar.ax):
        keep_ticks(some)
    for marks in landscape.marks:
        axes.plot(*marks.points.T, **marks.style)
    axes.set_title(landscape.title)


def _explain(figure: Figure, landscapes: Sequence[Landscape]) -> None:
    """What the marks mean, once for all panels."""
    styles = {marks.label: marks.style for a in landscapes for marks in a.marks if len(marks.points)}
    handles = [Line2D([], [], label=label, **{k: v for k, v in style.items() if k not in ("clip_on", "markersize")},
        markersize=min(style["markersize"], 9 if style["marker"] != "*" else 14))
        for label, style in styles.items()]  # fmt: skip
    explain(figure, handles, len(handles), "outside lower center", 9.5)
