"""Dense BFGS with a strong-Wolfe line search, as states of each row (Nocedal and Wright 2006, chapters 3 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from invsolve.coordinates import projected
from invsolve.data.solution import Status
from invsolve.engine import RUNNING, RowState
from invsolve.methods.base import RowMethod, RowOptions, loss_unit
from invsolve.methods.line_search import LineSearch, Verdict, begin_search, continue_search
from invsolve.problem import Problem

_ROUNDING = 8  # units of rounding that a sum of squares is trusted to
_VANISHED = 100  # units of rounding, of the first residuals, below which those of a row count as none


@dataclass
class BfgsState(RowState):
    """b rows of d unknowns. The trial is z + step·direction, clipped to the bounds."""

    z: Tensor  # (b, d) last accepted point
    loss: Tensor  # (b,)
    gradient: Tensor  # (b, d)
    unit: Tensor  # (b, d) a change of each unknown that matters, in z
    first_loss: Tensor  # (b,) that of the start
    inverse: Tensor  # (b, d, d) approximate inverse Hessian
    unscaled: Tensor  # (b,) bool: the inverse is still, or again, the identity in these units
    direction: Tensor  # (b, d)
    iterations: Tensor  # (b,) int64
    born: Tensor  # (b,) bool: the start has been evaluated
    settled: Tensor  # (b,) bool: the last quasi-Newton step could gain nothing that the loss resolves
    search: LineSearch


class BfgsStepper:
    """One transition of all rows: judge the trial, then accept and turn, or search on along the same line.

    `named`: z is in typical changes of named parameters. Otherwise each row finds its own units at its start.
    """

    def __init__(self, options: Bfgs.Options, lower: Tensor, upper: Tensor, *, named: bool = True) -> None:
        self.options, self.lower, self.upper, self.named = options, lower, upper, named
        self.bounded = bool(torch.isfinite(lower).any() or torch.isfinite(upper).any())

    def start(self, z: Tensor) -> BfgsState:
        b, d = z.shape
        zeros = z.new_zeros(b)
        return BfgsState(
            z=z,
            loss=zeros,
            gradient=torch.zeros_like(z),
            unit=torch.ones_like(z),
            first_loss=zeros,
            inverse=torch.eye(d, dtype=z.dtype, device=z.device).expand(b, d, d),
            unscaled=torch.ones(b, dtype=torch.bool, device=z.device),
            direction=torch.zeros_like(z),
            iterations=torch.zeros(b, dtype=torch.int64, device=z.device),
            born=torch.zeros(b, dtype=torch.bool, device=z.device),
            settled=torch.zeros(b, dtype=torch.bool, device=z.device),
            search=begin_search(zeros, zeros, torch.zeros_like(z), step=zeros, longest=zeros),
        )

    def iterations(self, state: BfgsState) -> Tensor:
        return state.iterations

    def propose(self, state: BfgsState) -> Tensor:
        return self._point(state, state.search.step)

    def _point(self, state: BfgsState, step: Tensor) -> Tensor:
        point = state.z + step[:, None] * state.direction
        if not self.bounded:
            return point
        # A component that reaches its bound must be on it to the last bit, to be seen as held there.
        wall, room = self._walls(state.z, state.direction)
        return torch.where(room <= step[:, None], wall, point).clamp(self.lower, self.upper)

    def advance(self, state: BfgsState, loss: Tensor, gradient: Tensor) -> tuple[BfgsState, Tensor]:
        slope = (gradient * state.direction).sum(1)
        resolution = torch.finfo(loss.dtype).eps * state.z.abs().amax(1) / state.direction.abs().amax(1)
        search, verdict = continue_search(
            state.search, loss, slope, gradient, self.options.sufficient_decrease, self.options.curvature, resolution
        )
        fresh = ~state.born
        accept = (verdict == Verdict.ACCEPT) | fresh
        fall_back = (verdict == Verdict.KEEP_LOW) & ~fresh  # the best point of the bracket satisfies Armijo: take it
        failed = (verdict == Verdict.FAIL) & ~fresh
        moved = accept | fall_back
        step = torch.where(fall_back, search.low_step, state.search.step)
        new_gradient = torch.where(fall_back[:, None], search.low_gradient, gradient)
        new_z = self._point(state, step)

        state = self._measure(state, fresh, loss, gradient)
        inverse, unscaled = self._update(state, new_z - state.z, new_gradient - state.gradient, moved & ~fresh)
        dead = failed & state.unscaled  # steepest descent found no lower point either
        reset = failed & ~state.unscaled
        # What the failed quasi-Newton step was to gain, half of its slope, is lost in the rounding of the loss.
        spent = reset & (-search.start_slope <= _resolved(search.start_loss, state.first_loss))
        settled = torch.where(moved, False, state.settled | spent)
        state = replace(
            state,
            z=torch.where(moved[:, None], new_z, state.z),
            loss=torch.where(moved, torch.where(fall_back, search.low_loss, loss), state.loss),
            gradient=torch.where(moved[:, None], new_gradient, state.gradient),
            inverse=inverse,
            unscaled=unscaled | reset,
            iterations=state.iterations + (moved & ~fresh),
            born=torch.ones_like(state.born),
            settled=settled,
            search=search,
        )
        outcome = self._outcome(state, moved, dead)
        return self._turn(state, (moved | reset) & (outcome == RUNNING)), outcome

    def _measure(self, state: BfgsState, fresh: Tensor, loss: Tensor, gradient: Tensor) -> BfgsState:
        """The units and the first loss of the rows `fresh`, whose start has just given `loss` and `gradient`.

        Where unknowns have no names, the size of the start is all that tells of their units. Those that start at zero
        share L/‖∂L‖, taken over them: where a loss that went on falling so steeply would be gone.
        """
        first_loss = torch.where(fresh, loss, state.first_loss)
        if self.named:
            return replace(state, first_loss=first_loss)
        zero = state.z == 0
        steep = torch.where(zero, gradient, 0.0).norm(dim=1)
        reach = torch.where(steep > 0, loss / steep, 1.0)
        least = torch.finfo(loss.dtype).tiny ** 0.5  # its square is the least scale of the inverse Hessian
        unit = torch.where(zero, reach[:, None], state.z.abs()).clamp(min=least)
        return replace(state, unit=torch.where(fresh[:, None], unit, state.unit), first_loss=first_loss)

    def _outcome(self, state: BfgsState, moved: Tensor, dead: Tensor) -> Tensor:
        outcome = torch.full_like(state.iterations, RUNNING, dtype=torch.int8)
        outcome = outcome.masked_fill(state.iterations >= self.options.max_iterations, int(Status.BUDGET))
        outcome = outcome.masked_fill(dead, int(Status.STALLED))
        outcome = outcome.masked_fill(dead & state.settled, int(Status.CONVERGED))
        return outcome.masked_fill(moved & self._flat(state), int(Status.CONVERGED))

    def _flat(self, state: BfgsState) -> Tensor:
        """Whether rows (b,) have converged, by their gradients."""
        loss, first = state.loss, state.first_loss
        downhill = projected(state.gradient, state.z, self.lower, self.upper)
        if self.named:
            return downhill.abs().amax(1) <= self.options.grad_tolerance * first.clamp(max=1.0)
        # Units that are only guessed may be far too small, and a gradient in them says little unless it is small beside
        # the loss as it is now. A row that has not come down yet may stand on a plateau: it goes on while it can.
        unit = torch.maximum(state.unit, state.z.abs())
        small = (downhill * unit).abs().amax(1) <= self.options.grad_tolerance * loss
        vanished = loss <= (_VANISHED * torch.finfo(loss.dtype).eps) ** 2 * first
        return vanished | (small & (loss <= 0.5 * first)) | (downhill == 0).all(1)

    def _update(self, state: BfgsState, s: Tensor, y: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """BFGS update of the inverse Hessian (N&W eq. 6.17), skipped where the curvature s·y is not safely positive."""
        y = torch.where(s == 0, 0.0, y)  # a component held by its bound tells nothing about the others
        scaled = y * state.unit
        sy, yy = (s * y).sum(1), scaled.square().sum(1)
        safe = moved & (sy > 1e-10 * (s / state.unit).norm(dim=1) * yy.sqrt())
        if not bool(safe.any()):
            return state.inverse, state.unscaled
        # Before the first update the identity takes the scale of the curvature just seen (N&W eq. 6.20).
        first = (safe & state.unscaled)[:, None, None]
        scale = torch.where(safe, sy / yy, 1.0)[:, None, None]
        inverse = torch.where(first, scale * torch.diag_embed(state.unit.square()), state.inverse)
        rho = torch.where(safe, 1 / sy, 0.0)
        hy = (inverse * y[:, None, :]).sum(2)
        weight = rho * (1 + rho * (y * hy).sum(1))
        cross = hy[:, :, None] * s[:, None, :]
        update = weight[:, None, None] * s[:, :, None] * s[:, None, :] - rho[:, None, None] * (cross + cross.mT)
        return torch.where(safe[:, None, None], inverse + update, state.inverse), state.unscaled & ~safe

    def _turn(self, state: BfgsState, turning: Tensor) -> BfgsState:
        """A new direction and a new line search for the rows `turning`."""
        if not bool(turning.any()):
            return state
        z, g = state.z, state.gradient
        free = projected(g, z, self.lower, self.upper) == g
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        # Held components are decoupled, so that the block of the free ones stays an inverse Hessian of its own.
        coupled = free[:, :, None] & free[:, None, :]
        identity = eye * state.unit.square()[:, :, None]
        inverse = torch.where(
            state.unscaled[:, None, None], identity, torch.where(coupled, state.inverse, eye * state.inverse)
        )
        downhill = torch.where(free, g, 0.0)
        direction = self._inward(z, -(inverse * downhill[:, None, :]).sum(2))
        slope = (direction * g).sum(1)
        # Not a descent direction to working precision: start again from steepest descent.
        steepest = -downhill * state.unit.square()
        steepness = downhill * state.unit
        bad = ~(slope < -1e-12 * (direction / state.unit).norm(dim=1) * steepness.norm(dim=1))
        unscaled = state.unscaled | bad
        direction = torch.where(unscaled[:, None], steepest, direction)
        slope = torch.where(unscaled, -steepness.square().sum(1), slope)
        longest = self._walls(z, direction)[1].amin(1)
        first = self._first_step(state, (direction / state.unit).norm(dim=1))
        step = torch.minimum(torch.where(unscaled, first, 1.0), longest)
        search = begin_search(state.loss, slope, g, step, longest)
        return replace(
            state,
            inverse=torch.where(
                (turning & unscaled)[:, None, None],
                identity,
                torch.where(turning[:, None, None], inverse, state.inverse),
            ),
            unscaled=torch.where(turning, unscaled, state.unscaled),
            direction=torch.where(turning[:, None], direction, state.direction),
            search=search.where(turning, state.search),
        )

    def _first_step(self, state: BfgsState, length: Tensor) -> Tensor:
        """The first trial step (b,) along steepest descents of this length (b,), in units."""
        far = self.options.first_step / length
        if self.named:
            # The very first step trusts a gradient shorter than `first_step`, unless all of the loss is as small.
            near = torch.minimum(far, 1 / loss_unit(state.first_loss))
        else:
            # Guessed units are not trusted beyond where a loss that went on falling so steeply would be gone.
            near = torch.minimum(far, state.loss / length.square())
        # A restart, where the search along a learned direction has failed, always looks that far: it finds lower
        # basins of rough losses.
        return torch.where(state.iterations == 0, near, far)

    def _inward(self, z: Tensor, direction: Tensor) -> Tensor:
        outward = ((z <= self.lower) & (direction < 0)) | ((z >= self.upper) & (direction > 0))
        return direction.masked_fill(outward, 0.0)

    def _walls(self, z: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """The bound (b, d) that each component moves towards, and the step at which it gets there."""
        wall = torch.where(direction > 0, self.upper, self.lower)
        return wall, torch.where(direction == 0, torch.inf, (wall - z) / direction)


def _resolved(loss: Tensor, first_loss: Tensor) -> Tensor:
    """What of a loss (b,) is rounding.

    Residuals are differences of y and targets, and carry the rounding of these; of their size the first loss is all
    that is known here. For a loss as large as the first it is a few units of its own rounding.
    """
    unit = _ROUNDING * torch.finfo(loss.dtype).eps
    return unit * (loss * torch.maximum(loss, first_loss)).sqrt() + unit**2 * first_loss


class Bfgs(RowMethod):
    """Quasi-Newton descent of each example on its own: dense BFGS, strong-Wolfe line search, bounds by active set."""

    name = "bfgs"

    class Options(RowOptions):
        first_step: float = Field(
            1.0, gt=0, description="length of the first trial step, in typical changes of the parameters"
        )
        sufficient_decrease: float = Field(1e-4, gt=0, lt=0.5, description="c1 of the Wolfe conditions")
        curvature: float = Field(0.9, gt=0, lt=1, description="c2 of the strong Wolfe conditions, above c1")

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.curvature <= self.sufficient_decrease:
                raise ValueError(f"curvature {self.curvature:g} must be above sufficient_decrease")
            return self

    options: Options

    def stepper(self, problem: Problem) -> BfgsStepper:
        known = problem.coordinates
        return BfgsStepper(self.options, known.lower, known.upper, named=bool(problem.parameters))
