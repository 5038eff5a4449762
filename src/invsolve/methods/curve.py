"""How a training went: a bounded record of what was measured by so many evaluations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from invsolve.checkpoints import State
from invsolve.crew import ALONE, Crew

POINTS = 100  # of a stage, at most


class Curve:
    """Medians of measured values, at most `POINTS` of them, each with the evaluations per example so far.

    Args:
        measured: the name of what is measured.
        expected: how many times `add` will be called, at most; so many calls are one point that `POINTS` suffice.
        crew: those who measure together; a member's values are NaN where another one measures.
    """

    def __init__(self, measured: str, expected: int, crew: Crew = ALONE) -> None:
        self.crew = crew
        self.measured, self.together = measured, max(1, math.ceil(expected / POINTS))
        self._open: list[Tensor] = []
        self._calls = 0  # of `add`, that are open
        self._points: list[tuple[float, Tensor]] = []
        self._evaluations = 0.0

    def add(self, evaluations: float, values: Tensor) -> None:
        """Values (b,), NaN where there is none, after so many evaluations per example. All members call it alike."""
        self._open.append(values)
        self._evaluations, self._calls = evaluations, self._calls + 1
        if self._calls == self.together:
            self._close()

    def _close(self) -> None:
        self._points.append((self._evaluations, self._together().nanmedian()))
        self._open, self._calls = [], 0

    def state(self) -> State:
        """The points and what is open, as measured; for `restore`."""
        medians = [value.cpu() for _, value in self._points]
        return {
            "together": self.together,
            "calls": self._calls,
            "reached": self._evaluations,
            "evaluations": [count for count, _ in self._points],
            **({"medians": torch.stack(medians)} if medians else {}),
            **({"open": self._together()} if self._open else {}),
        }

    def restore(self, state: State) -> None:
        """Go on where a curve of this state was."""
        self.together, self._calls, self._evaluations = state["together"], state["calls"], state["reached"]
        self._points = list(zip(state["evaluations"], state.get("medians", ()), strict=True))
        self._open = [state["open"]] if "open" in state else []

    def _together(self) -> Tensor:
        """What is open; what was restored is on the CPU."""
        values = torch.cat([values.to(self._open[-1].device) for values in self._open])
        if self.crew.size == 1:
            return values
        # Of a place whose value another member has, or nobody, NaN stands here; that is to be more than any value.
        infinite = torch.finfo(values.dtype).max
        least = self.crew.least_(values.nan_to_num(torch.inf, posinf=infinite))
        return least.masked_fill(torch.isinf(least), torch.nan).masked_fill(least == infinite, torch.inf)

    def told(self) -> dict[str, list[Any]]:
        """`evaluations` and what was measured, as JSON values; None where that is not finite."""
        if self._open:
            self._close()
        values = [_rounded(float(value)) for _, value in self._points]
        return {"evaluations": [_rounded(count) for count, _ in self._points], self.measured: values}


def _rounded(value: float) -> float | None:
    """Four digits are enough for a picture, and an attribute of a file holds 64 KB."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
