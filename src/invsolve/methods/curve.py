"""How a training went: a bounded record of what was measured by so many evaluations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

POINTS = 100  # of a stage, at most


class Curve:
    """Medians of measured values, at most `POINTS` of them, each with the evaluations per example so far.

    Args:
        measured: the name of what is measured.
        expected: how many times `add` will be called, at most; so many calls are one point that `POINTS` suffice.
    """

    def __init__(self, measured: str, expected: int) -> None:
        self.measured, self.together = measured, max(1, math.ceil(expected / POINTS))
        self._open: list[Tensor] = []
        self._points: list[tuple[float, Tensor]] = []
        self._evaluations = 0.0

    def add(self, evaluations: float, values: Tensor) -> None:
        """Values (b,), NaN where there is none, after so many evaluations per example."""
        self._open.append(values)
        self._evaluations = evaluations
        if len(self._open) == self.together:
            self._close()

    def _close(self) -> None:
        self._points.append((self._evaluations, torch.cat(self._open).nanmedian()))
        self._open = []

    def told(self) -> dict[str, list[Any]]:
        """`evaluations` and what was measured, as JSON values; None where that is not finite."""
        if self._open:
            self._close()
        values = [_rounded(float(value)) for _, value in self._points]
        return {"evaluations": [_rounded(count) for count, _ in self._points], self.measured: values}


def _rounded(value: float) -> float | None:
    """Four digits are enough for a picture, and an attribute of a file holds 64 KB."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
