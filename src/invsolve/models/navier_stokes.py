"""Navier–Stokes: the initial vorticity of a two-dimensional flow from the marker that it has stirred."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.models.advection import (
    GRID,
    MODES,
    SPECTRUM,
    Fields,
    Matrices,
    advection,
    advection_adjoint,
    advection_matrices,
    advection_tangent,
    along_x,
    along_y,
    to_grid,
)
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.fourier import fourier_matrices, grid_points, wave_numbers
from invsolve.models.parameters import Normal, Parameter
from invsolve.options import Options as BaseOptions

TIME, DIFFUSION = 2.0, 0.01
ROWS = 128  # on a CPU at once: with more, all is out of the caches and the allocator goes to the system every step
WAVES = tuple((kx, ky) for kx in range(3) for ky in range(-2, 3) if (kx, ky) > (0, 0))  # of the initial vorticity


class NavierStokes(ForwardModel):
    """Initial vorticity x = (a_1..a_12, b_1..b_12) of a flow from the density of a marker that it carries until T = 2.

    ω_t + u·∇ω = ν∆ω, m_t + u·∇m = κ∆m, u = (∂ψ/∂y, −∂ψ/∂x), ∆ψ = −ω, periodic on [0, 2π)², ν = κ = 0.01, and
    ω(0) = Σ_k a_k cos(k·r) + b_k sin(k·r), |kx|, |ky| ≤ 2. Identifiers m(0) and y = m(T) on 32 × 32 points [x, y].
    Pseudo-spectral with the 2/3 rule, see `advection`; RK4 with diffusion as integrating factor, which makes diffusion
    exact (IFRK4 in Kassam and Trefethen 2005, SIAM J. Sci. Comput. 26, 1214).
    """

    class Options(BaseOptions):
        observed: Literal["all", "half"] = Field(
            "all", description="'half' generates incomplete information: the targets of x ≥ π are NaN"
        )
        steps: int = Field(
            64,
            ge=8,
            le=10**5,
            description="time steps of RK4; 64 give a relative error of 5e-5 in the median, 2e-3 at most",
        )

    options: Options

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        terms = [(letter, kx, ky) for letter in "ab" for kx, ky in WAVES]
        return tuple(Parameter(f"{a}({kx},{ky})", prior=Normal(0, 1 / math.hypot(kx, ky))) for a, kx, ky in terms)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (GRID, GRID)

    @property
    def identifier_shape(self) -> tuple[int, ...]:
        return (GRID, GRID)

    def draw_identifiers(self, n: int, generator: torch.Generator) -> Tensor:
        """m0 (n, 32, 32) = cos(x + φ1) + cos(y + φ2) + ½ cos(2x + y + φ3) + ½ cos(x − 2y + φ4), φ ~ U(0, 2π)."""
        phase = 2 * math.pi * torch.rand(n, 4, dtype=torch.float64, generator=generator)
        one, two, three, four = phase[..., None, None].unbind(1)
        x, y = _grid()
        large = torch.cos(x + one) + torch.cos(y + two)
        return large + 0.5 * torch.cos(2 * x + y + three) + 0.5 * torch.cos(x - 2 * y + four)

    def conceal(self, targets: Tensor) -> Tensor:
        """With `observed="half"`, NaN at x ≥ π."""
        if self.options.observed == "all":
            return targets
        return targets.masked_fill(_grid()[0] >= math.pi, torch.nan)

    def make_constants(self) -> Mapping[str, Tensor]:
        return {**advection_matrices(), **_diffusion(TIME / self.options.steps), "streams": _streams()}

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        """m(T) (b, 32, 32) from x (b, 24) and m(0) (b, 32, 32)."""
        assert isinstance(identifiers, Tensor)
        if len(x) > ROWS and x.device.type == "cpu":
            parts = zip(torch.split(x, ROWS), torch.split(identifiers, ROWS), strict=True)
            return torch.cat([self.forward(*rows) for rows in parts])
        c, h, initial = self.constants(x), TIME / self.options.steps, identifiers.to(x.dtype)
        # torch.compile takes no function that brings a forward derivative, and decides itself what a gradient keeps.
        step = _step if torch.compiler.is_compiling() else _Step.apply
        stream = (c["streams"] @ x.T).view(SPECTRUM, SPECTRUM, len(x))
        marker = along_y(c["to_modes"], along_x(c["to_modes"], initial.movedim(0, 2)))
        state = torch.stack([stream, marker])
        for _ in range(self.options.steps):
            state = step(state, h, c)
        carried = along_x(c["to_grid"], along_y(c["to_grid"], state[1])).movedim(2, 0)
        # The modes of m(0) beyond the 2/3 rule never meet the flow: they decay, and nothing else.
        return carried + c["heat"] @ initial @ c["heat"] - c["kept_heat"] @ initial @ c["kept_heat"]


def _runge_kutta(state: Tensor, h: float, decay: Tensor, slope: Callable[[int, Tensor], Tensor]) -> Tensor:
    """A step of RK4 with integrating factor, `decay` over h/2; `slope` gives ∂/∂t at stage 0..3 from its state."""
    half = decay * state
    k1 = decay * slope(0, state)
    k2 = slope(1, torch.add(half, k1, alpha=h / 2))
    k3 = slope(2, torch.add(half, k2, alpha=h / 2))
    k4 = slope(3, decay * torch.add(half, k3, alpha=h))
    return torch.add(decay * half.add(k1, alpha=h / 6).add(k2 + k3, alpha=h / 3), k4, alpha=h / 6)


def _step(state: Tensor, h: float, c: Matrices) -> Tensor:
    return _runge_kutta(state, h, c["decay"], lambda _, s: advection(to_grid(s, c), c))


def _stages(state: Tensor, h: float, c: Matrices) -> list[Fields]:
    """The fields of the four stages of a step."""
    found = []

    def slope(stage: int, s: Tensor) -> Tensor:
        found.append(to_grid(s, c))
        return advection(found[-1], c) if stage < 3 else s  # the result is of no use here

    _runge_kutta(state, h, c["decay"], slope)
    return found


class _Step(torch.autograd.Function):
    """`_step` with derivatives that keep its state alone, and make the stages again: 0.5 MB of an example, not 6."""

    generate_vmap_rule = True

    @staticmethod
    def forward(state: Tensor, h: float, c: Matrices) -> Tensor:
        return _step(state, h, c)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, Matrices], output: Tensor) -> None:
        state, ctx.h, ctx.c = inputs
        ctx.save_for_backward(state)
        ctx.save_for_forward(state)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """`_runge_kutta` transposed, the last operation first."""
        (state,), h, c, decay = ctx.saved_tensors, ctx.h, ctx.c, ctx.c["decay"]
        one, two, three, four = _stages(state, h, c)
        half = decay * gradient
        g4 = decay * advection_adjoint(four, h / 6 * gradient, c)
        g3 = advection_adjoint(three, torch.add(h / 3 * half, g4, alpha=h), c)
        g2 = advection_adjoint(two, torch.add(h / 3 * half, g3, alpha=h / 2), c)
        g1 = advection_adjoint(one, decay * torch.add(h / 6 * half, g2, alpha=h / 2), c)
        return g1 + decay * (half + g2 + g3 + g4), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (state,), h, c = ctx.saved_tensors, ctx.h, ctx.c
        fields = _stages(state, h, c)
        return _runge_kutta(tangent, h, c["decay"], lambda stage, s: advection_tangent(fields[stage], s, c))


def _grid() -> tuple[Tensor, Tensor]:
    """x (32, 1) and y (32,) of the grid."""
    points = grid_points(GRID)
    return points[:, None], points


def _streams() -> Tensor:
    """(441, 24): coefficients of ψ(0) = Σ_k (a_k cos(k·r) + b_k sin(k·r)) / |k|² from x."""
    to_modes = fourier_matrices(GRID, MODES)[1]
    x, y = _grid()
    phases = [kx * x + ky * y for kx, ky in WAVES]
    strength = torch.tensor([1 / (kx**2 + ky**2) for kx, ky in WAVES] * 2, dtype=torch.float64)
    waves = torch.stack([p.cos() for p in phases] + [p.sin() for p in phases])
    return strength * (to_modes @ waves @ to_modes.T).flatten(1).T


def _diffusion(h: float) -> dict[str, Tensor]:
    """`decay` (21, 21, 1) of coefficients in h/2; on the grid along one axis, (32, 32), that of m(0) until T.

    `heat` acts on all modes; `kept_heat` on those of the 2/3 rule, and removes the others.
    """
    k = wave_numbers(MODES).square()
    n = torch.arange(GRID // 2 + 1, dtype=torch.float64)
    weight = torch.exp(-DIFFUSION * TIME * n.square()) * (2 / GRID)
    weight[[0, -1]] /= 2  # the mean, and the fastest mode, of which the grid shows the cosine alone
    x, y = _grid()
    waves = torch.cos((x - y)[..., None] * n)
    return {
        "decay": torch.exp(-DIFFUSION * h / 2 * (k[:, None] + k))[..., None],
        "heat": waves @ weight,
        "kept_heat": waves[..., :MODES] @ weight[:MODES],
    }
