"""Pictures of what was measured, each from arrays alone: small functions that return matplotlib Figures.

Colours are those of Okabe and Ito, and the map cividis, which the colour-blind tell apart; every mark also has a shape
of its own.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GREY, PALE = "#24292f", "#6e7781", "#d0d7de"
_STYLE: Any = {
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
_DECADES = 2.0  # between the least and the largest loss, from which an axis is logarithmic
_SHORT = 20  # characters of a label that fits below each panel
_LEAST = 1e-6  # of the largest loss: what lies below is drawn there


@dataclass(frozen=True)
class Landscape:
    """The loss of one example along a line or over a plane, as it is drawn."""

    title: str
    axes: tuple[str, ...]  # one label, or two
    coordinates: tuple[np.ndarray, ...]  # (m,) of each
    loss: np.ndarray  # (m,) or (m, m), the first axis first; NaN where there is none
    start: np.ndarray  # (1,) or (2,)
    best: np.ndarray  # (1,) or (2,)
    ends: np.ndarray  # (s, 1) or (s, 2)


def alignment_figure(
    sizes: Sequence[int],
    joint: Sequence[float],
    spread: Sequence[float],
    plain: float,
    *,
    subject: str,
    joint_label: str,
    plain_label: str,
) -> Figure:
    """Cosine to the solutions of joint steps of k examples, with a band of ± spread, and of the plain gradient."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.3), layout="constrained")
        axes = figure.add_subplot()
        x, mean, band = np.asarray(sizes, float), np.asarray(joint), np.asarray(spread)
        axes.axhline(0, color=PALE, linewidth=1, zorder=0)
        axes.fill_between(x, mean - band, mean + band, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=BLUE, marker="o", markersize=6, linewidth=2, label=joint_label)
        axes.plot(
            [x[0] / 1.15, x[-1] * 1.15], [plain, plain], color=ORANGE, linewidth=2, linestyle=(0, (5, 2)),
            label=plain_label,
        )  # fmt: skip
        _powers_of_two(axes, sizes)
        low = min(0.0, plain, float(np.min(mean - band)))
        axes.set_ylim(max(-1.05, low - 0.08), 1.05)
        axes.set_xlabel("examples in one joint step, k")
        axes.set_ylabel("cosine to the solution")
        axes.set_title(subject, fontsize=12, pad=10)
        axes.legend(frameon=False, loc="best", fontsize=9.5)
        _open_frame(axes)
    return figure


def _powers_of_two(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(k) for k in sizes]))
    axes.xaxis.set_major_formatter(FixedFormatter([str(k) for k in sizes]))
    axes.xaxis.set_minor_locator(NullLocator())


def _open_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def lines_figure(landscapes: Sequence[Landscape], *, subject: str, best_label: str, ends_label: str) -> Figure:
    """The loss along a line, a panel an example, all with the same axis below."""
    with _panels(landscapes, 3, (3.4, 2.5), subject, best_label, ends_label, share_x=True) as (figure, panels):
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
    best_label: str,
    ends_label: str,
    *,
    share_x: bool = False,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure with a panel of about `size` inches for each landscape, whose marks and lower axis are named after."""
    across = min(most_across, len(landscapes))
    down = math.ceil(len(landscapes) / across)
    width, height = size
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(width * across, 6.4), height * down + 1.0), layout="constrained")
        figure.suptitle(subject, fontsize=12, x=0.01, ha="left")
        one_axis = share_x and len({a.axes for a in landscapes}) == 1
        panels = figure.subplots(down, across, squeeze=False, sharex=one_axis)
        for axes in panels.flat[len(landscapes) :]:
            axes.remove()
        yield figure, panels
        _label_below(panels, len(landscapes), landscapes[0].axes[0])
        some = any(len(landscape.ends) for landscape in landscapes)
        _explain(figure, best_label, ends_label if some else "")


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
        axes.yaxis.set_major_locator(MaxNLocator(5))

    def height(at: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.interp(at, x, np.maximum(np.where(np.isfinite(loss), loss, np.nan), floor))
        return found

    axes.plot(landscape.ends[:, 0], height(landscape.ends[:, 0]), **_ENDS)
    axes.plot(landscape.start, height(landscape.start), **_START)
    axes.plot(landscape.best, height(landscape.best), **_BEST)
    axes.set_title(landscape.title)
    _open_frame(axes)


def planes_figure(landscapes: Sequence[Landscape], *, subject: str, best_label: str, ends_label: str) -> Figure:
    """The loss over a plane by the logarithm of its value, a panel an example."""
    with _panels(landscapes, 2, (4.6, 3.7), subject, best_label, ends_label) as (figure, panels):
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
    mesh = axes.pcolormesh(x, y, height, cmap="cividis", shading="nearest", rasterized=True)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_facecolor(PALE)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label("log₁₀ loss", fontsize=9)
    axes.plot(landscape.ends[:, 0], landscape.ends[:, 1], **_ENDS)
    axes.plot(*landscape.start, **_START)
    axes.plot(*landscape.best, **_BEST)
    axes.set_title(landscape.title)


_MARK: dict[str, Any] = {"linestyle": "none", "clip_on": False, "zorder": 5}
_START = _MARK | {"marker": "o", "markersize": 8, "color": "white", "markeredgecolor": INK, "markeredgewidth": 1.6}
_BEST = _MARK | {"marker": "*", "markersize": 14, "color": ORANGE, "markeredgecolor": "white", "markeredgewidth": 0.8}
_ENDS: dict[str, Any] = {"linestyle": "none", "zorder": 4, "marker": "D", "markersize": 5, "color": PINK,
    "markeredgecolor": "white", "markeredgewidth": 0.7}  # fmt: skip


def _explain(figure: Figure, best_label: str, ends_label: str) -> None:
    """What the marks mean, once for all panels."""
    marks = [(_START, "x0"), (_BEST, best_label), (_ENDS, ends_label)]
    handles = [
        Line2D([], [], label=label, **{k: v for k, v in style.items() if k != "clip_on"})
        for style, label in marks
        if label
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9.5)
