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

from invsolve.coordinates import projected
from invsolve.data.solution import Status
from invsolve.engine import RUNNING, RowState, choose, worth
from invsolve.methods.base import FirstOrder, RowOptions
from invsolve.methods.line_search import LineSearch, Verdict, begin_search, continue_search

_ROUNDING = 8  # units of rounding that a sum of squares is trusted to


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
    directions.
    """

    def __init__(self, options: QuasiNewtonOptions, lower: Tensor, upper: Tensor) -> None:
        self.options, self.lower, self.upper = options, lower, upper
        self.bounded = bool(torch.isfinite(lower).any() or torch.isfinite(upper).any())

    @abstractmethod
    def start(self, z: Tensor) -> S:
        """State of fresh rows at z (b, d)."""

    @abstractmethod
    def _learn(self, state: S, s: Tensor, y: Tensor, moved: Tensor) -> S:
        """The state with the curvature seen in the rows `moved` (b,), by their steps s and changes of gradient y."""

    @abstractmethod
    def _newton(self, state: S, turning: Tensor, downhill: Tensor) -> tuple[S, Tensor]:
        """Quasi-Newton directions (b, d) of the rows `turning` from the projected gradients `downhill` (b, d).

        Those of unscaled rows do not matter.
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
        spent = reset & (-search.start_slope <= _ROUNDING * torch.finfo(loss.dtype).eps * search.start_loss)
        settled = torch.where(moved, False, state.settled | spent)
        state = replace(state, unscaled=state.unscaled | reset, settled=settled, search=search)
        downhill = self._downhill(state)
        outcome = self._outcome(state, downhill, moved, dead)
        return self._turn(state, downhill, (moved | reset) & (outcome == RUNNING)), outcome

    def _move(self, state: S, z: Tensor, loss: Tensor, gradient: Tensor, moved: Tensor) -> S:
        """The state with the rows `moved` (b,) at z (b, d), and what their steps there tell of the curvature."""
        if not worth(moved):
            return state
        stepped = moved & state.born
        state = self._learn(state, z - state.z, gradient - state.gradient, stepped)
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
        small = downhill.abs().amax(1) <= self.options.grad_tolerance
        return outcome.masked_fill(moved & small, int(Status.CONVERGED))

    def _turn(self, state: S, downhill: Tensor, turning: Tensor) -> S:
        """A new direction and a new line search for the rows `turning`."""
        if not worth(turning):
            return state
        g = state.gradient
        state, direction = self._newton(state, turning, downhill)
        slope = (direction * g).sum(1)
        # Not a descent direction to working precision: start again from steepest descent.
        bad = ~(slope < -1e-12 * direction.norm(dim=1) * downhill.norm(dim=1))
        unscaled = state.unscaled | bad
        direction = choose(unscaled, -downhill, direction)
        # The very first step trusts a gradient shorter than `first_step`; a restart, where the search along a learned
        # direction has failed, always looks that far: it finds lower basins of rough losses.
        first = self.options.first_step / direction.norm(dim=1)
        first = torch.where(state.iterations == 0, first.clamp(max=1.0), first)
        direction, step, longest = self._line(state.z, direction, torch.where(unscaled, first, 1.0), g)
        search = begin_search(state.loss, (direction * g).sum(1), g, step, longest)
        state = self._forget(state, turning & unscaled)
        return replace(
            state,
            unscaled=torch.where(turning, unscaled, state.unscaled),
            direction=choose(turning, direction, state.direction),
            search=search.where(turning, state.search),
        )

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
