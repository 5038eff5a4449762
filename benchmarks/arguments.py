"""What the command lines of benchmarks share whose runs are kept."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable


def add_running(parser: argparse.ArgumentParser) -> None:
    """How runs are made, and which of them count: `jobs`, `time_limit`, `retry`, `accept`."""
    add = parser.add_argument
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time; by default one a core")
    add("--time-limit", type=float, default=4 * 3600, help="seconds, after which a run has failed; by default 4 hours")
    add("--retry", action="store_true", help="make failed runs again")
    add("--accept", type=lambda text: text.split(","), default=[], help="codes whose results count as well")


def among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A type of names, with commas between them."""

    def split(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return split


def numbers(least: int) -> Callable[[str], list[int]]:
    """A type of whole numbers from `least` on, with commas between them."""

    def split(text: str) -> list[int]:
        try:
            found = [int(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' are no numbers, such as 16,256") from None
        if min(found) < least:
            raise argparse.ArgumentTypeError(f"{min(found)} is below {least}")
        return found

    return split
