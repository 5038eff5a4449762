"""The figures of a report, all drawn by the package: an example, the loss around its solutions, loss against
evaluations, what is gained by n, and where joint steps point.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.paper.experiments import BASELINE, CONTESTANTS
from benchmarks.paper.report import Point, Report
from benchmarks.paper.shown import X0, beginning, comparison_of, kept, telling
from matplotlib.figure import Figure

from invsolve.report.alignment import alignment_figure
from invsolve.report.growth import Growth, growth_figure
from invsolve.report.picture import Picture
from invsolve.report.pictures import MAKERS
from invsolve.report.saving import save_figure


def draw_all(report: Report, folder: Path) -> Iterator[Path]:
    """Draw what there are results of, as PNG and SVG; tells the files."""
    for model in report.plan.models:
        for name, figure in figures_of(report, model):
            yield from save_figure(figure, folder, f"{model}-{name}", overwrite=True)


def figures_of(report: Report, model: str) -> Iterator[tuple[str, Figure]]:
    """Each with its name."""
    yield from pictures(report, model)
    for name, draw in (("gain", gain), ("alignment", alignment)):
        figure = draw(report, model)
        if figure is not None:
            yield name, figure


def pictures(report: Report, model: str) -> Iterator[tuple[str, Figure]]:
    """An example with what F gives at x0 and at solutions of it, the loss around these, and curves of all examples."""
    if (found := kept(report, model)) is None:
        return
    solutions, source = found
    chosen = telling(solutions, source)
    jpo = CONTESTANTS["jpo"].label
    example = {X0: beginning(solutions[BASELINE]), BASELINE: solutions[BASELINE], jpo: solutions[jpo]}
    for name, make, shown in (
        ("example", "gallery", example),
        ("landscape", "landscape", solutions),
        ("curves", "curves", solutions),
    ):
        picture = MAKERS[make](comparison_of(shown, source), chosen)
        if isinstance(picture, Picture):
            yield name, picture.draw()


def gain(report: Report, model: str) -> Figure | None:
    """Shares better than the baseline, shares solved, and evaluations against n, of the seeds that are complete."""
    seeds, sizes = report.whole_seeds(model), report.plan.sizes_of(model)
    if not seeds:
        return None
    points = {c.label: [report.point(model, n, who, seeds) for n in sizes] for who, c in CONTESTANTS.items()}

    def over_sizes(label: str, name: str) -> np.ndarray:
        return np.array([np.atleast_1d(getattr(p, name)) for p in points[label] if isinstance(p, Point)])

    labels = list(points)
    panels = [
        Growth(
            f"better than {BASELINE}", {label: over_sizes(label, "better") for label in labels if label != BASELINE}
        ),
        Growth("solved", {label: over_sizes(label, "solved") for label in labels}),
        Growth("evaluations", {label: over_sizes(label, "evaluations") for label in labels}, is_share=False),
    ]
    return growth_figure(sizes, panels, labels, label="examples solved together, n")


def alignment(report: Report, model: str) -> Figure | None:
    """Cosine of a joint step with the way to x_true, against the examples that make it."""
    result = report.store.done(report.plan.alignment(model))
    if result is None or result.alignment is None:
        return None
    a = result.alignment
    return alignment_figure(
        a["sizes"], a["joint"], a["spread"], a["plain"],
        subject=f"{model}: where does the first step point?",
        joint_label=f"joint step (mean ± std of {a['networks']} networks)",
        plain_label="negative gradient of each example",
    )  # fmt: skip
