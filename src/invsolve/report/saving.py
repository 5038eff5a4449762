"""Pictures into a folder, as SVG and PNG, for papers as PDF too; matplotlib is asked for only where pictures are."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invsolve.data.files import check_writable, written_aside
from invsolve.errors import OptionError, OutputError, first_line
from invsolve.report.picture import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("svg", "png")
PAPER_KINDS = ("svg", "pdf", "png")
_DPI = 150
_TIMES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # which would make other bytes of the same picture


def check_figures(folder: Path, names: Sequence[str], overwrite: bool, kinds: Sequence[str] = KINDS) -> None:
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
        for path in _paths(folder, name, kinds):
            check_writable(path, overwrite)


def save_pictures(
    pictures: Sequence[Picture], folder: Path, kinds: Sequence[str] = PAPER_KINDS, *, overwrite: bool = False
) -> list[Path]:
    """Draw and write each picture as NAME.KIND; which files these are."""
    return [path for p in pictures for path in save_figure(p.draw(), folder, p.name, overwrite, kinds)]


def save_figure(figure: Figure, folder: Path, name: str, overwrite: bool, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Write a picture as NAME.KIND of each kind; the same picture gives the same bytes."""
    import matplotlib

    paths = _paths(folder, name, kinds)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        for path in paths:
            with written_aside(path, overwrite) as aside:
                figure.savefig(
                    aside,
                    format=path.suffix[1:],
                    dpi=_DPI,
                    facecolor="white",
                    metadata=_TIMES.get(path.suffix),
                )
    return paths


def _paths(folder: Path, name: str, kinds: Sequence[str]) -> list[Path]:
    return [folder / f"{name}.{kind}" for kind in kinds]
