"""The components of x: their names, units, bounds, scales and priors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

_strict = ConfigDict(extra="forbid")
_finite = ConfigDict(extra="forbid", allow_inf_nan=False)
_LEAST_MASS = 1e-3  # of a prior within the bounds: below, draws would be thrown away for ever


@dataclass(frozen=True, config=_finite)
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

    def mass(self, lower: float, upper: float) -> float:
        """Probability of [lower, upper]."""
        return max(0.0, min(upper, self.high) - max(lower, self.low)) / (self.high - self.low)

    def sample(self, n: int, generator: torch.Generator, lower: float, upper: float) -> Tensor:
        """n draws, (n,) float64, from the part within [lower, upper]."""
        low, high = max(self.low, lower), min(self.high, upper)
        return low + (high - low) * torch.rand(n, dtype=torch.float64, generator=generator)


@dataclass(frozen=True, config=_finite)
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

    def mass(self, lower: float, upper: float) -> float:
        """Probability of [lower, upper]."""
        scale = self.std * math.sqrt(2)
        return 0.5 * (math.erf((upper - self.mean) / scale) - math.erf((lower - self.mean) / scale))

    def sample(self, n: int, generator: torch.Generator, lower: float, upper: float) -> Tensor:
        """n draws, (n,) float64, truncated to [lower, upper] by drawing those outside again."""
        x = self.mean + self.std * torch.randn(n, dtype=torch.float64, generator=generator)
        while bool((outside := (x < lower) | (x > upper)).any()):
            again = torch.randn(int(outside.sum()), dtype=torch.float64, generator=generator)
            x[outside] = self.mean + self.std * again
        return x


@dataclass(frozen=True, config=_strict)
class Parameter:
    """One component of x.

    `initial` is the guess that solvers start from. With `scale="log"` they work on log(x); x, bounds and `initial`
    must then be positive. `prior` is what `generate` draws from, within the bounds, and what `--prior` holds solutions
    to: a Gaussian one by a penalty, a uniform one by narrower bounds.

    Raises:
        ValueError: bounds the wrong way round, `initial` or (nearly) all of the prior outside of them, or a log scale
            that admits x ≤ 0.
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
        if "\0" in self.name + self.unit or not (self.name + self.unit).isprintable() or not self.name:
            raise ValueError(f"parameter {self.name!r}: name and unit must be printable text, the name not empty")
        if not self.lower < self.upper:
            raise ValueError(
                f"parameter '{self.name}': bounds [{self.lower}, {self.upper}] are the wrong way round; swap them"
            )
        if not (self.lower <= self.initial <= self.upper and math.isfinite(self.initial)):
            raise ValueError(
                f"parameter '{self.name}': initial {self.initial} is outside its bounds [{self.lower}, {self.upper}]"
            )
        if self.scale == "log" and not (self.lower >= 0 and self.initial > 0):
            raise ValueError(f"parameter '{self.name}': a log scale needs lower ≥ 0 and initial > 0")
        if self.prior is not None and self.prior.mass(self.lower, self.upper) < _LEAST_MASS:
            raise ValueError(f"parameter '{self.name}': its prior lies outside its bounds [{self.lower}, {self.upper}]")
        return self

    @property
    def spread(self) -> float | None:
        """How far x may be from the middle of what is known of it: the prior's spread, else half of the range between
        two finite bounds; None where neither is given.
        """
        if self.prior is not None:
            return self.prior.spread
        if math.isfinite(self.lower) and math.isfinite(self.upper):
            return (self.upper - self.lower) / 2
        return None

    @property
    def typical(self) -> float:
        """A change of this parameter that matters (of its logarithm where `scale="log"`): the unit of solvers' steps.

        1 on a log scale; else `spread`, or 1 where there is none.
        """
        return 1.0 if self.scale == "log" else self.spread or 1.0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws, (n,) float64, from the prior within the bounds.

        Raises:
            ValueError: there is no prior.
        """
        if self.prior is None:
            raise ValueError(f"parameter '{self.name}' has no prior")
        return self.prior.sample(n, generator, self.lower, self.upper)

    def within_prior(self) -> Parameter:
        """This parameter with its bounds narrowed to those of a uniform prior, and `initial` moved inside."""
        if not isinstance(self.prior, Uniform):
            return self
        lower, upper = max(self.lower, self.prior.low), min(self.upper, self.prior.high)
        return replace(self, lower=lower, upper=upper, initial=min(max(self.initial, lower), upper))
