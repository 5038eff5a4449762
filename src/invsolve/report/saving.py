"""Pictures into a folder, each as SVG and as PNG; matplotlib is asked for only where pictures are."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invsolve.data.files import check_writable, written_aside
from invsolve.errors import OptionError, OutputError, first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("svg", "png")
_DPI = 150


def check_figures(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """See before any work that pictures of these names can be drawn and written; the folder is made.

    Raises:
        OptionError: matplotlib is not installed.
        OutputError: the folder cannot be made, or holds such pictures already, which must not be overwritten.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError("figures need matplotlib, which is not installed: pip install 'invsolve[report]'")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} for figures: {first_line(error)}; choose another place") from None
    for name in names:
        for path in _paths(folder, name):
            check_writable(path, overwrite)


def save_figure(figure: Figure, folder: Path, name: str, overwrite: bool) -> list[Path]:
    """Write a picture as NAME.svg and NAME.png; the same picture gives the same bytes."""
    import matplotlib

    paths = _paths(folder, name)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        for path in paths:
            with written_aside(path, overwrite) as aside:
                figure.savefig(
                    aside,
                    format=path.suffix[1:],
                    dpi=_DPI,
                    facecolor="white",
                    metadata={"Date": None} if path.suffix == ".svg" else None,
                )
    return paths


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.{kind}" for kind in KINDS]
