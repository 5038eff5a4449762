"""Dense BFGS with a strong-Wolfe line search, as states of each row (Nocedal and Wright 2006, chapters 3 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invsolve.engine import worth
from invsolve.methods.base import STATE_BYTES, RowMethod
from invsolve.methods.quasi_newton import QuasiNewtonOptions, QuasiNewtonState, QuasiNewtonStepper
from invsolve.problem import Problem


@dataclass
class BfgsState(QuasiNewtonState):
    """b rows of d unknowns; those of `unscaled` rows have an inverse Hessian that is not looked at."""

    inverse: Tensor  # (b, d, d) approximate inverse Hessian, in units


class BfgsStepper(QuasiNewtonStepper[BfgsState]):
    """Keeps the inverse Hessian of every row as a matrix."""

    def start(self, z: Tensor) -> BfgsState:
        b, d = z.shape
        inverse = torch.eye(d, dtype=z.dtype, device=z.device).expand(b, d, d)
        return BfgsState(**self._begin(z), inverse=inverse)

    def _learn(self, state: BfgsState, s: Tensor, y: Tensor, moved: Tensor) -> BfgsState:
        """BFGS update of the inverse Hessian (N&W eq. 6.17), skipped where the curvature s·y is not safely positive."""
        y = torch.where(s == 0, 0.0, y)  # a component held by its bound tells nothing about the others
        sy, yy = (s * y).sum(1), y.square().sum(1)
        safe = moved & (sy > 1e-10 * s.norm(dim=1) * yy.sqrt())
        if not worth(safe):
            return state
        # Before the first update the identity takes the scale of the curvature just seen (N&W eq. 6.20).
        first = (safe & state.unscaled)[:, None, None]
        scale = torch.where(safe, sy / yy, 1.0)[:, None, None]
        inverse = torch.where(first, scale * torch.eye(s.shape[1], dtype=s.dtype, device=s.device), state.inverse)
        rho = torch.where(safe, 1 / sy, 0.0)
        hy = (inverse * y[:, None, :]).sum(2)
        weight = rho * (1 + rho * (y * hy).sum(1))
        cross = hy[:, :, None] * s[:, None, :]
        update = weight[:, None, None] * s[:, :, None] * s[:, None, :] - rho[:, None, None] * (cross + cross.mT)
        inverse = torch.where(safe[:, None, None], inverse + update, state.inverse)
        return replace(state, inverse=inverse, unscaled=state.unscaled & ~safe)

    def _newton(self, state: BfgsState, turning: Tensor, downhill: Tensor) -> tuple[BfgsState, Tensor]:
        free = (downhill != 0) | (state.gradient == 0)
        eye = torch.eye(downhill.shape[1], dtype=downhill.dtype, device=downhill.device)
        # Held components are decoupled, so that the block of the free ones stays an inverse Hessian of its own.
        coupled = free[:, :, None] & free[:, None, :]
        inverse = torch.where(coupled, state.inverse, eye * state.inverse)
        direction = self._inward(state.z, -(inverse * downhill[:, None, :]).sum(2))
        return replace(state, inverse=torch.where(turning[:, None, None], inverse, state.inverse)), direction

    def _forget(self, state: BfgsState, rows: Tensor) -> BfgsState:
        return state  # unscaled they are already


class Bfgs(RowMethod):
    """Quasi-Newton descent of each example on its own: dense BFGS, strong-Wolfe line search, bounds by active set."""

    name = "bfgs"
    uses_seed = False

    Options = QuasiNewtonOptions
    options: QuasiNewtonOptions

    def row_bytes(self, d: int, dtype: torch.dtype) -> int:
        return 5 * d**2 * dtype.itemsize  # the matrix, and what its update makes beside it

    def refusal(self, d: int, dtype: torch.dtype) -> str | None:
        if (needed := self.row_bytes(d, dtype)) <= STATE_BYTES:
            return None
        return (
            f"method 'bfgs' keeps d × d matrices, {needed / 1e9:,.0f} GB for an x of d = {d} unknowns; use --method "
            f"lbfgs, or --refine lbfgs after another method"
        )

    def stepper(self, problem: Problem) -> BfgsStepper:
        known = problem.coordinates
        return BfgsStepper(self.options, known.lower, known.upper, named=bool(problem.parameters))
