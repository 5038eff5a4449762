"""L-BFGS with a strong-Wolfe line search, as states of each row (Nocedal and Wright 2006, section 7.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from invsolve.methods.base import RowMethod
from invsolve.methods.history import History, part
from invsolve.methods.quasi_newton import QuasiNewtonOptions, QuasiNewtonState, QuasiNewtonStepper
from invsolve.problem import Problem


@dataclass
class LbfgsState(QuasiNewtonState):
    """b rows of d unknowns; `unscaled` rows have no history."""

    history: History


class LbfgsStepper(QuasiNewtonStepper[LbfgsState]):
    """Keeps the last steps of every row, and projects where there are bounds."""

    options: Lbfgs.Options

    def start(self, z: Tensor) -> LbfgsState:
        return LbfgsState(**self._begin(z), history=History.empty(z, self.options.memory))

    def _learn(self, state: LbfgsState, s: Tensor, y: Tensor, moved: Tensor) -> LbfgsState:
        history, learnt = state.history.learn(s, y, moved)
        return replace(state, history=history, unscaled=state.unscaled & ~learnt)

    def _forget(self, state: LbfgsState, rows: Tensor) -> LbfgsState:
        return replace(state, history=state.history.forget(rows))

    def _newton(self, state: LbfgsState, turning: Tensor, downhill: Tensor) -> tuple[LbfgsState, Tensor]:
        rows = (turning & ~state.unscaled).nonzero().squeeze(1)
        if not len(rows):
            return state, -downhill
        found = self._directions(state, rows, downhill)
        return state, found if len(rows) == len(downhill) else (-downhill).index_copy_(0, rows, found)

    def _directions(self, state: LbfgsState, rows: Tensor, downhill: Tensor) -> Tensor:
        """Quasi-Newton directions (k, d) of the rows (k,)."""
        if not self.bounded:
            return state.history.times(rows, part(downhill, rows)).neg_()
        # A component that a scaled gradient step takes to its bound is led there by itself, and the others turn as if
        # it were held: the active set is not where z is, but where it is about to be.
        z, gradient, unit = part(state.z, rows), part(downhill, rows), part(state.unit, rows)
        ahead = z - state.history.scale()[rows][:, None] * unit * gradient
        free = (ahead > self.lower) & (ahead < self.upper)
        newton = state.history.times(rows, gradient, free).neg_()
        return self._inward(z, torch.where(free, newton, (ahead.clamp(self.lower, self.upper) - z).div_(unit)))

    def _line(self, z: Tensor, direction: Tensor, step: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The line towards the projection of the first trial on the bounds, on which the loss is smooth.

        So any number of components may reach their bounds in one step (Morales and Nocedal 2011). Where that is no
        way down, it is the line as it was, which ends on the first bound met.
        """
        if not self.bounded:
            return super()._line(z, direction, step, gradient)
        short, first, longest = super()._line(z, direction, step, gradient)
        reach = step[:, None] * direction
        ahead = z + reach
        wall = ahead.clamp(self.lower, self.upper)
        bent = torch.where(ahead == wall, reach, wall - z)
        down = (bent * gradient).sum(1) < -1e-12 * bent.norm(dim=1) * gradient.norm(dim=1)
        room = self._walls(z, bent)[1].amin(1).clamp(min=1.0)
        return (
            torch.where(down[:, None], bent, short),
            torch.where(down, 1.0, first),
            torch.where(down, room, longest),
        )


class Lbfgs(RowMethod):
    """Quasi-Newton descent of each example on its own, for many unknowns: L-BFGS, strong-Wolfe line search, bounds."""

    name = "lbfgs"
    uses_seed = False

    class Options(QuasiNewtonOptions):
        memory: int = Field(10, ge=1, le=1000, description="steps of each example that are remembered")

    options: Options

    def why_uncompiled(self, d: int) -> str | None:
        return "its memory of steps is written in place"

    def row_bytes(self, d: int, dtype: torch.dtype) -> int:
        return (2 * self.options.memory + 15) * d * dtype.itemsize

    def stepper(self, problem: Problem) -> LbfgsStepper:
        known = problem.coordinates
        return LbfgsStepper(self.options, known.lower, known.upper, named=bool(problem.parameters))
