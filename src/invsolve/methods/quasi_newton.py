"""What quasi-Newton descent of each row is, whatever it keeps of the curvature: one trial a round, a line search as
states of the row, bounds, restarts and the end (Nocedal and Wright 2006, chapters 3 and 6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from invsolve.coordinates import FEW_UNNAMED, projected
from invsolve.data.solution import Status
from invsolve.engine import RUNNING, RowState, choose, worth
from invsolve.methods.base import FirstOrder, RowOptions, loss_unit
from invsolve.methods.line_search import LineSearch, Verdict, begin_search, continue_search

_ROUNDING = 8  # units of rounding that a sum of squares is trusted to
_VANISHED = 100  # units of rounding, of the first residuals, below which those of a row count as none


class QuasiNewtonOptions(RowOptions):
    """What all quasi-Newton methods share."""

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


@dataclass
class QuasiNewtonState(RowState):
    """b rows of d unknowns. The trial is z + step·direction, clipped to the bounds."""

    z: Tensor  # (b, d) last accepted point
    loss: Tensor  # (b,)
    gradient: Tensor  # (b, d)
    unit: Tensor  # (b, d) a change of each unknown that matters, in z; (b, 1) where they share it
    first_loss: Tensor  # (b,) that of the start
    unscaled: Tensor  # (b,) bool: nothing is known, or nothing any longer, of the curvature
    direction: Tensor  # (b, d)
    iterations: Tensor  # (b,) int64
    born: Tensor  # (b,) bool: the start has been evaluated
    settled: Tensor  # (b,) bool: the last quasi-Newton step could gain nothing that the loss resolves
    search: LineSearch


S = TypeVar("S", bound=QuasiNewtonState)


class QuasiNewtonStepper(FirstOrder, ABC, Generic[S]):
    """One transition of all rows: judge the trial, then accept and turn, or search on along the same line.

    Subclasses keep what is known of the curvature in their state: they learn from every accepted step and choose the
    directions. What they are given and give is in the units of each row, in which a Hessian that nothing is known of is
    the identity. `named`: z is in typical changes of named parameters, and these are the units. Otherwise each row
    finds its own at its start.
    """

    def __init__(self, options: QuasiNewtonOptions, lower: Tensor, upper: Tensor, *, named: bool = True) -> None:
        self.options, self.lower, self.upper, self.named = options, lower, upper, named
        self.bounded = bool(torch.isfinite(lower).any() or torch.isfinite(upper).any())
        self.uniform = lower.shape[-1] > FEW_UNNAMED

    @abstractmethod
    def start(self, z: Tensor) -> S:
        """State of fresh rows at z (b, d)."""

    @abstractmethod
    def _learn(self, state: S, s: Tensor, y: Tensor, moved: Tensor) -> S:
        """The state with the curvature seen in the rows `moved` (b,), by their steps s and changes of gradient y.

        Both (b, d) in units.
        """

    @abstractmethod
    def _newton(self, state: S, turning: Tensor, downhill: Tensor) -> tuple[S, Tensor]:
        """Quasi-Newton directions (b, d) of the rows `turning` from the projected gradients `downhill` (b, d).

        Both in units. Those of unscaled rows do not matter.
        """

    @abstractmethod
    def _forget(self, state: S, rows: Tensor) -> S:
        """The state with no knowledge of the curvature in `rows` (b,) bool."""

    def _begin(self, z: Tensor) -> dict[str, Any]:
        """The fields that all states share, of fresh rows at z (b, d)."""
        b = len(z)
        zeros, no = z.new_zeros(b), torch.zeros(b, dtype=torch.bool, device=z.device)
        search = begin_search(zeros, zeros, torch.zeros_like(z), step=zeros, longest=zeros)
        return {
            "z": z,
            "loss": zeros,
            "gradient": torch.zeros_like(z),
            "unit": z.new_ones(b, 1) if self.named or self.uniform else torch.ones_like(z),
            "first_loss": zeros,
            "unscaled": ~no,
            "direction": torch.zeros_like(z),
            "iterations": torch.zeros(b, dtype=torch.int64, device=z.device),
            "born": no,
            "settled": no,
            "search": search,
        }

    def iterations(self, state: S) -> Tensor:
        return state.iterations

    def propose(self, state: S) -> Tensor:
        return self._point(state, state.search.step)

    def _point(self, state: S, step: Tensor) -> Tensor:
        point = state.z + step[:, None] * state.direction
        if not self.bounded:
            return point
        # A component that reaches its bound must be on it to the last bit, to be seen as held there.
        wall, room = self._walls(state.z, state.direction)
        return torch.where(room <= step[:, None], wall, point).clamp(self.lower, self.upper)

    def advance(self, state: S, loss: Tensor, gradient: Tensor) -> tuple[S, Tensor]:
        slope = (gradient * state.direction).sum(1)
        resolution = torch.finfo(loss.dtype).eps * state.z.abs().amax(1) / state.direction.abs().amax(1)
        search, verdict = continue_search(
            state.search, loss, slope, gradient, self.options.sufficient_decrease, self.options.curvature, resolution
        )
        fresh = ~state.born
        state = self._measure(state, fresh, loss, gradient)
        moved = (verdict != Verdict.SEARCH) & (verdict != Verdict.FAIL) | fresh
        failed = (verdict == Verdict.FAIL) & ~fresh
        dead = failed & state.unscaled  # steepest descent found no lower point either
        reset = failed & ~state.unscaled
        # The best point of the bracket satisfies Armijo: take it.
        fall_back = (verdict == Verdict.KEEP_LOW) & ~fresh
        loss = torch.where(fall_back, search.low_loss, loss)
        gradient = choose(fall_back, search.low_gradient, gradient)
        step = torch.where(fall_back, search.low_step, state.search.step)
        state = self._move(state, self._point(state, step), loss, gradient, moved)
        # What the failed quasi-Newton step was to gain, half of its slope, is lost in the rounding of the loss.
        spent = reset & (-search.start_slope <= _resolved(search.start_loss, state.first_loss))
        settled = torch.where(moved, False, state.settled | spent)
        state = replace(state, unscaled=state.unscaled | reset, settled=settled, search=search)
        downhill = self._downhill(state)
        outcome = self._outcome(state, downhill, moved, dead)
        return self._turn(state, downhill, (moved | reset) & (outcome == RUNNING)), outcome

    def _measure(self, state: S, fresh: Tensor, loss: Tensor, gradient: Tensor) -> S:
        """The units and the first loss of the rows `fresh`, whose start has just given `loss` and `gradient`.

        Where unknowns have no names, the size of the start is all that tells of their units: that of each, or the root
        mean square of all. Those that start at zero share L/‖∂L‖, taken over them: where a loss that went on falling so
        steeply would be gone.
        """
        if not worth(fresh):
            return state
        first_loss = torch.where(fresh, loss, state.first_loss)
        if self.named:
            return replace(state, first_loss=first_loss)
        d = state.z.shape[1]
        size = state.z.norm(dim=1, keepdim=True) / d**0.5 if self.uniform else state.z.abs()
        steep = gradient.masked_fill(size > 0, 0.0).norm(dim=1)
        reach = torch.where(steep > 0, loss / steep, 1.0)
        least = torch.finfo(loss.dtype).tiny ** 0.5  # its square is the least scale of the inverse Hessian
        unit = torch.where(size > 0, size, reach[:, None]).clamp(min=least)
        return replace(state, unit=choose(fresh, unit, state.unit), first_loss=first_loss)

    def _in_units(self, state: S, change: Tensor) -> Tensor:
        """Changes (b, d) of z in units."""
        return change if self.named else change / state.unit

    def _per_unit(self, state: S, gradient: Tensor) -> Tensor:
        """Gradients (b, d) by unknowns in units; also changes of z from such in units."""
        return gradient if self.named else gradient * state.unit

    def _move(self, state: S, z: Tensor, loss: Tensor, gradient: Tensor, moved: Tensor) -> S:
        """The state with the rows `moved` (b,) at z (b, d), and what their steps there tell of the curvature."""
        if not worth(moved):
            return state
        stepped = moved & state.born
        s, y = self._in_units(state, z - state.z), self._per_unit(state, gradient - state.gradient)
        state = self._learn(state, s, y, stepped)
        del s, y
        return replace(
            state,
            z=choose(moved, z, state.z),
            loss=torch.where(moved, loss, state.loss),
            gradient=choose(moved, gradient, state.gradient),
            iterations=state.iterations + stepped,
            born=torch.ones_like(state.born),
        )

    def _downhill(self, state: S) -> Tensor:
        return projected(state.gradient, state.z, self.lower, self.upper) if self.bounded else state.gradient

    def _outcome(self, state: S, downhill: Tensor, moved: Tensor, dead: Tensor) -> Tensor:
        outcome = torch.full_like(state.iterations, RUNNING, dtype=torch.int8)
        outcome = outcome.masked_fill(state.iterations >= self.options.max_iterations, int(Status.BUDGET))
        outcome = outcome.masked_fill(dead, int(Status.STALLED))
        outcome = outcome.masked_fill(dead & state.settled, int(Status.CONVERGED))
        return outcome.masked_fill(moved & self._flat(state, downhill), int(Status.CONVERGED))

    def _flat(self, state: S, downhill: Tensor) -> Tensor:
        """Whether rows (b,) have converged, by their projected gradients `downhill` (b, d)."""
        loss, first = state.loss, state.first_loss
        if self.named:
            return downhill.abs().amax(1) <= self.options.grad_tolerance * first.clamp(max=1.0)
        # Units that are only guessed may be far too small, and a gradient in them says little unless it is small beside
        # the loss as it is now. A row that has not come down yet may stand on a plateau: it goes on while it can.
        unit = torch.maximum(state.unit, state.z.abs())
        # The norm, and not the largest component, for the loss is that of all unknowns together.
        small: Tensor = (downhill * unit).norm(dim=1) <= self.options.grad_tolerance * loss
        vanished = loss <= (_VANISHED * torch.finfo(loss.dtype).eps) ** 2 * first
        return vanished | (small & (loss <= 0.5 * first)) | (downhill == 0).all(1)

    def _turn(self, state: S, downhill: Tensor, turning: Tensor) -> S:
        """A new direction and a new line search for the rows `turning`."""
        if not worth(turning):
            return state
        g = state.gradient
        downhill = self._per_unit(state, downhill)
        state, direction = self._newton(state, turning, downhill)
        slope = (direction * downhill).sum(1)
        # Not a descent direction to working precision: start again from steepest descent.
        bad = ~(slope < -1e-12 * direction.norm(dim=1) * downhill.norm(dim=1))
        unscaled = state.unscaled | bad
        direction = choose(unscaled, -downhill, direction)
        first = self._first_step(state, direction.norm(dim=1))
        direction = self._per_unit(state, direction)
        direction, step, longest = self._line(state.z, direction, torch.where(unscaled, first, 1.0), g)
        search = begin_search(state.loss, (direction * g).sum(1), g, step, longest)
        state = self._forget(state, turning & unscaled)
        return replace(
            state,
            unscaled=torch.where(turning, unscaled, state.unscaled),
            direction=choose(turning, direction, state.direction),
            search=search.where(turning, state.search),
        )

    def _first_step(self, state: S, length: Tensor) -> Tensor:
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

    def _line(self, z: Tensor, direction: Tensor, step: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Direction, first trial step and longest step (b,) of the line search, which ends on the first bound met."""
        if not self.bounded:
            return direction, step, torch.full_like(step, torch.inf)
        longest = self._walls(z, direction)[1].amin(1)
        return direction, torch.minimum(step, longest), longest

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
