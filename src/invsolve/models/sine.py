"""A sine: every place where it has the measured height is a solution."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.options import Options as BaseOptions


class Sine(ForwardModel):
    """Argument x of a sine, y = sin(frequency·x), the smallest problem with many solutions.

    Identifiers γ are what x was drawn from, x = 10γ. F does not use them: a network that learns from all examples can.
    """

    class Options(BaseOptions):
        frequency: float = Field(2.0, gt=0, description="in rad per unit of x")

    options: Options

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("x"),)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def identifier_shape(self) -> tuple[int, ...]:
        return (1,)

    def draw_identifiers(self, n: int, generator: torch.Generator) -> Tensor:
        """γ ~ U(−1, 1), (n, 1)."""
        return 2 * torch.rand(n, 1, dtype=torch.float64, generator=generator) - 1

    def draw_parameters(self, n: int, identifiers: Identifiers, generator: torch.Generator) -> Tensor:
        """x = 10γ, (n, 1)."""
        assert isinstance(identifiers, Tensor)
        return 10 * identifiers

    def forward(self, x: Tensor, identifiers: Identifiers = None) -> Tensor:
        """y (b, 1) from x (b, 1)."""
        return torch.sin(self.options.frequency * x)
