"""The pictures of a diagnosis: alignment against k, and slices of the loss."""

from __future__ import annotations

from pathlib import Path

from invsolve.analysis.slices import Slice
from invsolve.diagnosis.result import Diagnosis
from invsolve.report.saving import check_figures, save_figure

NAMES = ("alignment", "lines", "planes")


def check_pictures(folder: Path, overwrite: bool) -> None:
    """See before any work that they can be drawn and written, see `check_figures`."""
    check_figures(folder, NAMES, overwrite)


def save_pictures(diagnosis: Diagnosis, folder: Path, overwrite: bool) -> list[Path]:
    """Write those that there is something to show in; which they are."""
    from invsolve.report.alignment import alignment_figure
    from invsolve.report.landscapes import BEST, ENDS, START, Landscape, Marks, lines_figure, planes_figure

    paths: list[Path] = []
    a, m, model = diagnosis.alignment, diagnosis.minima, diagnosis.model
    if a is not None:
        figure = alignment_figure(
            a.sizes, a.joint, a.spread, a.plain,
            subject=f"{model}: where does the first step point?",
            joint_label=f"joint step (mean ± std of {a.networks} networks)",
            plain_label="negative gradient of each example",
        )  # fmt: skip
        paths += save_figure(figure, folder, "alignment", overwrite)

    best_label = "solution (x_true)" if a is not None and a.reference == "x_true" else "best solution found"

    def landscape(s: Slice) -> Landscape:
        marks = (
            Marks("x0", s.start[None], START),
            Marks(best_label, s.best[None], BEST),
            Marks(f"ends of {m.starts} starts of {m.method}", s.ends, ENDS),
        )
        return Landscape(s.example, s.axes, s.coordinates, s.loss, marks)

    for name, draw, axes in (("lines", lines_figure, 1), ("planes", planes_figure, 2)):
        shown = [landscape(s) for s in diagnosis.slices if len(s.axes) == axes]
        if shown:
            figure = draw(shown, subject=f"{model}: the loss of {len(shown)} of {diagnosis.n} examples")
            paths += save_figure(figure, folder, name, overwrite)
    return paths
