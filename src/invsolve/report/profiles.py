"""How many examples each method solves, by what it may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from invsolve.report.style import PALE, WIDTH, drawing, explain, log_axis, look, open_frame, plain


@dataclass(frozen=True)
class Profile:
    """Shares of examples that are solved, of each method, against what that may cost."""

    at: np.ndarray  # (p,) > 0, ascending
    solved: Mapping[str, np.ndarray]  # (p,) each, from 0 to 1
    label: str  # of the costs


def profiles_figure(profiles: Sequence[Profile]) -> Figure:
    """A panel for each profile, one below the other, all of the same methods."""
    with drawing(WIDTH, 2.35 * len(profiles) + 0.5) as figure:
        panels = figure.subplots(len(profiles), 1, squeeze=False)
        for axes, profile in zip(panels.flat, profiles, strict=True):
            _profile(axes, profile)
        handles = [
            Line2D([], [], **look(i).stroke, marker=look(i).marker, markersize=4.5, linewidth=1.8, label=plain(name))
            for i, name in enumerate(profiles[0].solved)
        ]
        explain(figure, handles)
    return figure


def _profile(axes: Axes, profile: Profile) -> None:
    low, high = float(profile.at[0]), float(profile.at[-1])
    high = max(high, 1.5 * low)
    before, beyond = low / (high / low) ** 0.03, high * (high / low) ** 0.03
    for i, (name, solved) in enumerate(profile.solved.items()):
        # A step begins at the costs themselves: less solves less.
        at = np.concatenate([[before], profile.at, [beyond]])
        shares = np.concatenate([[0.0], solved, solved[-1:]])
        every = (2 + 3 * i % 7, max(1, len(at) // 6))
        axes.plot(at, shares, **look(i).stroke, drawstyle="steps-post", linewidth=1.8, label=name, clip_on=False,
            marker=look(i).marker, markersize=4.5, markevery=every, zorder=3 + 0.01 * i)  # fmt: skip
    log_axis(axes, "x", before, beyond)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.set_xlabel(profile.label)
    axes.set_ylabel("solved")
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    open_frame(axes)
