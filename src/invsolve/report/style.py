"""How all pictures look: colours, marks, frames, axes with few ticks, and text that may come from anywhere.

Series have the colours of Okabe and Ito, and maps are cividis, which the colour-blind tell apart; every series also has
a mark and a line of its own. All colours that appear are those of `PALETTE`, so that a page can put its themes in
their place. Pictures for pages are 5 inches wide: their text can then be read on a phone, and in a column of a paper.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

BLUE, ORANGE, GREEN, PINK, SKY, AMBER = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
INK, GREY, PALE, PAPER = "#24292f", "#6e7781", "#d0d7de", "#ffffff"
PALETTE = {
    "blue": BLUE, "orange": ORANGE, "green": GREEN, "pink": PINK, "sky": SKY, "amber": AMBER,
    "ink": INK, "grey": GREY, "pale": PALE, "paper": PAPER,
}  # fmt: skip
"""Every colour of every picture; "paper" is what lies behind, and fills hollow marks."""

WIDTH = 4.8  # inches of a figure
MAP = "cividis"
SMALL = 9.0  # points
_STYLE: Any = {
    "font.size": 10.0,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
}
_HANDLE, _CHARACTER = 0.55, 0.068  # inches of a legend's column beside its text, and of a character
_LONGEST = 28  # characters of a name in a picture
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Look:
    """What tells one series from the others."""

    color: str
    marker: str
    line: Any  # matplotlib's line style

    @property
    def mark(self) -> dict[str, Any]:
        """Of points without a line."""
        return {"color": self.color, "marker": self.marker, "linestyle": "none"}

    @property
    def stroke(self) -> dict[str, Any]:
        """Of lines without marks."""
        return {"color": self.color, "linestyle": self.line}


_COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, INK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LINES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (2, 1)), (0, (8, 1, 1, 1, 1, 1)))


def look(i: int) -> Look:
    """Of series i; the first 315 differ."""
    return Look(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, whose parts are made in our style."""
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def open_frame(axes: Axes) -> None:
    """No lines at the top and on the right; ticks keep their colours when more of them are made later."""
    axes.spines[["top", "right"]].set_visible(False)
    keep_ticks(axes)


def keep_ticks(axes: Axes) -> None:
    """Ticks that matplotlib makes only when it draws have the colours of those that are there."""
    axes.tick_params(which="both", color=GREY, labelcolor=INK, labelsize=SMALL)


def explain(
    figure: Figure,
    handles: Sequence[Artist],
    across: int = 4,
    loc: Literal["outside upper left", "outside lower center"] = "outside upper left",
    size: float = SMALL,
) -> None:
    """What the marks mean, beside all panels, so that it never covers any, in as many columns as there is room for."""
    lengths = [len(str(handle.get_label())) for handle in handles]

    def width(columns: int) -> float:
        return float(
            sum(_HANDLE + _CHARACTER * size / SMALL * max(column) for column in np.array_split(lengths, columns))
        )

    fitting = [k for k in range(1, min(across, len(handles)) + 1) if k == 1 or width(k) <= figure.get_figwidth()]
    if handles:
        figure.legend(
            handles=handles, loc=loc, fontsize=size, ncols=fitting[-1], handlelength=2.2, columnspacing=1.4,
            borderaxespad=0.2,
        )  # fmt: skip


def plain(text: object, longest: int = _LONGEST) -> str:
    """Text from anywhere, as it is: no formula is read into it, nothing breaks the line, and it has an end."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    if len(words) > longest:
        words = f"{words[: longest // 2]}…{words[-(longest - longest // 2 - 1) :]}"
    return words.replace("$", r"\$")


def number(value: float) -> str:
    """A loss or another number, to three digits."""
    return f"{value:.3g}"


def share(part: float) -> str:
    """A part of 1 in percent, never rounded to all or nothing that it is not."""
    percent = 100 * part
    for digits in (0, 1, 2):
        text = f"{percent:.{digits}f}"
        if (float(text) in (0.0, 100.0)) == (percent in (0.0, 100.0)):
            break
    return f"{text} %"


def log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float, most: int = 7) -> None:
    """Make an axis logarithmic, from `low` to `high` > 0, with `most` ticks at most."""
    ticks = log_ticks(low, high, most)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter(tick_labels(ticks)))
    axis.set_minor_locator(NullLocator())


def linear_ticks(axis: Axis, most: int, *, integer: bool = False) -> None:
    """At most so many ticks of an axis, each with its whole number: none is told apart at the axis' end."""
    axis.set_major_locator(MaxNLocator(most, integer=integer, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _decimal(float(value))))


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Up to `most` ticks in [low, high]: powers of ten, or 1, 2, 5 or 1, 3 of each, or evenly."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 2:
        step = -(-(last - first + 1) // min(most, 6))
        return [float(f"1e{k}") for k in range(first, last + 1) if k % step == 0]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{m}e{k}") for k in range(first - 1, last + 1) for m in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if (2 if steps == (1,) else 3) <= len(inside) <= most:
            return inside
    even = MaxNLocator(min(most, 5) - 1, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Powers of ten where numbers would be long; else as few digits as tell them apart."""
    exponents = [math.log10(tick) for tick in ticks if tick > 0]
    powers = len(exponents) == len(ticks) and all(abs(e - round(e)) < 1e-9 for e in exponents)
    if powers and any(abs(e) > 3.5 for e in exponents):
        return [power(round(e)) for e in exponents]
    return [_decimal(tick) for tick in ticks]


def _decimal(value: float) -> str:
    """A tick as it is written by hand."""
    value = 0.0 if abs(value) < 1e-300 else value
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return np.format_float_positional(value, precision=10, trim="-", fractional=False).replace("-", "−")
    mantissa, _, exponent = f"{value:.6e}".partition("e")
    return f"{float(mantissa):.6g}·{power(int(exponent))}".replace("-", "−")


def power(exponent: int) -> str:
    """10 to an integer."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def log_range(*values: np.ndarray, margin: float = 1.5) -> tuple[float, float]:
    """From the least to the largest of the positive and finite values, and a factor beyond; (0.1, 1) of none."""
    known = np.concatenate([np.ravel(v) for v in values]) if values else np.empty(0)
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        return 0.1, 1.0
    low, high = float(known.min()), float(known.max())
    beyond = max(margin, (high / low) ** 0.04) if high / low < 1e280 else margin
    return max(low / beyond, 1e-307), min(high * beyond, 1e307)
