"""The commands that look at something and solve nothing for keeps: a file, a model, a method, a problem.

As in cli.py, only the standard library and typer are imported at the top.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from invsolve.commands.flags import (
    X0,
    AsJson,
    Assign,
    Data,
    Device,
    Identifiers,
    Model,
    ModelAssign,
    Overwrite,
    Quiet,
    Seed,
    Sigma,
    Targets,
    open_dataset,
    refuse,
    refuse_all_but,
)
from invsolve.config import duration_seconds
from invsolve.shell import UNSATISFIED, watched


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.h5", help="dataset, solution, any HDF5 file or a network")],
    as_json: AsJson = False,
) -> None:
    """Show what is in any HDF5 file or saved network, and the command that makes use of it."""
    from invsolve import console
    from invsolve.inspection import inspect_file

    description = inspect_file(file)
    if as_json:
        console.print_json(description)
    else:
        console.show_file(description)


def check(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Argument(metavar="[DATA.h5]", help="dataset file; without one the model simulates its own")
    ] = None,
    model: Model = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="NAME", help="check a registered method instead of a model")
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    option: Assign = None,
    model_option: ModelAssign = None,
    targets: Targets = "targets",
    identifiers: Identifiers = "identifiers",
    x0: X0 = "x0",
    sigma: Sigma = "sigma",
    as_json: AsJson = False,
) -> None:
    """Check a model with a dataset, or a method: shapes, finiteness, gradients, row independence, speed."""
    from invsolve import console
    from invsolve.checks.command import check_model_with
    from invsolve.checks.method import check_method
    from invsolve.options import split_assignments

    with contextlib.redirect_stdout(sys.stderr):
        if method is not None:
            refuse_all_but(ctx, {"method", "option", "as_json"}, "where a method is checked on problems of its own")
            report = check_method(method, split_assignments(option or [], "-O"))
        else:
            refuse(ctx, {"option"}, "without --method")
            if data is None:
                refuse(ctx, {"targets", "identifiers", "x0", "sigma"}, "without DATA.h5")
            dataset = None if data is None else open_dataset(data, targets, identifiers, x0, sigma)
            options = split_assignments(model_option or [], "-M")
            report = check_model_with(dataset, model, options, device, seed)
    if as_json:
        console.print_json(report.to_json())
    else:
        console.show_check(report.to_json())
    if not report.ok:
        raise typer.Exit(UNSATISFIED)


def diagnose(
    data: Data,
    model: Model = None,
    examples: Annotated[int, typer.Option("--examples", metavar="N", help="how many examples to look at")] = 64,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="draw alignment and losses there, as SVG and PNG")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    model_option: ModelAssign = None,
    time_limit: Annotated[
        str, typer.Option("--time-limit", metavar="TIME", help="about; where F is slow, fewer examples are looked at")
    ] = "90s",
    targets: Targets = "targets",
    identifiers: Identifiers = "identifiers",
    x0: X0 = "x0",
    sigma: Sigma = "sigma",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tell whether JPO, more starts or BFGS alone suits DATA.h5: minima, zero gradients, where joint steps point."""
    from invsolve import console
    from invsolve.diagnosis import pictures
    from invsolve.diagnosis.diagnose import diagnose
    from invsolve.options import split_assignments

    if figures is not None:
        pictures.check_pictures(figures, overwrite)
    seconds, options = duration_seconds(time_limit), split_assignments(model_option or [], "-M")
    with watched(quiet) as (control, signals):
        found = diagnose(
            open_dataset(data, targets, identifiers, x0, sigma), model, model_options=options, device=device,
            seed=seed, examples=examples, slices=figures is not None, time_limit=seconds, control=control,
        )  # fmt: skip
    drawn = [] if figures is None else pictures.save_pictures(found, figures, overwrite)
    if as_json:
        console.print_json(found.to_json() | {"figures": [str(path) for path in drawn]})
    else:
        console.show_diagnosis(found.to_json(), [str(path) for path in drawn])
    if signals:
        raise typer.Exit(128 + signals[0])
