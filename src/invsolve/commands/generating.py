"""The command that simulates a dataset.

As in cli.py, only the standard library and typer are imported at the top.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from invsolve.commands.flags import (
    ModelAssign,
    Overwrite,
    Seed,
)


def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="registered name, file.py:F or package.module:F")],
    n: Annotated[int, typer.Option("--n", metavar="N", help="number of examples")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="dataset file to write")],
    noise: Annotated[
        float | None, typer.Option("--noise", metavar="S", help="standard deviation; default: the model's")
    ] = None,
    seed: Seed = 0,
    model_option: ModelAssign = None,
    overwrite: Overwrite = False,
) -> None:
    """Simulate a dataset whose solutions are known."""
    from invsolve import pipeline
    from invsolve.data.files import check_writable
    from invsolve.data.store import write_dataset
    from invsolve.options import split_assignments

    check_writable(out, overwrite)
    options = split_assignments(model_option or [], "-M")
    with contextlib.redirect_stdout(sys.stderr):
        dataset = pipeline.generate(model, n, noise=noise, seed=seed, model_options=options)
    write_dataset(out, dataset, overwrite=overwrite)
    from invsolve import console

    console.print_text(f"{n} examples of {model} written to {out}")
