"""The coordinates z that solvers work in, and the way to the user's x and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.models.parameters import Parameter

FEW_UNNAMED = 9
"""Unknowns without names, up to which each has a unit of its own: curves have no more. More are a field, whose values
share a unit however small some of them are."""


class Coordinates:
    """x = s·z, or x = exp(s·z) for parameters on a log scale, with s the parameter's typical change.

    A step of length one is then a step that matters, for every parameter and whatever its unit. x and z are flat,
    (b, d). Bounds are kept: z within [lower, upper] gives x within the parameters' bounds to the last bit. Where the
    components of x have no names, x = z.
    """

    def __init__(self, parameters: Sequence[Parameter], d: int, device: torch.device, dtype: torch.dtype) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device, dtype=dtype)

        if parameters:
            self.scale = column([p.typical for p in parameters])
            self.is_log = torch.tensor([p.scale == "log" for p in parameters], device=device)
            self.x_lower = column([p.lower for p in parameters])
            self.x_upper = column([p.upper for p in parameters])
        else:
            # Views of one number: there may be millions of components.
            self.scale = column([1.0]).expand(d)
            self.is_log = torch.tensor([False], device=device).expand(d)
            self.x_lower, self.x_upper = column([-torch.inf]).expand(d), column([torch.inf]).expand(d)
        self._any_log = bool(self.is_log.any())
        self.lower = self.to_solver(self.x_lower) if parameters else self.x_lower
        self.upper = self.to_solver(self.x_upper) if parameters else self.x_upper
        self.bounded = bool(torch.isfinite(self.lower).any() or torch.isfinite(self.upper).any())

    def to_solver(self, x: Tensor) -> Tensor:
        """z (b, d) of x (b, d)."""
        if self._any_log:
            x = torch.where(self.is_log, torch.where(self.is_log, x, 1.0).log(), x)
        return x / self.scale

    def to_user(self, z: Tensor) -> Tensor:
        """x (b, d) of z (b, d), inside the bounds."""
        x = z * self.scale
        if self._any_log:
            x = torch.where(self.is_log, torch.where(self.is_log, x, 0.0).exp(), x)
        if not self.bounded:
            return x
        # On a bound to the last bit, which rounding in the scale would miss, so that it is seen as active.
        x = torch.where(z <= self.lower, self.x_lower, x)
        x = torch.where(z >= self.upper, self.x_upper, x)
        return x.clamp(self.x_lower, self.x_upper)

    def within(self, lower: Tensor, upper: Tensor) -> Coordinates:
        """The same with bounds of z that are no wider than these, (d,) each."""
        narrower = copy.copy(self)
        narrower.lower, narrower.upper = torch.maximum(self.lower, lower), torch.minimum(self.upper, upper)
        narrower.x_lower, narrower.x_upper = self.to_user(narrower.lower), self.to_user(narrower.upper)
        narrower.bounded = True
        return narrower

    def slope(self, x: Tensor) -> Tensor:
        """∂x/∂z at x (b, d), by which ∂L/∂x becomes ∂L/∂z: (b, d), or (d,) where it is the same everywhere."""
        return torch.where(self.is_log, self.scale * x, self.scale) if self._any_log else self.scale


def projected(gradient: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The gradient (b, d) without components that push x (b, d) out of an active bound; zero at a bounded minimum."""
    outward = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))
    return gradient.masked_fill(outward, 0.0)
