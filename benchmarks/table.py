"""What the benchmarks share: tables in Markdown, of one row a model and seed as it grows, or whole."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch


def run_table(
    title: str, columns: Sequence[str], models: Sequence[str], measure: Callable[[str, int], Sequence[Any]], first: int
) -> None:
    """Measure every model and seed that the command line asks for; `first` is the first seed by default."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("models", nargs="*", default=list(models))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first", type=int, default=first, help="the first seed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="Markdown file to keep the table in")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = _head(columns)
    print("\n".join(lines))
    for name in arguments.models:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            lines.append(_row(measure(name, seed)))
            print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


def as_markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose rows are all there."""
    return "\n".join([*_head(columns), *map(_row, rows)])


def _head(columns: Sequence[str]) -> list[str]:
    return [_row(columns), _row(["---"] * len(columns))]


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
