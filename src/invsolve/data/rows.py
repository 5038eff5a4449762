"""Tables of rows as text (CSV, RFC 4180), for other programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from invsolve.data.files import written_aside


def write_rows(path: Path, rows: Iterable[tuple[Any, ...]], overwrite: bool) -> None:
    """Write the rows, the first of which is the header, as a file: all of them or none.

    Raises:
        OutputError: see `written_aside`.
    """
    with written_aside(path, overwrite) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        print_rows(file, rows)


def print_rows(file: TextIO, rows: Iterable[tuple[Any, ...]]) -> None:
    """The same to an open file; numbers read back as what they were."""
    csv.writer(file, lineterminator="\n").writerows(rows)
