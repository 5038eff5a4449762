"""The command that draws a single picture of finished solutions.

As in cli.py, only the standard library and typer are imported at the top.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invsolve.commands.flags import Model, Overwrite, Quiet
from invsolve.errors import OptionError, OutputError, nearest

if TYPE_CHECKING:
    from invsolve.analysis.comparison import Comparison

CLOSE = ("gallery", "landscape")  # kinds of single examples
_MOST_DPI = 2400
_MOST_EXAMPLES = 12
_MOST_NAMES = 1000  # among which the nearest is looked for


def plot(
    solutions: Annotated[
        list[Path], typer.Argument(metavar="SOLUTION.h5 ...", help="solutions of one dataset, by one method or several")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="waterfall, scatter, profile, curves, training, status, estimates, gallery or landscape",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="picture to write: .svg, .pdf or .png")],
    example: Annotated[
        list[str] | None,
        typer.Option("--example", metavar="NAME", help="name or number of one to show, repeatable: gallery, landscape"),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="NAME", help="what the others are held against; default: bfgs")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DATA.h5", help="the dataset; default: the file that was solved")
    ] = None,
    model: Model = None,
    dpi: Annotated[
        int, typer.Option("--dpi", metavar="N", help="pixels per inch, of PNG and of images in others")
    ] = 200,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Draw one picture of solutions: losses, profiles, curves, estimates, or single examples."""
    from invsolve import pipeline
    from invsolve.data.files import is_one_of
    from invsolve.report.saving import check_picture, write_figure

    check_picture(out, overwrite)
    if is_one_of(out, [*solutions, *([data] if data else [])]):
        raise OutputError(f"--out {out} is an input; choose another name")
    if not 10 <= dpi <= _MOST_DPI:
        raise OptionError(f"--dpi must be from 10 to {_MOST_DPI}, found {dpi}")
    from invsolve.report.pictures import MAKERS

    if kind not in MAKERS:
        raise OptionError(f"unknown kind '{kind}' of picture; {nearest(kind, MAKERS)}")
    if len(example or []) > _MOST_EXAMPLES:
        raise OptionError(
            f"a picture shows at most {_MOST_EXAMPLES} examples, found {len(example or [])}; draw several"
        )
    if example and kind not in CLOSE:
        raise OptionError(f"--example has no meaning for --kind {kind}, which shows all examples; leave it out")
    comparison = pipeline.compare_solutions(solutions, baseline=baseline, least=1, data=data, model=model)
    picture = MAKERS[kind](comparison, [_number_of(comparison, name) for name in example or []])
    if isinstance(picture, str):
        raise OptionError(f"no {kind} to draw: {picture}")
    write_figure(picture.draw(), out, overwrite, dpi)
    if not quiet:
        print(f"{picture.caption}\nwritten to {out}")


def _number_of(comparison: Comparison, name: str) -> int:
    """Which example is called so, by its name or else its number from 0."""
    names = [str(v) for v in comparison.solutions[comparison.baseline].example.tolist()]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    numbered = names == [str(i) for i in range(len(names))]
    hint = f"they are numbered from 0 to {len(names) - 1}" if numbered else nearest(name, names[:_MOST_NAMES])
    raise OptionError(f"there is no example '{name}'; {hint}")
