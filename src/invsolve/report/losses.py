"""Final losses: sorted curves of each method, and one method's against another's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    share,
)

CURVE = 1500  # points of a sorted curve at most; more cannot be told apart
MANY = 5000  # points of a scatter, from which they are drawn as pixels
_MOST = 100_000  # points of a panel
_FEW = 60  # examples, up to which each is marked
_LEAST = 1e-10  # of the median loss at the start: what lies below is drawn there


def least_shown(loss_initial: np.ndarray, *losses: np.ndarray) -> float:
    """The loss at which smaller ones, exact zeros among them, are drawn: by that at the start, far below any noise."""
    known = loss_initial[np.isfinite(loss_initial) & (loss_initial > 0)]
    if len(known):
        return max(_LEAST * float(np.median(known)), 1e-300)
    low, _ = log_range(*losses)
    return low


def waterfall_figure(
    losses: Mapping[str, np.ndarray],
    initial: np.ndarray,
    true: np.ndarray | None = None,
    *,
    loss_label: str = "loss",
) -> Figure:
    """Sorted losses of each method, those at x_initial and, where they are known, those at x_true.

    Args:
        losses: of each method (K, n) of K seeds, which are sorted together; NaN or Inf failed, as is told at the right.
        initial: (n,) or (K, n).
        true: (n,).
    """
    floor = least_shown(initial, *losses.values())
    n = initial.shape[-1]
    with drawing(WIDTH, 3.4) as figure:
        axes = figure.add_subplot()
        handles = []
        low, high = log_range(*(np.maximum(v, floor) for v in (initial, *losses.values())))
        for label, values, line in (("at x_initial", initial, (0, (1, 1.5))), ("at x_true", true, (0, (4, 2)))):
            if values is not None and (np.maximum(values, floor) >= low).any():  # the truth may be far below all
                curve = _sorted(values, n, floor)
                axes.plot(*curve, color=GREY, linestyle=line, linewidth=1.3, zorder=1)
                handles.append(Line2D([], [], color=GREY, linestyle=line, linewidth=1.3, label=label))
        for i, (name, values) in enumerate(losses.items()):
            how = look(i)
            x, y = _sorted(values, n, floor)
            step = max(1, len(x) // 9)
            every: Any = {"marker": how.marker, "markersize": 4.5}
            every["markevery"] = (i * step // len(losses), step) if len(x) > _FEW else 1
            axes.plot(x, y, **how.stroke, **every, linewidth=1.8, zorder=3 + 0.01 * i, clip_on=False)
            failed = int((~np.isfinite(values)).sum())
            label = plain(name) + (f" ({failed} failed)" if failed else "")
            handles.append(Line2D([], [], **how.stroke, **every | {"markevery": 1}, linewidth=1.8, label=label))
            _missing(axes, how, n, failed / values.size, i)
        log_axis(axes, "y", low, high)
        axes.set_xlim(0.5 if n <= _FEW else 0, n + 0.5)
        linear_ticks(axes.xaxis, 6, integer=True)
        axes.set_xlabel("examples, each curve sorted by its loss")
        axes.set_ylabel(loss_label)
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        open_frame(axes)
        explain(figure, handles)
    return figure


def _sorted(values: np.ndarray, n: int, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """The finite ones by rank, which runs to n for as many as there are, and at most `CURVE` of them."""
    known = np.sort(np.maximum(values[np.isfinite(values)], floor))
    rank = (np.arange(len(known)) + 0.5) * n / values.size + 0.5
    if len(known) > CURVE:
        some = np.unique(np.linspace(0, len(known) - 1, CURVE).round().astype(int))
        known, rank = known[some], rank[some]
    return rank, known


def _missing(axes: Axes, how: Look, n: int, failed: float, row: int) -> None:
    """A line above the frame over the examples that failed, which come last."""
    if failed:
        axes.plot([n + 0.5 - failed * n, n + 0.5], [1.02 + 0.025 * row] * 2, color=how.color, linewidth=2.5,
            transform=axes.get_xaxis_transform(), clip_on=False, solid_capstyle="butt")  # fmt: skip


@dataclass(frozen=True)
class Pairs:
    """One method's losses and the baseline's, paired."""

    name: str
    look: Look
    loss: np.ndarray  # (p,)
    baseline: np.ndarray  # (p,)
    outcome: np.ndarray  # (p,) −1 the method is better, 0 tied, 1 worse


def scatter_figure(
    pairs: Sequence[Pairs], baseline: str, baseline_look: Look, loss_initial: np.ndarray, *, loss_label: str = "loss"
) -> Figure:
    """Each method's loss against the baseline's, a panel a method; failures are on the frame's upper and right edge."""
    everything = [v for p in pairs for v in (p.loss, p.baseline)]
    floor = least_shown(loss_initial, *everything)
    low, high = log_range(*(np.maximum(v, floor) for v in everything), margin=2)
    across = 1 if len(pairs) == 1 else 2
    down = math.ceil(len(pairs) / across)
    with drawing(WIDTH, (4.2 if across == 1 else 2.45) * down + 0.5) as figure:
        panels = figure.subplots(down, across, squeeze=False)
        for axes in panels.flat[len(pairs) :]:
            axes.remove()
        for axes, some in zip(panels.flat, pairs, strict=False):
            _pairs(axes, some, baseline_look, floor, (low, high))
            axes.set_ylabel(f"{loss_label} of {plain(some.name, 20)}")
            axes.set_xlabel(f"{loss_label} of {plain(baseline, 20)}")
        explain(figure, _meanings(pairs, baseline, baseline_look))
    return figure


