"""Figures of a report: solved against evaluations, a page a problem; and the share improved over bfgs against n."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from benchmarks.quality.problems import PROBLEMS, Goal
from benchmarks.quality.report import BASELINE, Report
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.ticker import NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

INK, FAINT = "#24292f", "#d8dee4"
# Okabe and Ito's colours, told apart by colour-blind people, with two of Tol's; markers tell them apart in print.
STYLES = {
    "bfgs": ("#000000", "o"),
    "lbfgs": ("#8a8a8a", "s"),
    "lm": ("#aa4499", "D"),
    "gd": ("#e69f00", "v"),
    "multistart": ("#0072b2", "^"),
    "jpo": ("#d55e00", "o"),
    "auto": ("#009e73", "s"),
    "supervised": ("#56b4e9", "D"),
    "neural-adjoint": ("#806000", "P"),
}
SPARE = (("#882255", "X"), ("#44aa99", "p"), ("#999933", "h"))  # for methods that come to be
_TICKS = (5, 10, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400)
_STEP = 2.5  # points by which a name moves aside
_OUTSIDE = 50  # what it costs a name to leave its panel, in steps aside
_AROUND = np.array([(i, j) for i in (-5, 0, 5) for j in (-5, 0, 5)])  # pixels of a marker
_HALO = [withStroke(linewidth=2.5, foreground="white")]
_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "invsolve",  # the same figure is the same file
}


@dataclass
class Line:
    """A method in a panel: points, and the range over the seeds at each."""

    method: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def draw_all(report: Report, folder: Path) -> Iterator[Path]:
    """Draw what there are results of, as PNG and SVG; tells the files."""
    with mpl.rc_context(_SETTINGS):
        for problem in report.plan.problems:
            page = solved_page(report, problem)
            if page is not None:
                yield from _save(page, folder / f"solved-{problem}")
        page = improved_page(report)
        if page is not None:
            yield from _save(page, folder / "improved")


def _save(page: Figure, path: Path) -> Iterator[Path]:
    for kind in ("png", "svg"):
        file = path.with_suffix(f".{kind}")
        page.savefig(file, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        yield file


def solved_page(report: Report, problem: str) -> Figure | None:
    """A panel for each n."""
    panels = {}
    for n in report.plan.sizes_of(problem):
        lines = []
        for method in report.plan.methods:
            if points := report.curve(problem, n, method):
                lines.append(Line(method, *zip(*points, strict=True)))
        if lines:
            panels[n] = lines
    if not panels:
        return None
    page, all_axes = _page(len(panels), f"{PROBLEMS[problem].title}: examples solved")
    most = max(max(line.x) for lines in panels.values() for line in lines)
    most = max([most, *(goal.evaluations or 0 for goal in PROBLEMS[problem].goals if goal.n in panels)])
    for axes, (n, lines) in zip(all_axes, panels.items(), strict=True):
        goals = [g for g in PROBLEMS[problem].goals if g.n == n]
        axes.set(title=f"n = {n:,}", xscale="log", xlim=(3.5, most * 5), ylim=(-0.03, 1.06))
        ticks = [t for t in _TICKS if t <= most * 1.1]
        axes.set_xticks(ticks, labels=[f"{t:g}" for t in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        _draw(axes, lines, goals)
        axes.set_xlabel("evaluations of F per example, all included")
    _label_left(all_axes, "examples solved")
    _note(page, report, "Points: budgets of evaluations, the last without. Star: the goal. ")
    return _labelled(page, all_axes, panels.values())


def improved_page(report: Report) -> Figure | None:
    """A panel for each problem."""
    panels = {}
    for problem in report.plan.problems:
        lines = [line for m in report.plan.methods if m != BASELINE if (line := _improved(report, problem, m))]
        if lines:
            panels[problem] = lines
    if not panels:
        return None
    page, all_axes = _page(len(panels), f"Examples improved over {BASELINE}")
    for axes, (problem, lines) in zip(all_axes, panels.items(), strict=True):
        sizes = sorted({n for line in lines for n in line.x})
        axes.set(title=PROBLEMS[problem].title.replace(",", ", "), xscale="log", ylim=(-0.03, 1.03))
        axes.set_xlim(sizes[0] / 1.3, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.45 * 1.6)
        axes.set_xticks(sizes, labels=[f"{n:g}" for n in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        _draw(axes, lines, ())
        _ceiling(axes, report, problem)
        axes.set_xlabel("n, examples solved together")
    _label_left(all_axes, f"share with a loss below {BASELINE}'s")
    _note(page, report, f"Each method at its defaults. Dashed: what {BASELINE} leaves unsolved. ")
    return _labelled(page, all_axes, panels.values())


def _ceiling(axes: Axes, report: Report, problem: str) -> None:
    """What the baseline left unsolved: of the rest there is little to improve."""
    groups = {n: report.group(problem, n, BASELINE) for n in report.plan.sizes_of(problem)}
    points = [(n, 1 - group.solved[0]) for n, group in groups.items() if group is not None]
    axes.plot(*zip(*points, strict=True), color="#57606a", linewidth=1, linestyle=(0, (4, 3)), zorder=4)


def _improved(report: Report, problem: str, method: str) -> Line | None:
    shares = {n: report.shares(problem, n, method)[0] for n in report.plan.sizes_of(problem)}
    known = {n: share for n, share in shares.items() if share}
    if not known:
        return None
    each = list(known.values())
    return Line(method, list(known), [float(np.mean(s)) for s in each], [min(s) for s in each], [max(s) for s in each])


def _page(panels: int, title: str) -> tuple[Figure, list[Axes]]:
    across = panels if panels < 4 else 2 if panels == 4 else 3
    down = math.ceil(panels / across)
    width, height = max(4.1 * across, 6.8), 3.1 * down + 0.75
    page = Figure(figsize=(width, height))
    all_axes = [page.add_subplot(down, across, i + 1) for i in range(panels)]
    page.subplots_adjust(
        left=0.78 / width, right=1 - 0.15 / width, top=1 - 0.75 / height, bottom=0.75 / height, hspace=0.42, wspace=0.16
    )
    page.text(0.12 / width, 1 - 0.12 / height, title, fontsize=13, fontweight="bold", va="top")
    return page, all_axes


def _note(page: Figure, report: Report, what: str) -> None:
    seeds = len(report.plan.seeds)
    text = f"{what}Lines: mean of the {seeds} seeds; bands: least to most." if seeds > 1 else f"{what}One seed."
    width, height = page.get_size_inches()
    page.text(0.12 / width, 0.1 / height, text, fontsize=8, color="#57606a", va="bottom")


def _label_left(all_axes: Sequence[Axes], label: str) -> None:
    for axes in all_axes:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(label)
        else:
            axes.set_yticklabels([])


def _style(method: str, methods: Sequence[str]) -> tuple[str, str]:
    others = [m for m in methods if m not in STYLES]
    return STYLES.get(method) or SPARE[others.index(method) % len(SPARE)]


def _draw(axes: Axes, lines: Sequence[Line], goals: Sequence[Goal]) -> None:
    """Bands below lines, both in the order of the methods; goals as stars."""
    methods = [line.method for line in lines]
    for line in lines:
        colour, marker = _style(line.method, methods)
        if len(line.x) > 1:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        else:  # there is no width for a band
            axes.vlines(line.x, line.low, line.high, color=colour, alpha=0.3, linewidth=4)
        axes.plot(
            line.x, line.y, color=colour, marker=marker, markersize=4.5, linewidth=1.6, markeredgecolor="white",
            markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
    for goal in goals:
        if goal.evaluations and goal.solved and goal.method in methods:
            colour, _ = _style(goal.method, methods)
            axes.plot(goal.evaluations, goal.solved, marker="*", markersize=11, markerfacecolor="white",
                      markeredgecolor=colour, linestyle="none", zorder=4)  # fmt: skip


def _labelled(page: Figure, all_axes: Sequence[Axes], panels: Iterable[Sequence[Line]]) -> Figure:
    """Write each method beside the end of its line, as near as other names, points and lines let it."""
    renderer = FigureCanvasAgg(page).get_renderer()  # type: ignore[no-untyped-call]
    for axes, lines in zip(all_axes, panels, strict=True):
        names: list[Bbox] = []
        methods = [line.method for line in lines]
        drawn = np.concatenate([_pixels(axes, drawing) for drawing in axes.get_lines()])
        for line in sorted(lines, key=lambda line: -line.y[-1]):
            leader = {"arrowstyle": "-", "color": _style(line.method, methods)[0], "linewidth": 0.7, "relpos": (0, 0.5)}
            text = axes.annotate(
                line.method, (line.x[-1], line.y[-1]), xytext=(7, 0), textcoords="offset points",
                color=_style(line.method, methods)[0], fontsize=9, fontweight="bold", va="center", path_effects=_HALO,
                zorder=5, annotation_clip=False, arrowprops=leader,
            )  # fmt: skip
            names.append(_place(text, names, drawn, renderer))
    return page


def _place(text: Annotation, names: Sequence[Bbox], drawn: np.ndarray, renderer: Any) -> Bbox:
    """Move a name up or down to where it covers no other name and the least of what is drawn (p, 2), in pixels."""
    best: tuple[float, int] | None = None
    assert text.axes is not None
    room = text.axes.bbox
    for step in range(-40, 41):
        text.set_position((7, step * _STEP))
        box = _extent(text, renderer)
        if not any(box.overlaps(name) for name in names):
            x, y = drawn.T
            covered = int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
            cost = abs(step) + covered + (0 if room.y0 < box.y0 and box.y1 < room.y1 else _OUTSIDE)
            best = min(best or (np.inf, 0), (cost, step))
    text.set_position((7, (best[1] if best else 0) * _STEP))
    return _extent(text, renderer)


def _extent(text: Annotation, renderer: Any) -> Bbox:
    """Of the name alone, without the leader that an annotation counts in."""
    text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)


def _pixels(axes: Axes, drawing: Line2D) -> np.ndarray:
    """Points (p, 2) along a line, some of them for each of its markers."""
    corners = axes.transData.transform(np.column_stack(drawing.get_data()))
    along = np.linspace(0, len(corners) - 1, 40 * len(corners))
    line = [np.interp(along, np.arange(len(corners)), corners[:, k]) for k in (0, 1)]
    markers = (corners[:, None, :] + _AROUND).reshape(-1, 2)
    return np.concatenate([np.column_stack(line), markers])
