"""The command line `invsolve`, put together from its commands.

Only the standard library and typer are imported at the top, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from invsolve._version import __version__
from invsolve.commands import comparing, generating, listing, looking, plotting, reporting, solving
from invsolve.shell import run_command_line

app = typer.Typer(
    name="invsolve",
    help="Solve batches of inverse problems with differentiable forward models.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(solving.solve)
app.command()(solving.predict)
app.command()(comparing.compare)
app.command()(reporting.report)
app.command()(plotting.plot)
app.command()(generating.generate)
app.command()(looking.inspect)
app.command()(looking.check)
app.command()(looking.diagnose)
app.add_typer(listing.models_app, name="models")
app.add_typer(listing.methods_app, name="methods")


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(f"invsolve {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main() -> NoReturn:
    """The program `invsolve`."""
    run_command_line(app)
