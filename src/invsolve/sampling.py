"""Where solutions may be, before anything was solved: points spread by what is known of x."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Protocol

import torch
from torch import Tensor

from invsolve.coordinates import FEW_UNNAMED, Coordinates
from invsolve.models.parameters import Normal, Parameter, Uniform

MOST_SOBOL = 1000  # unknowns, above which points are drawn at random: Sobol's are no better spread there


class HasCoordinates(Protocol):
    """A problem, or all examples of a run."""

    coordinates: Coordinates
    parameters: tuple[Parameter, ...]
    d: int


def stream(seed: int, use: str) -> torch.Generator:
    """Random numbers for one use of a seed, unlike those for any other.

    Data that were simulated with the same seed come from the seed itself: a method that drew from that too would meet
    the very solutions that it looks for.
    """
    digest = hashlib.sha256(f"{use} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Sampler:
    """Points z where solutions of a problem's rows may be: as its parameters' priors say; between their bounds, where
    they have two but no prior; else by a Gaussian around the row's start, one typical change wide.

    Unknowns without names have no bounds, and the size of the start tells of their typical changes: of each up to 9 of
    them, of more in the mean.

    Args:
        around_start: leave priors and bounds aside.
        width: of the Gaussian around the start, in typical changes.
    """

    def __init__(self, problem: HasCoordinates, seed: int, *, around_start: bool = False, width: float = 1.0) -> None:
        self.coordinates, self.parameters, self.d, self.seed = problem.coordinates, problem.parameters, problem.d, seed
        self.around_start, self.width = around_start, width

    def spread(self, examples: Tensor, count: int, z0: Tensor) -> Tensor:
        """Points (b, count, d) for b examples by their numbers (b,), around z0 (b, d) where nothing else is known.

        Each example has a piece of its own of one scrambled Sobol sequence, as long as the next power of two, for then
        it is itself well spread. It depends on the seed and the example's number, not on others that are asked for.
        """
        if self.d > MOST_SOBOL:
            u = torch.stack([self._random(int(i), count) for i in examples])
        else:
            u = sobol_pieces(examples.cpu(), count, self.d, self.seed)
        u = u.to(z0.device)
        return torch.stack([self.place(u[:, k], z0) for k in range(count)], dim=1)

    def _random(self, example: int, count: int) -> Tensor:
        generator = stream(self.seed, f"start of example {example}")
        return torch.rand(count, self.d, dtype=torch.float64, generator=generator)

    def draw(self, z0: Tensor, generator: torch.Generator) -> Tensor:
        """A point (b, d) at random for each row of z0 (b, d)."""
        u = torch.rand(*z0.shape, dtype=torch.float64, generator=generator)
        return self.place(u.to(z0.device), z0)

    def place(self, u: Tensor, z0: Tensor) -> Tensor:
        """The points (b, d) at the quantiles u (b, d) in [0, 1), inside the bounds.

        What a Gaussian around z0 (b, d) has outside of them is reflected: on a bound F is often flat.
        """
        c = self.coordinates
        u = u.clamp(_LEAST, 1 - _LEAST)
        near = z0 + self.width * self.units(z0) * torch.special.ndtri(u)
        near = near + 2 * (c.lower - near).clamp(min=0)
        near = near - 2 * (near - c.upper).clamp(min=0)
        columns = []
        for j, p in enumerate(self.parameters):
            x = None if self.around_start else _quantile(p, u[:, j])
            columns.append(near[:, j] if x is None else self._to_solver(x, j))
        z = torch.stack(columns, dim=1) if columns else near
        return z.to(z0.dtype).clamp(c.lower, c.upper)

    def _to_solver(self, x: Tensor, j: int) -> Tensor:
        if self.parameters[j].scale == "log":
            x = x.clamp(min=torch.finfo(self.coordinates.scale.dtype).tiny).log()  # a lower bound may be 0
        return x / self.coordinates.scale[j]

    def units(self, z0: Tensor) -> Tensor | float:
        """A typical change of each unknown (b, d) or (b, 1), or 1, which it is of named ones."""
        if self.parameters:
            return 1.0
        size = z0.abs() if self.d <= FEW_UNNAMED else z0.square().mean(1, keepdim=True).sqrt()
        return torch.where(size > 0, size, 1.0)


_LEAST = 2.0**-53  # a quantile of 0 would be −∞


def _quantile(parameter: Parameter, u: Tensor) -> Tensor | None:
    """x (b,) at the quantiles u (b,) of what is known of a parameter; None where nothing is."""
    prior, lower, upper = parameter.prior, parameter.lower, parameter.upper
    if isinstance(prior, Normal):
        low, high = (torch.special.ndtr(u.new_tensor((b - prior.mean) / prior.std)) for b in (lower, upper))
        within: Tensor = torch.special.ndtri((low + (high - low) * u).clamp(_LEAST, 1 - _LEAST))
        return (prior.mean + prior.std * within).clamp(lower, upper)
    if isinstance(prior, Uniform):
        lower, upper = max(lower, prior.low), min(upper, prior.high)
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return None
    if parameter.scale == "log" and prior is None:
        return None if lower <= 0 else (math.log(lower) + (math.log(upper) - math.log(lower)) * u).exp()
    return lower + (upper - lower) * u


def sobol_pieces(numbers: Tensor, count: int, d: int, seed: int) -> Tensor:
    """Points (b, count, d) in (0, 1): pieces of a scrambled Sobol sequence (Owen 1998), by their numbers (b,) ≥ 0.

    Point k of the sequence is the XOR of a direction number for each bit of k's Gray code (Antonov and Saleev 1979), so
    that point i·2ᵐ + k is that of i·2ᵐ with point k: a piece needs none of those before it. Torch's engine has 2³⁰
    points; once they are used up, pieces are used again.
    """
    bits = (count - 1).bit_length()
    engine: Any = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    within, shift = _without_shift(engine, torch.arange(count)), torch.as_tensor(engine.shift)
    piece = _without_shift(engine, (numbers % (1 << engine.MAXBIT - bits)) << bits)
    # In the middle of their cells: 0 itself would be at −∞ of a Gaussian.
    points: Tensor = ((within ^ shift ^ piece[:, None]).double() + 0.5) / 2**engine.MAXBIT
    return points


def _without_shift(engine: Any, points: Tensor) -> Tensor:
    """The points (b, d) with these numbers (b,) as integers below 2³⁰, before the random shift."""
    gray = points ^ (points >> 1)
    found = torch.zeros(len(points), engine.dimension, dtype=torch.int64)
    for bit in range(engine.MAXBIT):
        found ^= ((gray >> bit) & 1)[:, None] * engine.sobolstate[:, bit]
    return found