def _pairs(axes: Axes, pairs: Pairs, baseline_look: Look, floor: float, limits: tuple[float, float]) -> None:
    low, high = limits
    log_axis(axes, "x", low, high, 4)
    log_axis(axes, "y", low, high, 4)
    ends = np.array(limits)
    axes.fill_between(ends, 0.99 * ends, ends / 0.99, color=PALE, linewidth=0.8, edgecolor=PALE, zorder=0)
    stride = -(-len(pairs.loss) // _MOST)
    mine, theirs, outcome = (v[::stride] for v in (pairs.loss, pairs.baseline, pairs.outcome))
    failed = ~np.isfinite(mine) | ~np.isfinite(theirs)
    y, x = (np.where(np.isfinite(v), np.clip(v, floor, high), high) for v in (mine, theirs))
    alpha = 0.75 if len(x) <= 500 else 0.4 if len(x) <= MANY else 0.15
    size = 4.5 if len(x) <= 500 else 2.8
    for code, color, marker in ((0, GREY, "o"), (1, baseline_look.color, baseline_look.marker),
                                (-1, pairs.look.color, pairs.look.marker)):  # fmt: skip
        some, part = (outcome == code) & ~failed, 1.0 if code else 0.6
        axes.plot(x[some], y[some], color=color, marker=marker, linestyle="none", markersize=size * part, alpha=alpha,
            markeredgewidth=0, rasterized=len(x) > MANY)  # fmt: skip
    for some, color, marker in (
        (failed & np.isfinite(theirs), baseline_look.color, "^"),
        (failed & np.isfinite(mine), pairs.look.color, ">"),
        (~np.isfinite(mine) & ~np.isfinite(theirs), GREY, "X"),
    ):
        if not some.any():  # what is empty and not clipped takes up all the room
            continue
        axes.plot(x[some], y[some], color=color, marker=marker, linestyle="none", markersize=6,
            alpha=max(alpha, 0.4), markeredgewidth=0, clip_on=False, zorder=4, rasterized=len(x) > MANY)  # fmt: skip
    better, tied, worse = (int((pairs.outcome == code).sum()) for code in (-1, 0, 1))
    count = str if len(pairs.loss) < 10_000 else lambda k: share(k / len(pairs.loss))
    title = axes.set_title(f"{count(better)} better, {count(tied)} tied, {count(worse)} worse", fontsize=SMALL - 0.5)
    title.set_in_layout(False)  # else a long one would narrow the panel
    open_frame(axes)


def _meanings(pairs: Sequence[Pairs], baseline: str, baseline_look: Look) -> list[Line2D]:
    """Handles of a legend: who is the better where, and what failed."""

    def handle(label: str, color: str, marker: str) -> Line2D:
        return Line2D(
            [], [], color=color, marker=marker, linestyle="none", markersize=5, markeredgewidth=0, label=label
        )

    handles = [handle(f"{plain(p.name)} better", p.look.color, p.look.marker) for p in pairs]
    handles.append(handle(f"{plain(baseline)} better", baseline_look.color, baseline_look.marker))
    if any((p.outcome == 0).any() for p in pairs):
        handles.append(handle("tied", GREY, "o"))
    if any((~np.isfinite(p.loss) & np.isfinite(p.baseline)).any() for p in pairs):
        handles.append(handle("method failed", baseline_look.color, "^"))
    if any((~np.isfinite(p.baseline) & np.isfinite(p.loss)).any() for p in pairs):
        handles.append(handle(f"{plain(baseline)} failed", GREY, ">"))
    if any((~np.isfinite(p.baseline) & ~np.isfinite(p.loss)).any() for p in pairs):
        handles.append(handle("both failed", GREY, "X"))
    return handles
