"""A picture with its words, whatever it is for: a page, a folder of figures, a single file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn when it is asked for."""

    name: str  # of a file, and of a place on a page: lower case with hyphens
    title: str
    caption: str  # how to read it, and what it shows here: a sentence or two
    draw: Callable[[], Figure]
