"""The command that makes a page of finished solutions.

As in cli.py, only the standard library and typer are imported at the top.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invsolve.commands.flags import Model, Overwrite, Quiet
from invsolve.shell import this_command

if TYPE_CHECKING:
    from invsolve.analysis.comparison import Comparison


def report(
    solutions: Annotated[
        list[Path], typer.Argument(metavar="SOLUTION.h5...", help="solutions of one dataset", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="the page to write", show_default=False)],
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="NAME", help="what the others are held against; default: bfgs")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="default: model and methods")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="the pictures there, as SVG, PDF and PNG")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DATA.h5", help="the dataset; default: where it was when solved")
    ] = None,
    model: Model = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make one HTML page of finished solutions: summary, pictures, a table of all examples, provenance."""
    from invsolve import pipeline
    from invsolve.report.page import check_report
    from invsolve.report.pictures import pictures_of
    from invsolve.report.saving import PAPERS, check_figures, save_pictures

    check_report(out, overwrite, [*solutions, *([] if data is None else [data])])
    with contextlib.redirect_stdout(sys.stderr):  # what a model prints
        comparison = pipeline.compare_solutions(solutions, baseline=baseline, least=1, data=data, model=model)
        pictures = pictures_of(comparison)
        if figures is not None:
            check_figures(figures, [picture.name for picture in pictures], overwrite, PAPERS)
        write_page(comparison, out, title=title, overwrite=overwrite, quiet=quiet)
        saved = [] if figures is None else save_pictures(pictures, figures, overwrite)
    if not quiet:
        _tell(out, saved)


def write_page(
    comparison: Comparison, path: Path, *, title: str | None = None, overwrite: bool = False, quiet: bool = False
) -> None:
    """Write the page of a comparison, and say on standard error what it lacks."""
    from invsolve import console
    from invsolve.report.page import write_report
    from invsolve.report.words import missing

    write_report(comparison, path, title=title, overwrite=overwrite, command=this_command())
    for note in [] if quiet else missing(comparison):
        console.say(note)


def _tell(out: Path, saved: list[Path]) -> None:
    from invsolve import console

    console.print_text(f"written to {out} ({out.stat().st_size / 1e6:.2g} MB)")
    for path in saved:
        console.print_text(f"written to {path}")
