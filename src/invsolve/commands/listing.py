"""The commands that list models and methods, tell what one of them takes, and begin a new model.

As in cli.py, only the standard library and typer are imported at the top.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from invsolve.commands.flags import (
    ModelAssign,
    Overwrite,
)

models_app = typer.Typer(help="List the forward models; `models show NAME` tells one's parameters and options.")
methods_app = typer.Typer(help="List the methods; `methods show NAME` tells one's options.")


@models_app.callback(invoke_without_command=True)
def _models(ctx: typer.Context) -> None:
    _list_entries(ctx, "models")


@models_app.command("show")
def _show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="registered name, file.py:F or package.module:F")],
    model_option: ModelAssign = None,
) -> None:
    """Show a model's parameters and options."""
    from invsolve import console
    from invsolve.inspection import describe_model
    from invsolve.options import split_assignments

    console.show_entry(describe_model(name, split_assignments(model_option or [], "-M")))


@models_app.command("new")
def _new_model(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="where to write the model")],
    overwrite: Overwrite = False,
) -> None:
    """Write a short commented model that runs as it is, to start from."""
    from invsolve import console, inspection

    console.print_text(inspection.write_new_model(file, overwrite))


@methods_app.callback(invoke_without_command=True)
def _methods(ctx: typer.Context) -> None:
    _list_entries(ctx, "methods")


@methods_app.command("show")
def _show_method(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Show a method's options."""
    from invsolve import console
    from invsolve.inspection import describe_method

    console.show_entry(describe_method(name))


def _list_entries(ctx: typer.Context, kind: str) -> None:
    if ctx.invoked_subcommand is None:
        from invsolve import console
        from invsolve.inspection import list_entries

        console.show_entries(kind, list_entries(kind))
