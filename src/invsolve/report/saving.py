"""Pictures into files: SVG, PDF and PNG, the same bytes for the same picture; matplotlib is asked for only here."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invsolve.data.files import check_writable, written_aside
from invsolve.errors import OptionError, OutputError, first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from invsolve.report.picture import Picture

KINDS = ("svg", "png")
PAPERS = ("svg", "pdf", "png")
DPI = 150
_NO_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": None}


def check_matplotlib() -> None:
    """See that pictures can be drawn.

    Raises:
        OptionError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError("figures need matplotlib, which is not installed: pip install 'invsolve[report]'")


def check_figures(folder: Path, names: Sequence[str], overwrite: bool, kinds: Sequence[str] = KINDS) -> None:
    """See before any work that pictures of these names can be drawn and written; the folder is made.

    Raises:
        OptionError: matplotlib is not installed.
        OutputError: the folder cannot be made, or holds such pictures already, which must not be overwritten.
    """
    check_matplotlib()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} for figures: {first_line(error)}; choose another place") from None
    for name in names:
        for path in _paths(folder, name, kinds):
            check_writable(path, overwrite)


def check_picture(path: Path, overwrite: bool) -> None:
    """See before any work that a picture can be drawn and written as `path`.

    Raises:
        OptionError: matplotlib is not installed, or the name does not end in .svg, .pdf or .png.
        OutputError: see `check_writable`.
    """
    check_matplotlib()
    if path.suffix.lower()[1:] not in PAPERS:
        found = f"'{path.suffix}'" if path.suffix else "none"
        raise OptionError(
            f"a picture's name must end in .svg, .pdf or .png, found {found} in {path}; choose one of them"
        )
    check_writable(path, overwrite)


def save_figure(
    figure: Figure, folder: Path, name: str, overwrite: bool, kinds: Sequence[str] = KINDS, dpi: int = DPI
) -> list[Path]:
    """Write a figure as NAME.svg and NAME.png, or as other kinds of files."""
    paths = _paths(folder, name, kinds)
    for path in paths:
        write_figure(figure, path, overwrite, dpi)
    return paths


def save_pictures(
    pictures: Sequence[Picture], folder: Path, overwrite: bool, kinds: Sequence[str] = PAPERS, dpi: int = DPI
) -> list[Path]:
    """Draw pictures and write each as NAME.svg, NAME.pdf and NAME.png, for papers; see `check_figures`.

    `dpi` is that of PNGs, and in the others of what is drawn as pixels: images, and points where they are many.
    """
    return [path for p in pictures for path in save_figure(p.draw(), folder, p.name, overwrite, kinds, dpi)]


def write_figure(figure: Figure, path: Path, overwrite: bool, dpi: int = DPI) -> None:
    """Write a figure as the kind of file that the name ends in; the same figure gives the same bytes."""
    import matplotlib

    kind = path.suffix[1:].lower()
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"svg.hashsalt": path.stem}),
        written_aside(path, overwrite) as to,
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of names; a box stands in its place
        figure.savefig(to, format=kind, dpi=dpi, facecolor="white", metadata=_NO_DATES[kind])


def _paths(folder: Path, name: str, kinds: Sequence[str]) -> list[Path]:
    return [folder / f"{name}.{kind}" for kind in kinds]
