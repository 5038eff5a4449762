"""Alignment of joint steps with the way to the solutions, against the examples that make a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from invsolve.report.style import BLUE, ORANGE, PALE, drawing, open_frame


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
    with drawing(7.2, 4.3) as figure:
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
        axes.legend(loc="best")
        open_frame(axes)
    return figure


def _powers_of_two(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(k) for k in sizes]))
    axes.xaxis.set_major_formatter(FixedFormatter([str(k) for k in sizes]))
    axes.xaxis.set_minor_locator(NullLocator())
