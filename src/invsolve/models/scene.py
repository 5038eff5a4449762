"""What a model that draws its examples itself is given to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scene:
    """One example and one solution of it, in float64.

    The colours are all that a drawing may use, alone or with an alpha: pages put those of their themes in their place.
    """

    x: np.ndarray  # (*x_shape)
    y: np.ndarray  # (*y_shape) F(x), NaN where F fails
    target: np.ndarray  # (*y_shape), NaN where nothing was observed
    identifiers: np.ndarray | Mapping[str, np.ndarray] | None  # (*γ_shape), or each of a dict
    color: str  # of the method whose solution it is
    ink: str  # of lines and text
    grey: str  # of what is beside the point
    pale: str  # of areas
    paper: str  # of what lies behind everything
