"""Single examples: target, fits and residuals, as curves, numbers or images by the shape of y, or as models draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from invsolve.report.style import (
    GREY,
    INK,
    MAP,
    PALE,
    SMALL,
    WIDTH,
    Look,
    drawing,
    explain,
    keep_ticks,
    linear_ticks,
    number,
    open_frame,
    plain,
)

_NUMBERS = 8  # of a target, up to which they are drawn as points side by side
_RESIDUALS = "PuOr"  # the map of images of them: white is none
_DENSE = 400  # samples, from which a target is a line rather than points


@dataclass(frozen=True)
class Example:
    """One example as it is shown."""

    title: str
    target: np.ndarray  # (*y_shape), NaN where nothing was observed
    fits: Mapping[str, np.ndarray]  # (*y_shape) of each method, NaN where F fails
    loss: Mapping[str, float]

    @property
    def told(self) -> str:
        """The title with the losses."""
        return f"{self.title}: loss {', '.join(f'{plain(k, 16)} {number(v)}' for k, v in self.loss.items())}"


def gallery_figure(examples: Sequence[Example], looks: Mapping[str, Look]) -> Figure:
    """Targets, fits and residuals (fit − target) of some examples, each with the same methods and shapes."""
    shape = tuple(size for size in examples[0].target.shape if size != 1)
    if len(shape) >= 2:
        return _images(examples)
    return _curves(examples, looks, numbers=not shape or shape[0] <= _NUMBERS)


def _curves(examples: Sequence[Example], looks: Mapping[str, Look], *, numbers: bool) -> Figure:
    """A row an example: target with all fits, residuals."""
    with drawing(WIDTH, 1.65 * len(examples) + 0.75) as figure:
        panels = figure.subplots(len(examples), 2, squeeze=False, sharex=True, width_ratios=(1.25, 1))
        for (left, right), example in zip(panels, examples, strict=True):
            target = example.target.reshape(-1)
            index = np.arange(len(target))
            _gaps((left, right), target)
            if numbers or len(target) <= _DENSE:
                left.plot(index, target, color=INK, marker="o", linestyle="none", markersize=5 if numbers else 2.2,
                    markerfacecolor="none" if numbers else INK, zorder=1)  # fmt: skip
            else:
                left.plot(index, target, color=GREY, linewidth=0.8, zorder=1)
            right.axhline(0, color=GREY, linewidth=0.8, zorder=0)
            for i, (name, fit) in enumerate(example.fits.items()):
                how, y = looks[name], fit.reshape(-1)
                beside = index + 0.12 * (i - (len(example.fits) - 1) / 2)
                for axes, values in ((left, y), (right, y - target)):
                    if numbers:
                        axes.plot(beside, values, **how.mark, markersize=5, alpha=0.85)
                    else:
                        axes.plot(index, values, **how.stroke, linewidth=1.5)
            _title(left, example.told)
            right.set_ylabel("fit − target", fontsize=SMALL)
            for axes in (left, right):
                _apart(axes)
                linear_ticks(axes.yaxis, 4)
                linear_ticks(axes.xaxis, 4, integer=True)
                open_frame(axes)
        panels[-1, 0].set_xlabel("component" if numbers else "sample")
        panels[-1, 1].set_xlabel("component" if numbers else "sample")
        if numbers:
            panels[0, 0].set_xlim(-0.6, len(index) - 0.4)
            panels[0, 0].xaxis.set_major_locator(FixedLocator(index.tolist()))
        explain(figure, _legend(examples, looks, numbers=numbers))
    return figure


def _gaps(panels: Sequence[Axes], target: np.ndarray) -> None:
    """Shade where nothing was observed."""
    missing = np.concatenate([[False], np.isnan(target), [False]])
    edges = np.flatnonzero(np.diff(missing.astype(int)))
    for start, stop in edges.reshape(-1, 2):
        for axes in panels:
            axes.axvspan(start - 0.5, stop - 0.5, color=PALE, alpha=0.5, linewidth=0, zorder=0)


def _apart(axes: Axes) -> None:
    """Widen an axis on which everything is the same but for rounding."""
    low, high = axes.get_ylim()
    least = 1e-6 * max(abs(low), abs(high))
    if high - low < least:
        axes.set_ylim((low + high) / 2 - least, (low + high) / 2 + least)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=SMALL * min(1.0, 58 / len(text)))


def _legend(examples: Sequence[Example], looks: Mapping[str, Look], *, numbers: bool) -> list[Line2D | Patch]:
    dot: Any = {"markersize": 5, "markerfacecolor": "none"} if numbers else {"markersize": 3}
    handles: list[Line2D | Patch] = [Line2D([], [], color=INK, marker="o", linestyle="none", **dot, label="target")]
    for name in examples[0].fits:
        style = looks[name].mark if numbers else looks[name].stroke
        handles.append(Line2D([], [], **style, label=f"fit of {plain(name)}"))
    if any(np.isnan(example.target).any() for example in examples):
        handles.append(Patch(facecolor=PALE, alpha=0.5, label="not observed"))
    return handles


def _images(examples: Sequence[Example]) -> Figure:
    """Of each example a row with target and fits, and one with residuals; of a single method all in one row."""
    methods = list(examples[0].fits)
    together = len(methods) == 1
    columns, rows = (3, 1) if together else (1 + len(methods), 2)
    height, width = (plane(examples[0].target).shape[k] for k in (0, 1))
    panel = (WIDTH - 0.7) / columns
    tall = panel * min(max(height / width, 0.3), 2.0) + 0.28
    with drawing(WIDTH, rows * len(examples) * tall + 0.45 + 0.1 * len(examples)) as figure:
        panels = figure.subplots(rows * len(examples), columns, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for i, example in enumerate(examples):
            _image_rows(figure, panels[rows * i : rows * (i + 1)], example, together=together)
        handles = (
            [Patch(facecolor=PALE, label="not observed")] if any(np.isnan(e.target).any() for e in examples) else []
        )
        explain(figure, handles)
    return figure


def _image_rows(figure: Figure, panels: np.ndarray, example: Example, *, together: bool) -> None:
    target = plane(example.target)
    fits = {name: plane(y) for name, y in example.fits.items()}
    residuals = {name: y - target for name, y in fits.items()}
    known = target[np.isfinite(target)]
    if not len(known):
        known = np.concatenate([y[np.isfinite(y)] for y in fits.values()] or [np.zeros(1)])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    every = np.concatenate([np.abs(r[np.isfinite(r)]) for r in residuals.values()])
    most = min(float(every.max(initial=0.0)), max(high - low, 1e-300)) or 1e-300
    first, last = panels[0], panels[-1]
    fitted = list(first[1:2] if together else first[1:])
    misses = list(last[2:] if together else last[1:])
    shown = [
        _image(axes, v, cmap=MAP, vmin=low, vmax=high)
        for axes, v in zip([first[0], *fitted], [target, *fits.values()], strict=True)
    ]
    off = [
        _image(axes, v, cmap=_RESIDUALS, vmin=-most, vmax=most)
        for axes, v in zip(misses, residuals.values(), strict=True)
    ]
    for axes, name in zip(
        [*fitted, *misses], [f"fit of {plain(k, 14)}" for k in fits] + ["fit − target"] * len(misses), strict=True
    ):
        axes.set_title(name, fontsize=SMALL - 1, color=INK, pad=2)
    # The blank line is for the words over the whole row, which would else make the first panel as wide.
    first[0].set_title("\n\ntarget", fontsize=SMALL - 1, pad=2)
    for mappable, beside in ((shown[0], [first[0], *fitted]), (off[0], misses)):
        bar = figure.colorbar(
            mappable,
            ax=beside if together else list(first if mappable is shown[0] else last),
            pad=0.02,
            aspect=12,
            shrink=0.85,
        )
        bar.outline.set_visible(False)
        linear_ticks(bar.ax.yaxis, 3)
        keep_ticks(bar.ax)
        bar.ax.tick_params(labelsize=SMALL - 1.5, length=2)
    first[0].annotate(
        example.told, (0, 1), (0, 15), xycoords="axes fraction", textcoords="offset points",
        fontsize=SMALL * min(1.0, 62 / len(example.told)),
    ).set_in_layout(False)  # fmt: skip


def _image(axes: Axes, values: np.ndarray, **how: Any) -> Any:
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[], facecolor=PALE)
    axes.spines[:].set_visible(False)
    return axes.imshow(values, interpolation="nearest", aspect="auto", **how)


def plane(y: np.ndarray) -> np.ndarray:
    """An image of y (*y_shape): of more than two axes longer than one, the middle of those before the last two."""
    y = y.reshape([size for size in y.shape if size != 1])
    while y.ndim > 2:
        y = y[y.shape[0] // 2]
    return y


def drawn_figure(examples: Sequence[Example], draw: Callable[[Axes, int, str], None]) -> Figure:
    """A row an example, a column a method, each drawn by `draw(axes, index of the example, method)`."""
    methods = list(examples[0].fits)
    panel = WIDTH / max(len(methods), 2)
    width = panel * len(methods)
    with drawing(max(width, 3.4), len(examples) * (min(panel, 2.6) + 0.45)) as figure:
        panels = figure.subplots(len(examples), len(methods), squeeze=False)
        for i, example in enumerate(examples):
            for axes, name in zip(panels[i], methods, strict=True):
                draw(axes, i, name)
                open_frame(axes)
                for axis in (axes.xaxis, axes.yaxis):
                    linear_ticks(axis, 3)
                told = f"{example.title}\n" if axes is panels[i, 0] else ""
                axes.set_title(f"{told}{plain(name, 16)}\nloss {number(example.loss[name])}", fontsize=SMALL)
    return figure
