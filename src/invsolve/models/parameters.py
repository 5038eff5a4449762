"""The components of x: their names, units, bounds, scales and priors."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

_strict = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_strict)
class Uniform:
    """Uniform distribution on [low, high]."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, found [{self.low}, {self.high}]")
        return self

    @property
    def spread(self) -> float:
        """Half of the width."""
        return (self.high - self.low) / 2

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws, (n,) float64."""
        return self.low + (self.high - self.low) * torch.rand(n, dtype=torch.float64, generator=generator)


@dataclass(frozen=True, config=_strict)
class Normal:
    """Gaussian distribution."""

    mean: float
    std: float

    @model_validator(mode="after")
    def _positive(self) -> Normal:
        if not self.std > 0:
            raise ValueError(f"std must be > 0, found {self.std}")
        return self

    @property
    def spread(self) -> float:
        """The standard deviation."""
        return self.std

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws, (n,) float64."""
        return self.mean + self.std * torch.randn(n, dtype=torch.float64, generator=generator)


@dataclass(frozen=True, config=_strict)
class Parameter:
    """One component of x.

    `initial` is the guess that solvers start from. With `scale="log"` they work on log(x); x, bounds and `initial`
    must then be positive. `prior` is what `generate` draws from.

    Raises:
        ValueError: bounds the wrong way round, `initial` outside of them, or a log scale that admits x ≤ 0.
    """

    name: str
    unit: str = ""
    lower: float = -math.inf
    upper: float = math.inf
    scale: Literal["linear", "log"] = "linear"
    initial: float = 0.0
    prior: Uniform | Normal | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Parameter:
        if not self.lower < self.upper:
            raise ValueError(f"parameter '{self.name}': bounds [{self.lower}, {self.upper}] are the wrong way round")
        if not self.lower <= self.initial <= self.upper:
            raise ValueError(
                f"parameter '{self.name}': initial {self.initial} is outside its bounds [{self.lower}, {self.upper}]"
            )
        if self.scale == "log" and not (self.lower >= 0 and self.initial > 0):
            raise ValueError(f"parameter '{self.name}': a log scale needs lower ≥ 0 and initial > 0")
        return self

    @property
    def typical(self) -> float:
        """A change of this parameter that matters (of its logarithm where `scale="log"`): the unit of solvers' steps.

        The spread of the prior, else half of the range between two finite bounds, else 1.
        """
        if self.scale == "log":
            return 1.0
        if self.prior is not None:
            return self.prior.spread
        if math.isfinite(self.lower) and math.isfinite(self.upper):
            return (self.upper - self.lower) / 2
        return 1.0
