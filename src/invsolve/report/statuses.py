"""How the work on the examples ended, as stacked bars."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from invsolve.report.style import (
    AMBER,
    BLUE,
    ORANGE,
    PALE,
    PAPER,
    SKY,
    SMALL,
    WIDTH,
    drawing,
    explain,
    open_frame,
    plain,
)

_LOOKS = {  # colour and hatching
    "converged": (BLUE, ""),
    "budget": (AMBER, "//"),
    "stalled": (SKY, ".."),
    "nonfinite": (ORANGE, "xx"),
    "not_run": (PALE, ""),
}


def status_figure(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Shares of the examples in each status, a bar a method, with the counts beside it."""
    met = [status for status in _LOOKS if any(of_one.get(status) for of_one in counts.values())]
    with drawing(WIDTH, 0.62 * len(counts) + 0.95) as figure:
        axes = figure.add_subplot()
        for i, of_one in enumerate(counts.values()):
            total, left = max(sum(of_one.values()), 1), 0.0
            for status in met:
                part = of_one.get(status, 0) / total
                color, hatch = _LOOKS[status]
                axes.barh(i, part, 0.45, left=left, color=color, hatch=hatch, edgecolor=PAPER, linewidth=0.6)
                left += part
            axes.text(0, i + 0.27, counted(of_one), fontsize=SMALL - 0.5, va="top")
        axes.set_yticks(np.arange(len(counts)), [plain(name) for name in counts])
        axes.set_ylim(len(counts) - 0.3, -0.4)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axes.tick_params(axis="y", length=0)
        open_frame(axes)
        axes.spines["left"].set_visible(False)
        handles = [
            Patch(facecolor=_LOOKS[s][0], hatch=_LOOKS[s][1], edgecolor=PAPER, label=s.replace("_", " ")) for s in met
        ]
        explain(figure, handles, len(_LOOKS))
    return figure


def counted(counts: Mapping[str, int]) -> str:
    """Those that there are, in words."""
    return ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in _LOOKS if counts.get(s))
